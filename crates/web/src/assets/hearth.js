// The chat: sends the conversation to this node's OpenAI endpoint and writes the stream into the page. Text from the
// model and the server reaches the page as text nodes alone, never as HTML.
"use strict";

const $ = (id) => document.getElementById(id);
const log = $("log"), form = $("form"), box = $("prompt"), stopButton = $("stop"), sendButton = $("send");
const KEPT = ["system", "temperature", "max-tokens", "schema", "memory-project"];
const TRIES = 5, LONGEST_WAIT = 60;
const ENDS = { stopped: "stopped", cut: "cut off before its end" };
// Messages { role, content, model, end, used, wordsOnly }; `model` gave the answer, `end` is a key of ENDS where it is not
// whole, `used` are the ids of the memories that the prompt got, if it was to get some, and `wordsOnly` says why words
// alone were searched.
let talk = read("hearth.talk", []);
if (!Array.isArray(talk)) talk = [];
// Beginnings of memories by id, while the page is open: what is kept of a talk must not keep what is forgotten.
const beginnings = new Map();
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

// For screen readers, which do not follow the log while it is written.
function say(text) { $("said").textContent = text; }

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
      const lines = paragraph.replace(/^\n+|\s+$/g, "").split("\n");
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
function line(...parts) { return parts.filter(Boolean).join(" · "); }
function show() {
  log.querySelectorAll(".turn").forEach((turn) => turn.remove());
  $("welcome").hidden = talk.length > 0;
  for (const message of talk) {
    const turn = addTurn(message.role, message.content);
    if (message.reasoning) reasoning(turn, message.reasoning, false);
    if (message.used) cite(turn, message);
    if (message.role === "assistant") about(turn, line(message.model, ENDS[message.end]));
  }
  const last = talk.at(-1);
  if (last) offerAgain(log.lastElementChild, last.role === "assistant" ? line(last.model, ENDS[last.end]) : "not answered");
  if (last) toEnd(); else log.scrollTop = 0;
}
// What the model thought before it answered: open while it comes, then folded away.
function reasoning(turn, text, open) {
  let part = turn.querySelector(".reasoning");
  if (!part) {
    part = make("details", "reasoning");
    part.append(make("summary", "", "Reasoning"), make("div"));
    turn.querySelector(".bubble").before(part);
  }
  part.open = open;
  part.lastElementChild.textContent = text;
}
// The memories that an answer had before it.
function cite(turn, { used, wordsOnly }) {
  turn.querySelector(".cited")?.remove();
  const list = make("div", "cited", used.length ? "Memories used:" : "No memory fits this question.");
  for (const id of used) {
    const link = make("a", "", beginnings.get(id) || id);
    link.href = "/memories?id=" + encodeURIComponent(id);
    list.append(link);
  }
  if (wordsOnly) list.append(make("div", "", "Searched by words alone: " + wordsOnly));
  turn.querySelector(".bubble").after(list);
}
function offerAgain(turn, text) {
  about(turn, text, [turn.matches(".assistant") ? "Regenerate" : "Try again", regenerate]);
}

// --- asking

