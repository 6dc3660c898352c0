// The page of memories: adds, changes, pins and forgets by way of `/memory`. What the node answers reaches the page as
// text nodes, or as the node's own page asked for again; a text that was typed stays until it is stored.
"use strict";

const $ = (id) => document.getElementById(id);
const GONE = "The node does not answer. `hearth status` in a terminal says whether it runs.";
const SAID = "hearth.said";
const BECAME = {
  stored: "Remembered.",
  linked: "Remembered. Others say nearly the same; looking at it lists them.",
  merged: "It was there already: tags, confidence and pin were joined.",
  recalled: "It was recalled from this memory, so it is nothing new.",
};

function kept(key) { try { return sessionStorage.getItem(key) ?? ""; } catch { return ""; } }
function keep(key, text) {
  try {
    if (text) sessionStorage.setItem(key, text); else sessionStorage.removeItem(key);
  } catch { /* private windows keep nothing */ }
}
function theme() {
  let name;
  try { name = JSON.parse(localStorage.getItem("hearth.theme")); } catch { /* as the system */ }
  if (name) document.documentElement.dataset.theme = name;
}
function look(id) { return "/memories?id=" + encodeURIComponent(id); }
function say(text, id) {
  $("said").replaceChildren(text);
  if (!id) return;
  const link = document.createElement("a");
  link.href = look(id);
  link.textContent = "Look at it";
  $("said").append(" ", link);
}

// The node's answer; throws what it says is wrong.
async function ask(method, path, body) {
  const options = { method };
  if (body) {
    options.headers = { "Content-Type": "application/json" };
    options.body = JSON.stringify(body);
  }
  const response = await fetch(path, options).catch(() => { throw new Error(GONE); });
  const answer = await response.json().catch(() => null);
  if (!response.ok) throw new Error(answer?.detail ?? `The node answered with status ${response.status}.`);
  return answer;
}
const of = (id) => "/memory/" + encodeURIComponent(id);

// Does `work`, once at a time; what goes wrong is said at `wrong`.
async function attempt(wrong, controls, work) {
  if (controls.some((control) => control.getAttribute("aria-disabled") === "true")) return;
  controls.forEach((control) => control.setAttribute("aria-disabled", "true"));
  wrong.textContent = "";
  say("");
  try { await work(); } catch (error) { wrong.textContent = error.message; }
  controls.forEach((control) => control.removeAttribute("aria-disabled"));
}

// Shows what the node has now, in the place of what is shown.
async function refresh() {
  const response = await fetch(location.href).catch(() => null);
  if (!response?.ok) return location.reload();
  const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const id of ["state", "shown"]) {
    const now = fresh.getElementById(id);
    if (now) $(id).replaceChildren(...now.childNodes);
  }
}
function card(id) { return [...document.querySelectorAll(".memory")].find((memory) => memory.dataset.id === id); }

// --- texts that were not stored yet outlive the page

for (const form of [$("add"), $("edit")].filter(Boolean)) {
  const field = form.elements.text, key = "hearth.draft." + (form.dataset.id ?? "new");
  const draft = kept(key);
  if (draft) {
    field.value = draft;
    if (form.dataset.id) $("editing").open = true;
  }
  field.addEventListener("input", () => keep(key, field.value));
  form.draft = key;
}

// --- adding and changing

