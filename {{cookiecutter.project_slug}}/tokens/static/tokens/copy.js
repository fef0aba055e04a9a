// The Copy buttons.

document.addEventListener("click", async (event) => {
  const button = event.target.closest(".copy");
  if (!button) return;
  const code = button.closest(".token").querySelector("code");
  const copied = await copy(code);
  button.textContent = copied ? "Copied" : "Selected";
  announce(copied ? "Copied." : "Selected: press Ctrl+C or ⌘C to copy.");
  setTimeout(() => (button.textContent = "Copy"), 2000);
});

// Returns whether it copied the text. Without access to the clipboard, it selects the text instead.
async function copy(element) {
  try {
    await navigator.clipboard.writeText(element.textContent);
    return true;
  } catch {
    getSelection().selectAllChildren(element);
    return false;
  }
}