function body(again) {
  const messages = [];
  if ($("system").value.trim()) messages.push({ role: "system", content: $("system").value.trim() });
  for (const { role, content } of talk) {
    // After a question without an answer; many chat templates refuse two turns of one side.
    if (messages.at(-1)?.role === role) messages.at(-1).content += "\n\n" + content;
    else messages.push({ role, content });
  }
  const request = { messages, stream: true, stream_options: { include_usage: true } };
  if ($("model").value) request.model = $("model").value;
  if ($("temperature").value !== "") request.temperature = Number($("temperature").value);
  // The likeliest answer would be the same one again.
  else if (again) request.temperature = 0.8;
  if ($("max-tokens").value !== "") request.max_tokens = Number($("max-tokens").value);
  if ($("use-memory").checked) {
    const project = $("memory-project").value.trim();
    request.hearth = { memory: project ? { project } : true };
  }
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

async function ask(again = false) {
  let request;
  try { request = body(again); } catch { return; }
  keep("hearth.talk", talk);
  // A new chat may begin before this answer has ended; it must not end up there.
  const mine = talk;
  log.querySelectorAll(".turn.error, .user .about, .about button").forEach((old) => old.remove());
  say("");
  const turn = addTurn("assistant", "");
  const bubble = turn.querySelector(".bubble");
  bubble.append(make("span", "busy-dot"));
  log.setAttribute("aria-busy", "true");
  const controller = new AbortController(), signal = controller.signal;
  setRunning(controller);
  toEnd();
  let text = "", thought = "", model = "", usage = null, finish = null, first = 0, end = "", wrong = "", memory = null;
  const begun = performance.now();
  try {
    const response = await reach(request, turn, signal);
    for await (const event of events(response)) {
      if (event.error) throw new Error(event.error.message);
      model = event.model ?? model;
      usage = event.usage ?? usage;
      memory = event.hearth?.memory ?? memory;
      finish = event.choices?.[0]?.finish_reason ?? finish;
      const delta = event.choices?.[0]?.delta;
      const piece = delta?.content, hint = delta?.reasoning_content;
      if (!piece && !hint) continue;
      first ||= performance.now();
      const follow = atEnd();
      if (hint) reasoning(turn, thought += hint, true);
      if (piece) {
        if (!text && thought) reasoning(turn, thought, false);
        markdown(bubble, text += piece);
      }
      if (follow) toEnd();
    }
  } catch (error) {
    end = signal.aborted ? "stopped" : "cut";
    if (!signal.aborted) wrong = error.message;
  }
  log.setAttribute("aria-busy", "false");
  setRunning(null);
  if (talk !== mine) return;
  const follow = atEnd();
  let last = turn, words;
  if (text) {
    const message = { role: "assistant", content: text, model };
    if (thought) message.reasoning = thought;
    if (end) message.end = end;
    if (memory) {
      message.used = memory.used.map(({ id }) => id);
      if (memory.words_only) message.wordsOnly = memory.words_only;
      for (const { id, text } of memory.used) beginnings.set(id, text.trim().split("\n")[0].slice(0, 120));
      cite(turn, message);
    }
    talk.push(message);
    keep("hearth.talk", talk);
    words = line(model, ENDS[end] ?? figures(usage, finish, (performance.now() - (first || begun)) / 1000));
    about(turn, words);
  } else {
    turn.remove();
    words = wrong ? "" : ENDS[end] ?? "the answer is empty";
    last = log.lastElementChild;
    if (!wrong) about(last, words);
  }
  if (wrong) last = addTurn("error", wrong);
  offerAgain(last, wrong ? "" : words);
  say([bubble.innerText, words, wrong && "Error: " + wrong].filter(Boolean).join("\n"));
  if (follow) toEnd();
  if (document.activeElement === document.body) box.focus();
}
const LOST = "The connection to the node was lost before the answer ended.";
const GONE = "The node does not answer. `hearth status` in a terminal says whether it runs.";

function figures(usage, finish, seconds) {
  const parts = [];
  const count = usage?.completion_tokens ?? 0;
  if (count > 1 && seconds > 0) parts.push(`${count} tokens`, speed((count - 1) / seconds));
  if (finish === "length") parts.push("ended by the limit of tokens");
  return line(...parts);
}

// Sends the request. While the model loads, waits as long as the node says; when the node is busy, a few times.
async function reach(request, turn, signal) {
  for (let tried = 1; ; ) {
    const response = await fetch("/v1/chat/completions", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(request),
      signal,
    }).catch((error) => { throw signal.aborted ? error : new Error(GONE); });
    if (response.ok) return response;
    const error = (await response.json().catch(() => null))?.error;
    const message = error?.message ?? `The node answered with status ${response.status}.`;
    const loading = error?.state === "loading";
    const later = [429, 503].includes(response.status) && response.headers.has("Retry-After");
    if (!loading && (!later || tried > TRIES)) throw new Error(message);
    const what = loading ? `The model is loading (${percent(error.progress ?? 0)})` : message.replace(/\.$/, "");
    const which = loading ? "" : ` (${tried++} of ${TRIES})`;
    say(`${what}. Trying again${which}.`);
    let left = Math.min(Number(response.headers.get("Retry-After")) || 1, LONGEST_WAIT);
    for (; left > 0; left--) {
      about(turn, `${what} · trying again in ${duration(left)}${which} · Esc stops`);
      await pause(1000, signal);
    }
    turn.querySelector(".about")?.remove();
  }
}
function pause(milliseconds, signal) {
  return new Promise((done, fail) => {
    const stop = () => { clearTimeout(timer); fail(signal.reason); };
    const timer = setTimeout(() => { signal.removeEventListener("abort", stop); done(); }, milliseconds);
    if (signal.aborted) stop(); else signal.addEventListener("abort", stop);
  });
}
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read().catch(() => ({ done: true }));
    // Only `[DONE]` is the end; a proxy or a dying node may close the stream in good order.
    if (done) throw new Error(LOST);
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
  const focused = [sendButton, stopButton].includes(document.activeElement);
  stopButton.hidden = !controller;
  sendButton.hidden = !!controller;
  // A button that is hidden while it has the focus takes the focus with it.
  if (focused) (controller ? stopButton : box).focus();
}
function send(text) {
  if (running || !text.trim()) return;
  try { readSchema(); } catch { $("schema").focus(); return; }
  keepFocus();
  talk.push({ role: "user", content: text.trim() });
  addTurn("user", text.trim());
  box.value = "";
  fit();
  ask();
}
function regenerate() {
  if (running) return;
  keepFocus();
  const again = talk.at(-1)?.role === "assistant";
  if (again) talk.pop();
  show();
  ask(again);
}
// The buttons inside the log go away when they are used, and the focus would go with them.
function keepFocus() { if (log.contains(document.activeElement)) box.focus(); }
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
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !event.isComposing) running?.abort();
});
$("welcome").addEventListener("click", (event) => {
  if (event.target.tagName === "BUTTON") send(event.target.textContent);
});
$("new").addEventListener("click", () => {
  running?.abort();
  talk = [];
  keep("hearth.talk", talk);
  say("");
  show();
  box.focus();
});

