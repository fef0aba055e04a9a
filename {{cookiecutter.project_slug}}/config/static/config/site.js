// Keeps the keyboard focus after a swap, and shows a message if the site does not respond.
// Everything else is plain forms and htmx.

// Shows the text as a message, and has it read aloud. Scripts of apps use it too.
function announce(text) {
  const message = document.createElement("p");
  message.className = "message";
  message.textContent = text;
  document.getElementById("messages").replaceChildren(message);
}

// htmx gives the focus back to an element with the same id. If that element is gone, such as the
// button of a deleted row, the row now in its place gets the focus, or else the main part.
let focused = false;
let place = -1;

document.addEventListener("htmx:beforeSwap", () => {
  focused = document.activeElement !== document.body;
  place = rows().indexOf(document.activeElement.closest("main li"));
});

document.addEventListener("htmx:afterSettle", () => {
  if (!focused || document.activeElement !== document.body) return;
  const row = place < 0 ? null : rows()[Math.min(place, rows().length - 1)];
  const next = row ?? document.getElementById("main");
  next.tabIndex = -1;
  next.focus();
});

function rows() {
  return [...document.querySelectorAll("main li")];
}

// A page that is not ours, such as a proxy's error page, cannot be swapped in. Show the message once,
// not at every poll.
document.addEventListener("htmx:beforeSwap", (event) => {
  const { boosted, xhr } = event.detail;
  if (!boosted || xhr.responseText.includes('id="main"')) return;
  event.detail.shouldSwap = false;
  announceSilence();
});

document.addEventListener("htmx:sendError", announceSilence);

function announceSilence() {
  const text = "The site is not responding. Please try again.";
  if (document.getElementById("messages").textContent !== text) announce(text);
}
