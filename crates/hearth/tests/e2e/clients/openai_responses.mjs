// The JavaScript package `openai` on `/v1/responses` and `/v1/conversations` of a node.
//
//     node openai_responses.mjs http://127.0.0.1:8321/v1 FOLDER_OF_PACKAGES
import assert from "node:assert/strict";
import { createRequire } from "node:module";

// The package lives in the build folder, not beside this file.
const require = createRequire(process.argv[3] + "/package.json");
const OpenAI = require("openai").default;

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });
const base = { model: "ember", input: "what is hearth", temperature: 0, max_output_tokens: 12 };
const light = {
  type: "function", name: "set_light", strict: true,
  parameters: {
    type: "object", required: ["room", "on"], additionalProperties: false,
    properties: { room: { type: "string", enum: ["kitchen", "hall"] }, on: { type: "boolean" } },
  },
};

const checks = {
  async whole() {
    const answer = await client.responses.create(base);
    assert.ok(answer.output_text.length > 0);
    assert.equal(answer.usage.total_tokens, answer.usage.input_tokens + answer.usage.output_tokens);
    return answer;
  },
  async events() {
    const { output_text } = await checks.whole();
    let text = "", last;
    for await (const event of await client.responses.create({ ...base, stream: true })) {
      if (event.type === "response.output_text.delta") text += event.delta;
      last = event;
    }
    assert.equal(text, output_text);
    assert.ok(["response.completed", "response.incomplete"].includes(last.type));
  },
  async accumulated() {
    const stream = client.responses.stream({ ...base, max_output_tokens: 400 });
    const answer = await stream.finalResponse();
    assert.equal(answer.status, "completed");
    assert.equal((await client.responses.retrieve(answer.id)).output_text, answer.output_text);
  },
  async parse() {
    const schema = { type: "object", properties: { n: { type: "integer", minimum: 1, maximum: 9 } }, required: ["n"], additionalProperties: false };
    const answer = await client.responses.parse({ ...base, max_output_tokens: 60, text: { format: { type: "json_schema", name: "number", strict: true, schema } } });
    assert.ok(answer.output_parsed.n >= 1 && answer.output_parsed.n <= 9);
  },
  async tools() {
    const asked = { ...base, max_output_tokens: 120, tools: [light] };
    const called = await client.responses.stream({ ...asked, tool_choice: "required", parallel_tool_calls: false }).finalResponse();
    const [call] = called.output;
    assert.equal(call.type, "function_call");
    assert.equal(typeof JSON.parse(call.arguments).on, "boolean");
    const result = { type: "function_call_output", call_id: call.call_id, output: "the light is on" };
    const stored = await client.responses.create({ ...asked, input: [result], previous_response_id: called.id });
    const sent = await client.responses.create({ ...asked, input: [{ role: "user", content: base.input }, call, result], store: false });
    assert.equal(stored.usage.input_tokens, sent.usage.input_tokens);
  },
  async conversations() {
    const conversation = await client.conversations.create();
    const answer = await client.responses.create({ ...base, conversation: conversation.id });
    const texts = [];
    for await (const item of client.conversations.items.list(conversation.id, { order: "asc", limit: 1 })) texts.push(item.content[0].text);
    assert.deepEqual(texts, [base.input, answer.output_text]);
    assert.ok((await client.conversations.delete(conversation.id)).deleted);
    await client.responses.delete(answer.id);
    await assert.rejects(client.responses.retrieve(answer.id), (error) => error instanceof OpenAI.NotFoundError);
  },
  async errors() {
    await assert.rejects(client.responses.create({ ...base, model: "gpt-9" }), (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found");
    await assert.rejects(client.responses.create({ ...base, tools: [{ type: "web_search" }] }), (error) => error instanceof OpenAI.BadRequestError && error.param === "tools[0].type");
    await assert.rejects(client.responses.create({ ...base, previous_response_id: "resp_none" }), (error) => error.code === "previous_response_not_found");
  },
  async cancel() {
    const stream = await client.responses.create({ ...base, max_output_tokens: 900, stream: true, ignore_eos: true });
    for await (const _ of stream) break;
    stream.controller.abort();
    await checks.whole();
  },
};

for (const [name, check] of Object.entries(checks)) {
  await check();
  console.log("ok", name);
}