for (const id of KEPT) {
  $(id).value = read("hearth." + id, "");
  $(id).addEventListener("change", () => keep("hearth." + id, $(id).value));
}
$("use-memory").checked = read("hearth.use-memory", false) === true;
$("use-memory").addEventListener("change", () => keep("hearth.use-memory", $("use-memory").checked));
$("schema").addEventListener("change", () => { try { readSchema(); } catch { /* said below the field */ } });

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

// --- numbers in words, the same as in units.rs

function duration(seconds) {
  const minutes = Math.floor(seconds / 60), hours = Math.floor(seconds / 3600), days = Math.floor(seconds / 86400);
  if (!minutes) return `${seconds} s`;
  if (!hours) return `${minutes} min`;
  return days ? two(days, "d", hours % 24, "h") : two(hours, "h", minutes % 60, "min");
}
function two(large, unit, small, smallUnit) { return `${large} ${unit}` + (small ? ` ${small} ${smallUnit}` : ""); }
function size(bytes) {
  const kibibytes = Math.floor(bytes / 2 ** 10), mebibytes = Math.floor(bytes / 2 ** 20);
  if (!mebibytes) return kibibytes ? `${kibibytes} KiB` : `${bytes} B`;
  return mebibytes < 1024 ? `${mebibytes} MiB` : `${(Math.round(mebibytes / 102.4) / 10).toFixed(1)} GiB`;
}
function speed(rate) {
  if (rate <= 0) return "–";
  return `${rate < 9.95 ? (Math.round(rate * 10) / 10).toFixed(1) : Math.round(rate)} tokens/s`;
}
function percent(fraction) { return `${Math.round(fraction * 100)} %`; }

