// The JavaScript package `ollama` against a node.
//
//     node ollama_client.mjs http://127.0.0.1:8321 FOLDER
import assert from "node:assert/strict";
import { createRequire } from "node:module";

// The package lives in the build folder, not beside this file.
const require = createRequire(process.argv[3] + "/package.json");
const { Ollama } = require("ollama");

const client = new Ollama({ host: process.argv[2] });
const messages = [{ role: "user", content: "what is hearth" }];
const base = { model: "ember", messages, options: { temperature: 0, num_predict: 12 } };

const checks = {
  async chat() {
    const answer = await client.chat(base);
    assert.equal(answer.message.role, "assistant");
    assert.ok(answer.message.content.length > 0 && answer.done);
    assert.ok(answer.eval_count > 0 && answer.total_duration >= answer.eval_duration);
    return answer.message.content;
  },
  async stream() {
    let text = "", last;
    for await (const piece of await client.chat({ ...base, stream: true })) {
      text += piece.message.content;
      last = piece;
    }
    assert.equal(text, await checks.chat());
    assert.ok(last.done && last.eval_count > 0);
  },
  async generate() {
    const answer = await client.generate({ model: "ember", prompt: messages[0].content, options: base.options });
    assert.equal(answer.response, await checks.chat());
  },
  async schema() {
    const format = { type: "object", properties: { n: { type: "integer", minimum: 1, maximum: 9 } }, required: ["n"], additionalProperties: false };
    const answer = await client.chat({ ...base, format, options: { temperature: 0, num_predict: 50 } });
    const value = JSON.parse(answer.message.content);
    assert.ok(Number.isInteger(value.n) && value.n >= 1 && value.n <= 9);
  },
  async tools() {
    const parameters = { type: "object", properties: { on: { type: "boolean" } }, required: ["on"], additionalProperties: false };
    const tool = { type: "function", function: { name: "light", description: "switches the light", parameters } };
    // What this model may write is a call.
    const call = { type: "object", properties: { name: { const: "light" }, arguments: parameters }, required: ["name", "arguments"], additionalProperties: false };
    const format = { type: "object", properties: { tool_calls: { type: "array", items: call, minItems: 1, maxItems: 1 } }, required: ["tool_calls"], additionalProperties: false };
    const asked = { ...base, tools: [tool], format, options: { temperature: 0, num_predict: 80 } };
    const answer = await client.chat(asked);
    const [called] = answer.message.tool_calls;
    assert.equal(called.function.name, "light");
    assert.equal(typeof called.function.arguments.on, "boolean");
    const result = { role: "tool", tool_name: "light", content: "done" };
    const next = await client.chat({ ...base, tools: [tool], messages: [...messages, answer.message, result] });
    assert.equal(next.message.role, "assistant");
  },
  async embed() {
    const { embeddings } = await client.embed({ model: "bert", input: ["warm fire", "cold snow"] });
    assert.equal(embeddings.length, 2);
    assert.ok(Math.abs(embeddings[0].reduce((sum, x) => sum + x * x, 0) - 1) < 1e-3);
  },
  async models() {
    const { models } = await client.list();
    const ember = models.find((model) => model.name === "ember:latest");
    const shown = await client.show({ model: ember.name });
    assert.deepEqual(shown.details, ember.details);
    const running = await client.ps();
    assert.ok(running.models.some((model) => model.name === "ember:latest"));
    assert.match((await client.version()).version, /^\d+\.\d+\.\d+/);
  },
  async errors() {
    const refused = (status, words) => (error) => error.status_code === status && error.error.includes(words);
    await assert.rejects(client.chat({ ...base, model: "gpt-9" }), refused(404, "model 'gpt-9' not found"));
    await assert.rejects(client.chat({ ...base, options: { temperature: 9 } }), refused(400, "temperature"));
    await assert.rejects(client.chat({ ...base, format: "xml" }), refused(400, "format"));
  },
  async cancel() {
    const stream = await client.generate({ model: "ember", prompt: "title: ", raw: true, stream: true, options: { num_predict: 900, temperature: 1.9 } });
    await assert.rejects(async () => {
      for await (const _ of stream) client.abort();
    }, { name: "AbortError" });
    await checks.chat();
  },
};

for (const [name, check] of Object.entries(checks)) {
  await check();
  console.log("ok", name);
}
