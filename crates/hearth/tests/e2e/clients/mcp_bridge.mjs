// Streamable HTTP before an MCP server that speaks on standard input and output, for tools that know HTTP alone.
//
//     node mcp_bridge.mjs PROGRAM ARGUMENT...
//
// Prints its address, and ends with its own standard input. A session that begins with `initialize` has a program of its
// own; a request without one, as MCP has it since 2026-07-28, has one for itself.
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { createInterface } from "node:readline";

const [program, ...words] = process.argv.slice(2);
const sessions = new Map();

function begin() {
  const child = spawn(program, words, { stdio: ["pipe", "pipe", "inherit"] });
  const waiting = new Map();
  createInterface({ input: child.stdout }).on("line", (line) => {
    const message = JSON.parse(line);
    waiting.get(message.id)?.(line);
    waiting.delete(message.id);
  });
  const tell = (message) => child.stdin.write(JSON.stringify(message) + "\n");
  const ask = (message) => new Promise((answer) => (waiting.set(message.id, answer), tell(message)));
  return { ask, tell, end: () => child.stdin.end() };
}

async function answer(request, body) {
  if (request.method !== "POST") return [405, ""];
  const message = JSON.parse(body);
  let id = request.headers["mcp-session-id"];
  if (message.method === "initialize") sessions.set((id = randomUUID()), begin());
  const session = sessions.get(id) ?? begin();
  if (message.id === undefined || message.method === undefined) {
    session.tell(message);
    return [202, "", id];
  }
  const line = await session.ask(message);
  if (id === undefined) session.end();
  return [200, line, id];
}

const server = createServer(async (request, response) => {
  const pieces = [];
  for await (const piece of request) pieces.push(piece);
  const [status, text, id] = await answer(request, Buffer.concat(pieces).toString());
  const headers = { "content-type": "application/json", ...(id && { "mcp-session-id": id }) };
  response.writeHead(status, headers).end(text);
});
server.listen(0, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}/mcp`));
process.stdin.on("end", () => process.exit()).resume();