// --- the models to choose from

const choice = $("model");
const known = () => [...choice.options].map((option) => option.value);
let chosen = read("hearth.model", "");
if (!known().includes(chosen)) chosen = "";
if (chosen) choice.value = chosen;
choice.addEventListener("change", () => {
  chosen = choice.value;
  keep("hearth.model", chosen);
  look();
});
// `machines` has the names of models that only other machines have, each with those.
function offer(own, machines, otherwise) {
  const names = [...own, ...machines.keys()];
  // What somebody chose stays chosen, even while its file is away; the node's answer says so.
  const all = chosen && !names.includes(chosen) ? [...names, chosen] : names.length ? names : [""];
  const where = (name) => machines.get(name)?.join(", ") ?? (names.includes(name) ? "" : "not there");
  const labels = all.map((name) => !name ? "no model" : where(name) ? `${name} (${where(name)})` : name);
  if (labels.join("\n") !== [...choice.options].map((option) => option.text).join("\n")) {
    choice.replaceChildren(...all.map((name, at) => new Option(labels[at], name)));
  }
  const wanted = chosen || (names.includes(otherwise) ? otherwise : all[0]);
  if (choice.value !== wanted) choice.value = wanted;
}

// --- live status, while somebody looks

let looking = false;
async function get(path) {
  const response = await fetch(path, { signal: AbortSignal.timeout(10_000) });
  if (!response.ok) throw new Error(path);
  return response.json();
}
async function look() {
  if (document.hidden || looking) return;
  looking = true;
  const seen = await Promise.all([get("/status"), get("/v1/models")]).catch(() => null);
  looking = false;
  if (seen) {
    // Encoders are in the list of models alone: they answer no question.
    const answers = new Set(seen[0].models.map((model) => model.name));
    const machines = new Map();
    for (const { name, machine, embeds } of seen[0].elsewhere ?? []) {
      if (!embeds && !answers.has(name)) machines.set(name, [...machines.get(name) ?? [], machine]);
    }
    offer(seen[1].data.map((model) => model.id).filter((name) => answers.has(name)), machines, seen[0].default_model);
    draw(seen[0], machines);
  } else {
    put("model-state", "the node does not answer");
    $("model-state").dataset.state = "failed";
  }
}
function put(id, text) { if ($(id).textContent !== text) $(id).textContent = text; }
function draw(status, machines) {
  const there = machines.get(choice.value);
  const other = there && { name: choice.value, state: `on ${there.join(", ")}` };
  const model = other ?? status.models.find((own) => own.name === choice.value) ?? status.models[0];
  const state = model?.state ?? "idle", load = model?.load;
  put("memory", status.memory_bytes == null ? "–" : size(status.memory_bytes));
  put("uptime", duration(status.uptime_seconds));
  put("model-name", model?.name ?? "none; put a GGUF file into the models folder");
  put("model-state", !model ? "" : state === "loading" ? `loading ${percent(model.progress ?? 0)}` : state);
  $("model-state").dataset.state = there ? "idle" : state;
  put("speed", speed(load?.decode_tokens_per_second ?? 0));
  put("queued", !load ? "–" : load.queued ? `${load.queued} waiting` : "");
  put("kv-text", load ? `${load.kv_used} / ${load.kv_cells}` : "–");
  $("kv").max = Math.max(1, load?.kv_cells ?? 0);
  $("kv").value = load?.kv_used ?? 0;
  const slots = $("slots"), count = load?.slots ?? 0, busy = load?.slots_busy ?? 0;
  if (slots.children.length !== count) slots.replaceChildren(...Array.from({ length: count }, () => make("i")));
  [...slots.children].forEach((slot, at) => slot.classList.toggle("busy", at < busy));
  slots.setAttribute("aria-label", `${busy} of ${count} slots busy`);
}
setInterval(look, 2000);
document.addEventListener("visibilitychange", look);

show();
look();
