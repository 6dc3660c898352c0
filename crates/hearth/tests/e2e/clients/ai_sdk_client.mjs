// The JavaScript package `ai` with `@ai-sdk/openai-compatible` against a node.
//
//     node ai_sdk_client.mjs http://127.0.0.1:8321/v1 FOLDER_OF_PACKAGES
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// The packages live in the build folder, not beside this file.
const require = createRequire(process.argv[3] + "/package.json");
const load = (name) => import(pathToFileURL(require.resolve(name)));
const ai = await load("ai");
const { createOpenAICompatible } = await load("@ai-sdk/openai-compatible");

const hearth = createOpenAICompatible({ name: "hearth", baseURL: process.argv[2], supportsStructuredOutputs: true, includeUsage: true });
const base = { model: hearth("ember"), prompt: "what is hearth", temperature: 0, maxOutputTokens: 12, maxRetries: 0 };
const schema = ai.jsonSchema({
  type: "object", required: ["room", "on"], additionalProperties: false,
  properties: { room: { type: "string", enum: ["kitchen", "hall"] }, on: { type: "boolean" } },
});

const checks = {
  async text() {
    const answer = await ai.generateText(base);
    assert.ok(answer.text.length > 0 && answer.usage.outputTokens > 0);
    return answer.text;
  },
  async stream() {
    const expected = await checks.text();
    const answer = ai.streamText(base);
    let text = "", pieces = 0;
    for await (const piece of answer.textStream) { text += piece; pieces += 1; }
    assert.equal(text, expected);
    assert.ok(pieces > 1 && (await answer.usage).outputTokens > 0);
  },
  async memory() {
    const wish = { ...base, providerOptions: { hearth: { hearth: { memory: true } } } };
    const answer = await ai.generateText(wish);
    const stream = ai.streamText({ ...wish, includeRawChunks: true });
    let text = "", first = null;
    for await (const part of stream.fullStream) {
      if (part.type === "raw") first ??= part.rawValue;
      if (part.type === "error") throw part.error;
      if (part.type === "text-delta") text += part.text;
    }
    assert.deepEqual(first.hearth.memory.used, []);
    assert.equal(text, answer.text);
  },
  async tools() {
    let asked;
    const light = ai.tool({ description: "Switches a light", inputSchema: schema, execute: async (input) => { asked = input; return "done"; } });
    const one = { hearth: { parallel_tool_calls: false } };
    // The result goes back to the model in a second step.
    const answer = await ai.generateText({ ...base, maxOutputTokens: 120, tools: { light }, toolChoice: "required", providerOptions: one, stopWhen: ai.stepCountIs(2) });
    assert.equal(typeof asked.on, "boolean");
    assert.equal(answer.steps.length, 2);
    const streamed = ai.streamText({ ...base, maxOutputTokens: 120, tools: { light }, toolChoice: "required", providerOptions: one });
    assert.deepEqual((await streamed.toolCalls)[0].input, answer.steps[0].toolCalls[0].input);
  },
  async structured() {
    const { output } = await ai.generateText({ ...base, maxOutputTokens: 60, output: ai.Output.object({ schema }) });
    assert.equal(typeof output.on, "boolean");
  },
  async errors() {
    const wrong = (part, status) => assert.rejects(ai.generateText({ ...base, ...part }), (error) => error.statusCode === status && error.message.length > 0);
    await wrong({ model: hearth("gpt-9") }, 404);
    await wrong({ temperature: 9 }, 400);
  },
  async cancel() {
    const abort = new AbortController();
    const { textStream } = ai.streamText({ ...base, maxOutputTokens: 900, abortSignal: abort.signal, onError() {} });
    for await (const _ of textStream) { abort.abort(); break; }
    await checks.text();
  },
};

for (const [name, check] of Object.entries(checks)) {
  await check();
  console.log("ok", name);
}
