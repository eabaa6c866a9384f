// The composer: what is typed, which switches are set for the next message, sending, and what
// went wrong with it.

import { $, h, plural, post, Refused } from "./dom.js";
import { OTHER, from, keepFields, state, to } from "./state.js";
import { pending, toEnd } from "./thread.js";

export const ONCE = ["twice", "lost", "stale", "forged"];
const HINT = "Enter sends, Shift and Enter starts a new line";
let receive = () => {};
let measuring = 0;
let tickets = 0;

export const onSent = (action) => {
  receive = action;
};

function armed() {
  return {
    twice: $("twice").checked,
    forged: $("forged").checked,
    cookie: $("lost").checked ? "lost" : $("stale").checked ? "stale" : "jar",
  };
}

export function drawArmed() {
  $("armed").replaceChildren(
    ...ONCE.filter((id) => $(id).checked).map((id) =>
      h(
        "li",
        {},
        h(
          "button",
          {
            type: "button",
            onclick: () => {
              $(id).checked = false;
              drawArmed();
              $("body").focus();
            },
            "aria-label": `${$(`${id}-name`).textContent}: undo`,
          },
          $(`${id}-name`).textContent,
          h("span", { "aria-hidden": "true" }, "×"),
        ),
      ),
    ),
  );
}

// A switch was turned: a cookie cannot be both lost and old.
export function turned(id) {
  if (id === "lost" && $("lost").checked) $("stale").checked = false;
  if (id === "stale" && $("stale").checked) $("lost").checked = false;
  drawArmed();
}

// Whether both numbers are numbers. If not, says so; `go`: and goes there.
export function numbersAreGood({ go = false } = {}) {
  const wrong = [
    ["From", $("from").value === OTHER ? $("other") : null],
    ["To", $("to")],
  ].find(([, input]) => input && !input.checkValidity());
  if (!wrong) return numberError("") || true;
  const [name, input] = wrong;
  const typed = input.value.trim();
  const what = typed ? `“${typed}” is no phone number` : "a number is missing";
  numberError(
    `${name}: ${what}. Use +14158675309, a short code such as 12345, or whatsapp:+14158675309.`,
    input,
  );
  if (go) input.focus();
  return false;
}

function numberError(text, input) {
  $("number-error").textContent = text;
  $("number-error").hidden = !text;
  for (const field of [$("to"), $("other")])
    field.setAttribute("aria-invalid", String(field === input));
}

async function send(body, order) {
  const item = pending(body, order.ticket);
  try {
    receive(await post("messages", { from: from(), to: to(), body, ...order }));
    item.remove();
  } catch (error) {
    failed(item, body, order, error);
  }
}

function failed(item, body, order, error) {
  item.classList.add("failed");
  item.querySelector(".typing")?.remove();
  const why =
    error instanceof Refused ? `Not sent: ${error.message}` : "Not sent: the server is gone.";
  item.append(
    h(
      "p",
      { class: "trouble", role: "alert" },
      h("b", {}, why),
      " ",
      h(
        "button",
        {
          type: "button",
          onclick: () => {
            item.remove();
            send(body, order);
          },
        },
        "Try again",
      ),
    ),
  );
  toEnd();
}

export function say(body) {
  if (!numbersAreGood({ go: true })) return;
  state.sent.push(body);
  send(body, { ...armed(), ticket: `${Date.now()}-${tickets++}` });
  for (const id of ONCE) $(id).checked = false;
  drawArmed();
}

function submit(event) {
  event.preventDefault();
  const body = $("body").value;
  if (!body.trim()) return $("body").focus();
  if (!numbersAreGood({ go: true })) return;
  say(body);
  $("body").value = "";
  measure();
}

export function measure() {
  const body = $("body").value;
  $("body").style.height = "auto";
  $("body").style.height = `${Math.min($("body").scrollHeight, 120)}px`;
  keepFields();
  clearTimeout(measuring);
  $("count").classList.toggle("keys", !body);
  if (!body) return void ($("count").textContent = HINT);
  measuring = setTimeout(async () => {
    const count = await post("segments", { body }).catch(() => null);
    if (count && $("body").value === body)
      $("count").textContent =
        `${plural(count.units, "unit")}, ${count.encoding}: ${plural(count.count, "segment")}`;
  }, 120);
}

function typed(event) {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("composer").requestSubmit();
  } else if (event.key === "ArrowUp" && !$("body").value && state.sent.length) {
    event.preventDefault();
    $("body").value = state.sent.at(-1);
    measure();
  }
}

export function start() {
  $("composer").addEventListener("submit", submit);
  $("body").addEventListener("keydown", typed);
  $("body").addEventListener("input", measure);
  for (const id of ONCE) $(id).addEventListener("change", () => turned(id));
}
