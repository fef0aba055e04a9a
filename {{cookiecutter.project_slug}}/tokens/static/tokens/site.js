// Copying, and the keyboard's place after a swap. Everything else is plain forms and htmx.

document.addEventListener("click", async (event) => {
  const button = event.target.closest(".copy");
  if (!button) return;
  const code = button.closest(".token").querySelector("code");
  const said = (await copy(code)) ? "Copied" : "Press Ctrl+C";
  button.textContent = said;
  announce(said);
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
// token's button say, the page's main part takes it rather than the top of the document.
document.addEventListener("htmx:afterSettle", () => {
  if (document.activeElement === document.body) {
    document.getElementById("main").focus({ preventScroll: true });
  }
});
