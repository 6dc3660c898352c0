// The JavaScript package `@modelcontextprotocol/sdk` against the memory, over both transports.
//
//     node mcp_client.mjs http://127.0.0.1:8321/mcp HEARTH FOLDER
import assert from "node:assert/strict";
import { createRequire } from "node:module";

const [url, hearth, folder] = process.argv.slice(2);
// The package lives in the build folder, not beside this file.
const require = createRequire(folder + "/package.json");
const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { StreamableHTTPClientTransport } = require("@modelcontextprotocol/sdk/client/streamableHttp.js");
const { StdioClientTransport } = require("@modelcontextprotocol/sdk/client/stdio.js");

const http = (query = "") => new StreamableHTTPClientTransport(new URL(url + query));
// The package hands a program few variables, and this one needs those of its home.
const stdio = (...flags) => new StdioClientTransport({ command: hearth, args: ["mcp", ...flags], env: process.env });

async function using(transport, work) {
  const client = new Client({ name: "the tester", version: "1" });
  await client.connect(transport);
  try {
    await work(client);
  } finally {
    await client.close();
  }
}

// Saves, finds and forgets; the package holds each result against the tool's output schema.
async function use(client, word) {
  await client.ping();
  assert.equal(client.getServerVersion().name, "hearth");
  assert.match(client.getInstructions(), /add_memory/);
  const { tools } = await client.listTools();
  assert.equal(tools.length, 7);
  const call = (name, args) => client.callTool({ name, arguments: args });
  const added = await call("add_memory", { text: `The key of ${word} hangs left`, kind: "fact", project: word });
  assert.ok(!added.isError, JSON.stringify(added));
  const { id } = added.structuredContent.memory;
  const found = await call("search_memories", { query: "where is the key", project: word, explain: true });
  assert.deepEqual(found.structuredContent.memories.map((memory) => memory.id), [id]);
  const { contents } = await client.readResource({ uri: `memory://memories/${id}` });
  assert.match(contents[0].text, /hangs left/);
  const { resources } = await client.listResources();
  assert.ok(resources.some((resource) => resource.name === id));
  const { resourceTemplates } = await client.listResourceTemplates();
  const ref = { type: "ref/resource", uri: resourceTemplates[1].uriTemplate };
  const { completion } = await client.complete({ ref, argument: { name: "project", value: word } });
  assert.deepEqual(completion.values, [word]);
  const wrong = await call("get_memory", { id: "mem-0" });
  assert.ok(wrong.isError && wrong.content[0].text.startsWith("id: "));
  const stats = await call("memory_stats", {});
  assert.ok(stats.structuredContent.projects.some(([project]) => project === word));
  await assert.rejects(call("remember", {}), /add_memory/);
  assert.ok(!(await call("delete_memory", { id })).isError);
}

const checks = {
  http: () => using(http(), (client) => use(client, "street")),
  stdio: () => using(stdio(), (client) => use(client, "lane")),
  async projects() {
    for (const transport of [http("?project=yard"), stdio("--project", "yard")]) {
      await using(transport, async (client) => {
        assert.match(client.getInstructions(), /This session's project is yard/);
        const text = `What ${transport.constructor.name} saves is found by all`;
        const { structuredContent } = await client.callTool({ name: "add_memory", arguments: { text } });
        assert.equal(structuredContent.memory.project, "yard");
      });
    }
    await using(stdio("--project", "yard", "--read-only"), async (client) => {
      const found = await client.callTool({ name: "search_memories", arguments: { query: "saves" } });
      assert.equal(found.structuredContent.count, 2);
      assert.equal((await client.listTools()).tools.length, 4);
    });
  },
};

for (const [name, check] of Object.entries(checks)) {
  await check();
  console.log("ok", name);
}
