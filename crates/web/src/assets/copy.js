// The buttons that copy, on every page: a command of their own, or the text of their figure.
"use strict";

// Browsers give `navigator.clipboard` to https and localhost alone.
async function copy(text) {
  try { await navigator.clipboard.writeText(text); return true; } catch { /* the old way */ }
  const focused = document.activeElement;
  const area = document.createElement("textarea");
  area.className = "hidden";
  area.value = text;
  area.readOnly = true;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  focused?.focus();
  return done;
}
document.querySelectorAll(".copy").forEach((button) => button.addEventListener("click", async () => {
  const code = button.closest("figure, td").querySelector("code");
  const text = button.dataset.text ?? code.textContent;
  const done = await copy(text);
  if (!done) getSelection().selectAllChildren(code);
  button.textContent = done ? "Copied" : "Selected";
  document.getElementById("said").textContent = done ? `Copied: ${text}` : "Selected; copy it with the keyboard";
  setTimeout(() => { button.textContent = "Copy"; }, 1500);
}));
