// The JavaScript package `@anthropic-ai/sdk` against a node.
//
//     node anthropic_client.mjs http://127.0.0.1:8321 FOLDER_OF_NODE_MODULES
import assert from "node:assert/strict";
import { createRequire } from "node:module";

// The package lives in the build folder, not beside this file.
const require = createRequire(process.argv[3] + "/package.json");
const Anthropic = require("@anthropic-ai/sdk").default;

const client = new Anthropic({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });
const base = { model: "ember", max_tokens: 12, messages: [{ role: "user", content: "what is hearth" }], temperature: 0 };
const light = {
  name: "set_light",
  description: "Switches a light",
  input_schema: { type: "object", properties: { room: { type: "string", enum: ["kitchen", "hall"] }, on: { type: "boolean" } }, required: ["room", "on"] },
};

const checks = {
  async chat() {
    const answer = await client.messages.create(base);
    assert.equal(answer.role, "assistant");
    assert.equal(answer.content[0].type, "text");
    assert.ok(answer.content[0].text.length > 0);
    assert.ok(answer.usage.output_tokens > 0);
    assert.ok(answer._request_id);
  },
  async stream() {
    const whole = (await client.messages.create(base)).content;
    const stream = client.messages.stream(base);
    let text = "";
    stream.on("text", (piece) => { text += piece; });
    const message = await stream.finalMessage();
    assert.deepEqual(message.content, whole);
    assert.equal(text, whole[0].text);
    assert.ok(message.stop_reason);
  },
  async tools() {
    const ask = { ...base, max_tokens: 200, messages: [{ role: "user", content: "lights on in the hall" }], tools: [light], tool_choice: { type: "any", disable_parallel_tool_use: true } };
    const answer = await client.messages.create(ask);
    assert.equal(answer.stop_reason, "tool_use");
    const call = answer.content.at(-1);
    assert.ok(["kitchen", "hall"].includes(call.input.room) && typeof call.input.on === "boolean");
    const streamed = (await client.messages.stream(ask).finalMessage()).content.at(-1);
    assert.deepEqual(streamed.input, call.input);
    const result = { type: "tool_result", tool_use_id: call.id, content: "done" };
    const messages = [...ask.messages, { role: "assistant", content: answer.content }, { role: "user", content: [result] }];
    assert.equal((await client.messages.create({ ...base, tools: [light], messages })).type, "message");
  },
  async thinking_off() {
    const answer = await client.messages.create({ ...base, thinking: { type: "disabled" } });
    assert.deepEqual(answer.content.map((block) => block.type), ["text"]);
  },
  async count() {
    const counted = await client.messages.countTokens({ model: "ember", messages: base.messages });
    const { usage } = await client.messages.create(base);
    assert.equal(counted.input_tokens, usage.input_tokens + usage.cache_read_input_tokens);
  },
  async models() {
    const listed = [];
    for await (const model of client.models.list({ limit: 1 })) listed.push(model.id);
    assert.ok(listed.includes("ember"), listed.join());
    assert.equal((await client.models.retrieve("ember")).display_name, "ember");
  },
  async errors() {
    const kind = (name) => (error) => error.error.error.type === name && error.requestID === error.error.request_id;
    await assert.rejects(client.messages.create({ ...base, model: "claude-opus-5-5" }), (error) => error instanceof Anthropic.NotFoundError && kind("not_found_error")(error));
    await assert.rejects(client.messages.create({ ...base, temperature: 9 }), (error) => error instanceof Anthropic.BadRequestError && kind("invalid_request_error")(error));
    await assert.rejects(client.messages.stream({ ...base, messages: [] }).finalMessage(), (error) => error.status === 400);
  },
  async cancel() {
    // The schema keeps the answer going.
    const schema = { type: "object", properties: { text: { type: "string", minLength: 2000 } }, required: ["text"], additionalProperties: false };
    const stream = await client.messages.create({ ...base, max_tokens: 900, stream: true, output_config: { format: { type: "json_schema", schema } } });
    for await (const event of stream) if (event.type === "content_block_delta") break;
    stream.controller.abort();
    await checks.chat();
  },
};

for (const [name, check] of Object.entries(checks)) {
  await check();
  console.log("ok", name);
}