// One with a comma, a quote or a `#` of its own stands in quotes, which are doubled inside; the page writes it so too.
function tags(form) {
  const written = form.elements.tags.value.match(/\s*"(?:[^"]|"")*"\s*(?=,|$)|[^,]+/g) ?? [];
  return written.map((tag) => tag.trim()).map((tag) =>
    /^".*"$/s.test(tag) && tag.length > 1 ? tag.slice(1, -1).replaceAll('""', '"') : tag.replace(/^#/, "")).filter(Boolean);
}
$("add")?.addEventListener("submit", (event) => {
  event.preventDefault();
  const form = event.target, { text, project, kind, confidence, pinned } = form.elements;
  attempt($("add-wrong"), [form.querySelector(".main")], async () => {
    const body = { text: text.value, tags: tags(form), pinned: pinned.checked, source: "the page" };
    if (project.value.trim()) body.project = project.value;
    if (kind.value.trim()) body.kind = kind.value;
    if (confidence.value !== "") body.confidence = Number(confidence.value);
    const written = await ask("POST", "/memory", body);
    keep(form.draft, "");
    // Whose the next one is stays: one seldom writes down a single one.
    text.value = "";
    await refresh();
    say(BECAME[written.outcome] ?? written.outcome, written.memory.id);
    text.focus();
  });
});
$("edit")?.addEventListener("submit", (event) => {
  event.preventDefault();
  const form = event.target, { text, kind, confidence, pinned } = form.elements;
  attempt(form.querySelector(".wrong"), [form.querySelector(".main")], async () => {
    const change = {};
    if (text.value !== text.defaultValue) change.text = text.value;
    if (kind.value !== kind.defaultValue) change.kind = kind.value;
    if (form.elements.tags.value !== form.elements.tags.defaultValue) change.tags = tags(form);
    if (confidence.value !== confidence.defaultValue) {
      if (confidence.value === "") throw new Error("confidence: give a number from 0 to 1");
      change.confidence = Number(confidence.value);
    }
    if (pinned.checked !== pinned.defaultChecked) change.pinned = pinned.checked;
    if (!Object.keys(change).length) throw new Error("Nothing is different.");
    const memory = await ask("PATCH", of(form.dataset.id), change);
    keep(form.draft, "");
    const isNew = memory.id !== form.dataset.id;
    keep(SAID, isNew ? "Saved. This memory took the place of the old one, which is kept." : "Saved.");
    location.assign(look(memory.id));
  });
});

// --- pinning and forgetting

document.addEventListener("click", (event) => {
  const button = event.target.closest(".pin, .forget");
  const memory = button?.closest(".memory");
  if (!memory) return;
  if (button.matches(".forget")) return sure(memory);
  const pinned = memory.dataset.pinned !== "true";
  attempt(memory.querySelector(".wrong"), [button], async () => {
    await ask("PATCH", of(memory.dataset.id), { pinned });
    memory.dataset.pinned = pinned;
    button.textContent = pinned ? "★" : "☆";
    button.setAttribute("aria-pressed", pinned);
    if ($("edit")) $("edit").elements.pinned.checked = $("edit").elements.pinned.defaultChecked = pinned;
    say(pinned ? "Pinned." : "No longer pinned.");
  });
});

let forgetting = null;
function sure(memory) {
  forgetting = memory;
  $("forgetting-text").textContent = memory.querySelector(".text").textContent.slice(0, 300);
  $("forgetting").returnValue = "";
  $("forgetting").showModal();
}
$("forgetting").addEventListener("close", () => {
  const memory = forgetting;
  // The event of an Escape may come when somebody asks again already: what is asked about stays.
  if ($("forgetting").returnValue !== "forget" || !memory) return;
  forgetting = null;
  attempt(memory.querySelector(".wrong"), [...memory.querySelectorAll("button")], async () => {
    await ask("DELETE", of(memory.dataset.id));
    keep("hearth.draft." + memory.dataset.id, "");
    if (memory.matches(".whole")) {
      keep(SAID, "Forgotten.");
      return location.assign("/memories");
    }
    const all = [...document.querySelectorAll(".memory")], at = all.indexOf(memory);
    const next = (all[at + 1] ?? all[at - 1])?.dataset.id;
    await refresh();
    say("Forgotten.");
    // The focus would go with the button.
    (card(next)?.querySelector(".forget") ?? $("shown")).focus();
  });
});

theme();
const said = kept(SAID);
if (said) say(said);
keep(SAID, "");
