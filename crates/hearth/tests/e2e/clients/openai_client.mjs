// The JavaScript package `openai` against a node.
//
//     NODE_PATH=… node openai_client.mjs http://127.0.0.1:8321/v1
import assert from "node:assert/strict";
import { createRequire } from "node:module";

// The package lives in the build folder, not beside this file.
const require = createRequire(process.argv[3] + "/package.json");
const OpenAI = require("openai").default;

const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });
const base = { model: "ember", messages: [{ role: "user", content: "what is hearth" }], temperature: 0, max_tokens: 12 };

const checks = {
  async chat() {
    const answer = await client.chat.completions.create(base);
    assert.equal(answer.choices[0].message.role, "assistant");
    assert.ok(answer.choices[0].message.content.length > 0);
    assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
  },
  async stream() {
    const whole = (await client.chat.completions.create(base)).choices[0].message.content;
    let text = "", usage = null;
    for await (const chunk of await client.chat.completions.create({ ...base, stream: true, stream_options: { include_usage: true } })) {
      text += chunk.choices[0]?.delta?.content ?? "";
      usage = chunk.usage ?? usage;
    }
    assert.equal(text, whole);
    assert.ok(usage.completion_tokens > 0);
  },
  async schema() {
    const schema = { type: "object", properties: { n: { type: "integer", minimum: 1, maximum: 9 } }, required: ["n"], additionalProperties: false };
    const answer = await client.chat.completions.create({ ...base, max_tokens: 50, response_format: { type: "json_schema", json_schema: { name: "number", strict: true, schema } } });
    const value = JSON.parse(answer.choices[0].message.content);
    assert.ok(Number.isInteger(value.n) && value.n >= 1 && value.n <= 9);
  },
  async logprobs() {
    const answer = await client.chat.completions.create({ ...base, logprobs: true, top_logprobs: 2 });
    for (const token of answer.choices[0].logprobs.content) assert.equal(token.top_logprobs.length, 2);
  },
  async embeddings() {
    const answer = await client.embeddings.create({ model: "bert", input: ["warm fire", "cold water"] });
    assert.deepEqual(answer.data.map((entry) => entry.index), [0, 1]);
    const first = answer.data[0].embedding;
    assert.ok(Math.abs(first.reduce((sum, x) => sum + x * x, 0) - 1) < 1e-4);
    const plain = await client.embeddings.create({ model: "bert", input: "warm fire", encoding_format: "float" });
    assert.equal(plain.data[0].embedding.length, first.length);
    plain.data[0].embedding.forEach((x, at) => assert.ok(Math.abs(x - first[at]) < 1e-5));
    await assert.rejects(client.embeddings.create({ model: "ember", input: "warm fire" }), (error) => error.status === 400 && error.param === "model");
  },
  async memory() {
    const asked = { ...base, hearth: { memory: { limit: 3 } } };
    const answer = await client.chat.completions.create(asked);
    assert.deepEqual(answer.hearth.memory.used, []);
    let first = null;
    for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) first ??= chunk;
    assert.deepEqual(first.hearth.memory.used, []);
    await assert.rejects(client.chat.completions.create({ ...base, hearth: { memory: { limit: 0 } } }), (error) => error.param === "hearth.memory.limit");
  },
  async models() {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    assert.ok(ids.includes("ember"));
  },
  async errors() {
    await assert.rejects(client.chat.completions.create({ ...base, model: "gpt-9" }), (error) => error instanceof OpenAI.NotFoundError && error.code === "model_not_found");
    await assert.rejects(client.chat.completions.create({ ...base, temperature: 9 }), (error) => error instanceof OpenAI.BadRequestError && error.param === "temperature");
    await assert.rejects(client.chat.completions.create({ ...base, messages: [] }), (error) => error.status === 400);
  },
  async cancel() {
    const stream = await client.chat.completions.create({ ...base, max_tokens: 900, stream: true, ignore_eos: true });
    for await (const _ of stream) break;
    stream.controller.abort();
    await checks.chat();
  },
};

for (const [name, check] of Object.entries(checks)) {
  await check();
  console.log("ok", name);
}
