// OpenAI's own JavaScript package with a node: an answer as it comes, then one that fits a JSON Schema.
//
//     npm install openai
//     node examples/openai_chat.mjs
import OpenAI from "openai";

// The package wants a key; Hearth takes any.
const client = new OpenAI({ baseURL: process.env.HEARTH_URL ?? "http://localhost:8321/v1", apiKey: "none" });

const stream = await client.chat.completions.create({
  model: "ember",
  messages: [{ role: "user", content: "what is hearth?" }],
  stream: true,
});
for await (const chunk of stream) process.stdout.write(chunk.choices[0].delta.content ?? "");
console.log();

// What follows "intent: " is a task that ember was trained for; with another model any schema and prompt do.
const schema = {
  type: "object",
  properties: {
    intent: { enum: ["set_timer", "set_reminder"] },
    entities: {
      type: "array",
      items: {
        type: "object",
        properties: { type: { enum: ["length", "task", "time"] }, value: { type: "string", maxLength: 60 } },
        required: ["type", "value"],
        additionalProperties: false,
      },
      maxItems: 3,
    },
  },
  required: ["intent", "entities"],
  additionalProperties: false,
};
const answer = await client.chat.completions.create({
  model: "ember",
  messages: [{ role: "user", content: "intent: set a timer for 5 minutes" }],
  temperature: 0,
  response_format: { type: "json_schema", json_schema: { name: "intent", schema } },
});
const intent = JSON.parse(answer.choices[0].message.content);
console.log(intent.intent, intent.entities);
