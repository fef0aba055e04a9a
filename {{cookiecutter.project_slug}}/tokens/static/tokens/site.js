// Copying, the keyboard's place after a swap, and a word when the site does not answer.
// Everything else is plain forms and htmx.

document.addEventListener("click", async (event) => {
  const button = event.target.closest(".copy");
  if (!button) return;
  const code = button.closest(".token").querySelector("code");
  const copied = await copy(code);
  button.textContent = copied ? "Copied" : "Selected";
  announce(copied ? "Copied." : "Selected: press Ctrl+C or ⌘C to copy.");
  setTimeout(() => (button.textContent = "Copy"), 2000);
});

// Returns whether it was copied. Without access to the clipboard, the text is left selected.
async function copy(element) {
  try {
    await navigator.clipboard.writeText(element.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(element);
    return false;
  }
}

function announce(text) {
  const message = document.createElement("p");
  message.className = "message";
  message.textContent = text;
  document.getElementById("messages").replaceChildren(message);
}

// htmx gives the focus back to an element with the same id. When that one is gone, a deleted
// token's button say, the row now in its place has it; without one, the page's main part.
let focused = false;
let place = -1;

document.addEventListener("htmx:beforeSwap", () => {
  focused = document.activeElement !== document.body;
  place = rows().indexOf(document.activeElement.closest(".token"));
});

document.addEventListener("htmx:afterSettle", () => {
  if (!focused || document.activeElement !== document.body) return;
  const row = place < 0 ? null : rows()[Math.min(place, rows().length - 1)];
  const next = row ?? document.getElementById("main");
  next.tabIndex = -1;
  next.focus();
});

function rows() {
  return [...document.querySelectorAll(".token")];
}

// A page that is not ours, a proxy's say, has no part to take the place of this one's. Said once, not
// at every poll.
document.addEventListener("htmx:beforeSwap", (event) => {
  const { boosted, xhr } = event.detail;
  if (!boosted || xhr.responseText.includes('id="main"')) return;
  event.detail.shouldSwap = false;
  announceOnce("The site does not answer. Please try again.");
});

document.addEventListener("htmx:sendError", () => announceOnce("The site does not answer. Please try again."));

function announceOnce(text) {
  if (document.getElementById("messages").textContent !== text) announce(text);
}
