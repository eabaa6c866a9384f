// The thread: bubbles, what happened between them, and moving along them by keyboard.

import { $, advice, clock, h, plural } from "./dom.js";
import { from, nameOf, ours, state, thread, to } from "./state.js";

let select = () => {};
export const onSelect = (action) => { select = action; };

export function drawThread() {
  $("thread").setAttribute("aria-busy", "true");
  const events = thread();
  $("thread").replaceChildren(...(events.length ? events.map(entry) : [welcome()]));
  $("thread").removeAttribute("aria-busy");
  roving();
  toEnd();
}

function welcome() {
  const who = nameOf(from()) || from() || "somebody";
  return h("li", { class: "welcome" }, h("b", {}, `No messages yet`), `Text ${to()} as ${who}.`);
}

export function append(event) {
  if (!thread().includes(event)) return;
  $("thread").querySelector(".welcome")?.remove();
  [...$("thread").querySelectorAll(".pending:not(.failed)")].find((item) => item.dataset.body === event.body)?.remove();
  $("thread").append(entry(event));
  roving();
  toEnd();
}

export const toEnd = () => { $("thread").scrollTop = $("thread").scrollHeight; };

function entry(event) {
  if (event.kind === "note") return note(event);
  const delivery = event.deliveries[0];
  const twice = event.deliveries.length > 1;
  return h("li", { class: "exchange", "data-id": event.id },
    h("button", { type: "button", class: "bubble out", "aria-pressed": String(event.id === state.selected),
      "aria-label": `You: ${event.body || "empty message"}. Show what happened.`, onclick: () => select(event.id) }, event.body || "\u00a0"),
    h("p", { class: "meta right" }, clock(event.at), ` · ${plural(event.segments.count, "segment")}`, twice && h("span", { class: "tag" }, "delivered twice")),
    shown(event).length > 0 && h("span", { class: "hidden" }, "Reply:"),
    shown(event).map((text) => h("p", { class: "bubble in" }, text)),
    delivery.automatic && [h("p", { class: "bubble in twilio" }, delivery.automatic), h("p", { class: "meta" }, "answered by Twilio itself")],
    trouble(event),
    shown(event).length > 0 && h("p", { class: "meta" }, `${delivery.milliseconds} ms`, delivery.replies.map((reply) => ` · ${plural(reply.segments.count, "segment")}`)[0]),
    delivery.replies.flatMap((reply) => reply.media).map((url) => h("p", { class: "meta" }, h("a", { href: url, rel: "noreferrer noopener", target: "_blank" }, `Media: ${url}`))));
}

// Every delivery of a message gets the same reply, so the handset shows it once.
function shown(event) {
  const said = event.deliveries.map((delivery) => delivery.replies.map((reply) => reply.body).filter(Boolean));
  const same = said.every((texts) => texts.join("\n") === said[0].join("\n"));
  return same ? said[0] : said.flat();
}

function trouble(event) {
  const delivery = event.deliveries.find((one) => one.errors.length) || event.deliveries[0];
  if (delivery.errors.length)
    return delivery.errors.map((error) => h("p", { class: "trouble" }, h("b", {}, `${error.code} `), advice(error, delivery.status, event.forged)));
  return !delivery.replies.length && !delivery.automatic && h("p", { class: "meta" }, "No reply");
}

function note(event) {
  const texts = {
    time: `${plural(Math.round(event.seconds / 360) / 10, "hour")} later`,
    flush: "The store was flushed",
    down: "The store went down",
    up: "The store is back",
  };
  return h("li", { class: "event" }, h("span", {}, texts[event.what]));
}

export function pending(body) {
  $("thread").querySelector(".welcome")?.remove();
  const item = h("li", { class: "exchange pending", "data-body": body }, h("p", { class: "bubble out" }, body),
    h("p", { class: "bubble in typing", "aria-label": "Waiting for the reply" }, h("i"), h("i"), h("i")));
  $("thread").append(item);
  toEnd();
  return item;
}

// One bubble is in the tab order; arrow keys move between them.
export function roving() {
  const bubbles = [...$("thread").querySelectorAll("button.bubble")];
  const current = bubbles.find((bubble) => bubble.getAttribute("aria-pressed") === "true") || bubbles.at(-1);
  for (const bubble of bubbles) bubble.tabIndex = bubble === current ? 0 : -1;
}

export function arrows(event) {
  const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  const bubbles = [...$("thread").querySelectorAll("button.bubble")];
  const next = step && bubbles[bubbles.indexOf(document.activeElement) + step];
  if (!next) return;
  event.preventDefault();
  next.click();
  next.focus();
}
