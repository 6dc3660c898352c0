// The chat: sends the conversation to this node's OpenAI endpoint and writes the stream into the page. Text from the
// model and the server reaches the page as text nodes alone, never as HTML.
"use strict";

const $ = (id) => document.getElementById(id);
const log = $("log"), form = $("form"), box = $("prompt"), stopButton = $("stop"), sendButton = $("send");
const KEPT = ["system", "temperature", "max-tokens", "schema"];
let talk = read("hearth.talk", []);
let running = null;

function read(key, otherwise) {
  try { return JSON.parse(localStorage.getItem(key)) ?? otherwise; } catch { return otherwise; }
}
function keep(key, value) {
  try { localStorage.setItem(key, JSON.stringify(value)); } catch { /* private windows keep nothing */ }
}
function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

// --- a small, safe part of Markdown: fences, lists, paragraphs, code and bold

function inline(parent, text) {
  for (const part of text.split(/(`[^`\n]+`|\*\*[^*\n]+\*\*)/)) {
    if (part.length > 2 && part.startsWith("`")) parent.append(make("code", "", part.slice(1, -1)));
    else if (part.length > 4 && part.startsWith("**")) parent.append(make("strong", "", part.slice(2, -2)));
    else parent.append(part);
  }
}
function markdown(parent, text) {
  const blocks = [];
  text.split(/^```[^\n]*\n?/m).forEach((piece, index) => {
    if (index % 2) {
      const pre = make("pre");
      pre.append(make("code", "", piece.replace(/\n$/, "")));
      blocks.push(pre);
      return;
    }
    for (const paragraph of piece.split(/\n{2,}/)) {
      if (!paragraph.trim()) continue;
      const lines = paragraph.split("\n");
      const bullet = /^\s*([-*]|\d+\.)\s+/;
      if (lines.every((line) => bullet.test(line) || !line.trim())) {
        const list = make(/^\s*\d/.test(lines[0]) ? "ol" : "ul");
        for (const line of lines.filter((line) => line.trim())) {
          const item = make("li");
          inline(item, line.replace(bullet, ""));
          list.append(item);
        }
        blocks.push(list);
      } else {
        const block = make("p");
        lines.forEach((line, at) => { if (at) block.append(make("br")); inline(block, line); });
        blocks.push(block);
      }
    }
  });
  parent.replaceChildren(...blocks);
}

// --- the conversation on the page

function atEnd() { return log.scrollHeight - log.scrollTop - log.clientHeight < 60; }
function toEnd() { log.scrollTop = log.scrollHeight; }

function addTurn(role, text) {
  $("welcome").hidden = true;
  const turn = make("div", "turn " + role);
  turn.append(make("span", "hidden", role === "user" ? "You:" : role === "error" ? "Error:" : "Answer:"));
  const bubble = make("div", "bubble");
  if (role === "assistant") markdown(bubble, text); else bubble.textContent = text;
  turn.append(bubble);
  log.append(turn);
  return turn;
}
function about(turn, text, ...buttons) {
  turn.querySelector(".about")?.remove();
  const line = make("div", "about", text);
  for (const [name, act] of buttons) {
    const button = make("button", "", name);
    button.type = "button";
    button.addEventListener("click", act);
    line.append(button);
  }
  turn.append(line);
}
function show() {
  log.querySelectorAll(".turn").forEach((turn) => turn.remove());
  $("welcome").hidden = talk.length > 0;
  for (const message of talk) addTurn(message.role, message.content);
  const last = log.lastElementChild;
  if (talk.at(-1)?.role === "assistant") about(last, "", ["Regenerate", regenerate]);
  toEnd();
}

// --- asking

function body() {
  const messages = $("system").value.trim() ? [{ role: "system", content: $("system").value.trim() }, ...talk] : talk;
  const request = { messages, stream: true, stream_options: { include_usage: true } };
  if ($("model").value) request.model = $("model").value;
  if ($("temperature").value !== "") request.temperature = Number($("temperature").value);
  if ($("max-tokens").value !== "") request.max_tokens = Number($("max-tokens").value);
  const schema = readSchema();
  if (schema) request.response_format = { type: "json_schema", json_schema: { name: "answer", schema } };
  return request;
}
function readSchema() {
  const text = $("schema").value.trim();
  $("schema-error").textContent = "";
  if (!text) return null;
  try { return JSON.parse(text); } catch (error) {
    $("schema-error").textContent = "This is not JSON: " + error.message;
    $("settings").open = true;
    throw error;
  }
}

async function ask() {
  let request;
  try { request = body(); } catch { return; }
  keep("hearth.talk", talk);
  // A new chat may begin before this answer has ended; it must not end up there.
  const mine = talk;
  const turn = addTurn("assistant", "");
  const bubble = turn.querySelector(".bubble");
  bubble.append(make("span", "busy-dot"));
  log.setAttribute("aria-busy", "true");
  setRunning(new AbortController());
  toEnd();
  let text = "", usage = null, first = 0;
  const begun = performance.now();
  try {
    const response = await reach(request, turn);
    for await (const event of events(response)) {
      if (event.error) throw new Error(event.error.message);
      if (event.usage) usage = event.usage;
      const piece = event.choices?.[0]?.delta?.content;
      if (!piece) continue;
      first ||= performance.now();
      text += piece;
      const follow = atEnd();
      markdown(bubble, text);
      if (follow) toEnd();
    }
  } catch (error) {
    if (error.name !== "AbortError") {
      if (!text) turn.remove();
      const wrong = addTurn("error", error.message);
      about(wrong, "", ["Try again", () => { wrong.remove(); if (text) { talk.pop(); turn.remove(); } ask(); }]);
    }
  }
  log.setAttribute("aria-busy", "false");
  setRunning(null);
  if (talk !== mine) return;
  if (text) {
    talk.push({ role: "assistant", content: text });
    keep("hearth.talk", talk);
    const seconds = (performance.now() - (first || begun)) / 1000;
    const count = usage ? usage.completion_tokens : 0;
    const speed = count > 1 && seconds > 0 ? `${count} tokens, ${Math.round((count - 1) / seconds)} per second` : usage ? "" : "stopped";
    about(turn, speed, ["Regenerate", regenerate]);
  } else if (turn.isConnected) {
    turn.remove();
  }
  if (atEnd()) toEnd();
  box.focus();
}

// Sends the request; while the model loads, waits as long as the node says and tries again.
async function reach(request, turn) {
  for (;;) {
    const response = await fetch("/v1/chat/completions", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(request),
      signal: running.signal,
    });
    if (response.ok) return response;
    const error = (await response.json().catch(() => null))?.error;
    if (response.status !== 503 || error?.state !== "loading") {
      throw new Error(error?.message ?? `The node answered with status ${response.status}.`);
    }
    let left = Number(response.headers.get("Retry-After")) || 1;
    for (; left > 0; left--) {
      about(turn, `The model is loading (${Math.round((error.progress ?? 0) * 100)} %); trying again in ${left} s.`);
      await pause(1000, running.signal);
    }
    turn.querySelector(".about")?.remove();
  }
}
function pause(milliseconds, signal) {
  return new Promise((done, fail) => {
    const timer = setTimeout(done, milliseconds);
    signal.addEventListener("abort", () => { clearTimeout(timer); fail(new DOMException("", "AbortError")); });
  });
}
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const lines = rest.split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ")) continue;
      if (line === "data: [DONE]") return;
      yield JSON.parse(line.slice(6));
    }
  }
}

function setRunning(controller) {
  running = controller;
  stopButton.hidden = !controller;
  sendButton.hidden = !!controller;
}
function send(text) {
  if (running || !text.trim()) return;
  talk.push({ role: "user", content: text.trim() });
  addTurn("user", text.trim());
  box.value = "";
  fit();
  ask();
}
function regenerate() {
  if (running) return;
  if (talk.at(-1)?.role === "assistant") talk.pop();
  show();
  ask();
}
function fit() {
  box.style.height = "auto";
  box.style.height = Math.min(box.scrollHeight + 2, 192) + "px";
}

form.addEventListener("submit", (event) => { event.preventDefault(); send(box.value); });
stopButton.addEventListener("click", () => running?.abort());
box.addEventListener("input", fit);
box.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    send(box.value);
  } else if (event.key === "ArrowUp" && !box.value && !running) {
    while (talk.at(-1)?.role === "assistant") talk.pop();
    const last = talk.pop();
    if (!last) return;
    event.preventDefault();
    show();
    box.value = last.content;
    fit();
  }
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") running?.abort(); });
$("welcome").addEventListener("click", (event) => { if (event.target.tagName === "BUTTON") send(event.target.textContent); });
$("new").addEventListener("click", () => { running?.abort(); talk = []; keep("hearth.talk", talk); show(); box.focus(); });

for (const id of KEPT) {
  $(id).value = read("hearth." + id, "");
  $(id).addEventListener("change", () => { keep("hearth." + id, $(id).value); if (id === "schema") try { readSchema(); } catch { /* said below the field */ } });
}
document.querySelectorAll(".copy").forEach((button) => button.addEventListener("click", async () => {
  await navigator.clipboard.writeText(button.closest("figure").querySelector("code").textContent);
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}));

// --- theme

const THEMES = { auto: ["◐", "as the system"], light: ["☀", "light"], dark: ["☾", "dark"] };
function theme(name) {
  document.documentElement.dataset.theme = name;
  $("theme").textContent = THEMES[name][0];
  $("theme").setAttribute("aria-label", "Theme: " + THEMES[name][1]);
  keep("hearth.theme", name);
}
$("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  theme(names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length]);
});
theme(THEMES[read("hearth.theme", "auto")] ? read("hearth.theme", "auto") : "auto");

// --- live status, while somebody looks

function put(id, text) { const element = $(id); if (element && element.textContent !== text) element.textContent = text; }
async function look() {
  if (document.hidden) return;
  let status;
  try { status = await (await fetch("/status")).json(); } catch {
    put("model-state", "node gone");
    $("model-state")?.setAttribute("data-state", "failed");
    return;
  }
  const name = $("model").value || status.default_model;
  const model = status.models.find((other) => other.name === name) ?? status.models[0];
  put("memory", status.memory_bytes ? `${Math.round(status.memory_bytes / 2 ** 20)} MiB` : "–");
  const up = status.uptime_seconds;
  put("uptime", up < 60 ? `${up} s` : up < 3600 ? `${Math.floor(up / 60)} min` : `${Math.floor(up / 3600)} h ${Math.floor(up / 60) % 60} min`);
  if (!model) return;
  put("model-name", model.name);
  put("model-state", model.state === "loading" ? `loading ${Math.round((model.progress ?? 0) * 100)} %` : model.state);
  $("model-state")?.setAttribute("data-state", model.state);
  const load = model.load;
  if (!load) return;
  put("speed", `${Math.round(load.decode_tokens_per_second)} tokens/s`);
  put("queued", load.queued ? `${load.queued} waiting` : "");
  put("kv-text", `${load.kv_used} / ${load.kv_cells}`);
  $("kv").max = Math.max(1, load.kv_cells);
  $("kv").value = load.kv_used;
  const slots = $("slots");
  if (slots.children.length !== load.slots) slots.replaceChildren(...Array.from({ length: load.slots }, () => make("i")));
  [...slots.children].forEach((slot, at) => slot.classList.toggle("busy", at < load.slots_busy));
  slots.setAttribute("aria-label", `${load.slots_busy} of ${load.slots} slots busy`);
}
setInterval(look, 2000);
document.addEventListener("visibilitychange", look);

show();
look();
