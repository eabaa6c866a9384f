// The thread: bubbles, what happened between them, and moving along them by keyboard.

import { $, advice, clock, duration, h, plural, times } from "./dom.js";
import { from, label, ours, state, thread, to } from "./state.js";

let select = () => {};
let say = () => {};
export const connect = (actions) => {
  ({ select, say } = actions);
};

export function drawThread() {
  $("log").setAttribute("aria-busy", "true");
  const events = thread();
  $("thread").replaceChildren(...(events.length ? events.map(entry) : [welcome()]));
  $("log").removeAttribute("aria-busy");
  $("clear").hidden = !events.some(ours);
  roving();
  toEnd();
}

function welcome() {
  const first = (text) =>
    h(
      "button",
      { type: "button", class: "suggestion", onclick: () => say(text) },
      `Text “${text}”`,
    );
  return h(
    "li",
    { class: "welcome" },
    h("b", {}, "No messages yet"),
    h("p", {}, `You are ${label(from()) || "nobody so far"}, texting ${to() || "no number"}.`),
    first("hi"),
    h("p", {}, "Then turn on “Lose the cookie” and text again: the count goes on."),
  );
}

// Shows an event, in place of an earlier version of it.
export function show(event) {
  if (!thread().includes(event)) return;
  $("thread").querySelector(".welcome")?.remove();
  if (event.ticket)
    [...$("thread").querySelectorAll("[data-ticket]")]
      .find((item) => item.dataset.ticket === event.ticket)
      ?.remove();
  const before = [...$("thread").children].find((item) => item.dataset.uid === event.uid);
  if (before) update(before, entry(event));
  else $("thread").append(entry(event));
  $("clear").hidden = false;
  roving();
  toEnd();
}

// Changes only what is different, so that the focus stays and a screen reader reads only what
// is new. The bubble that was sent comes first and never changes.
function update(item, fresh) {
  const nodes = [...fresh.childNodes];
  nodes.forEach((node, place) => {
    const old = item.childNodes[place];
    if (!old) item.append(node);
    else if (place > 0 && !old.isEqualNode(node)) old.replaceWith(node);
  });
  while (item.childNodes.length > nodes.length) item.lastChild.remove();
}

export const toEnd = () => {
  $("log").scrollTop = $("log").scrollHeight;
};

function entry(event) {
  if (event.kind === "note") return note(event);
  const replies = event.deliveries ? shown(event) : event.replies;
  return h(
    "li",
    { class: "exchange", "data-uid": event.uid },
    h(
      "button",
      {
        type: "button",
        class: "bubble out",
        "aria-pressed": String(event.uid === state.selected),
        "aria-label": `You: ${event.body || "empty message"}. Show what happened.`,
        onclick: () => select(event.uid, { open: true }),
      },
      event.body || "\u00a0",
    ),
    h(
      "p",
      { class: "meta right" },
      clock(event.at),
      ` · ${plural(event.segments.count, "segment")}`,
      tags(event),
    ),
    replies.length > 0 && h("span", { class: "hidden" }, "Reply:"),
    replies.map(reply),
    event.pending ? underWay(event) : ended(event, replies),
  );
}

function tags(event) {
  const tag = (isSet, text) => isSet && h("span", { class: "tag" }, text);
  return [
    tag(event.twice, "delivered twice"),
    tag(event.cookie === "lost", "cookie lost"),
    tag(event.cookie === "stale", "old cookie"),
    tag(event.forged, "wrong token"),
  ];
}

function reply(message) {
  return [message.media.map(picture), message.body && h("p", { class: "bubble in" }, message.body)];
}

// Only the page's own server is asked for pictures: the page works without a network.
function picture(url) {
  const { host, pathname } = new URL(url);
  const name = decodeURIComponent(pathname.split("/").at(-1)) || host;
  const link = (props, ...inner) =>
    h("a", { href: url, rel: "noreferrer noopener", target: "_blank", ...props }, inner);
  if (host === location.host)
    return link({ class: "picture" }, h("img", { src: url, alt: `Picture: ${name}` }));
  return link(
    { class: "picture absent", "aria-label": `Picture ${name} from ${host}: open it in a new tab` },
    h("span", { class: "frame", "aria-hidden": "true" }),
    h("b", {}, name),
    h("small", {}, `${host}, not loaded here`),
  );
}

function underWay(event) {
  return [
    typing(),
    event.hops > 0 &&
      h("p", { class: "meta" }, `Twilio was asked to come again ${times(event.hops)}`),
  ];
}

const typing = () =>
  h(
    "p",
    { class: "bubble in typing" },
    h("span", { class: "hidden" }, "A reply is on its way"),
    h("i"),
    h("i"),
    h("i"),
  );

function ended(event, replies) {
  if (event.stopped)
    return h("p", { class: "trouble" }, "The server stopped before the reply came.");
  const [delivery] = event.deliveries;
  const segments = replies.reduce((sum, message) => sum + message.segments.count, 0);
  const count =
    replies.length > 1
      ? `${replies.length} messages, ${plural(segments, "segment")}`
      : plural(segments, "segment");
  return [
    delivery.automatic && [
      h("p", { class: "bubble in twilio" }, delivery.automatic),
      h("p", { class: "meta" }, "answered by Twilio itself"),
    ],
    event.problem &&
      h("p", { class: "trouble" }, h("b", {}, "The dialogue failed. "), event.problem.text),
    trouble(event),
    replies.length > 0 &&
      h(
        "p",
        { class: "meta" },
        `${duration(delivery.milliseconds)} · ${count}`,
        delivery.hops > 0 && ` · Twilio came again ${times(delivery.hops)}`,
      ),
  ];
}

// Every delivery of a message gets the same reply, so the handset shows it once.
function shown(event) {
  const said = event.deliveries.map((delivery) => delivery.replies);
  const text = (replies) => replies.map((message) => message.body).join("\n");
  return said.every((replies) => text(replies) === text(said[0])) ? said[0] : said.flat();
}

function trouble(event) {
  const delivery = event.deliveries.find((one) => one.errors.length) || event.deliveries[0];
  if (delivery.errors.length)
    return delivery.errors.map((error) =>
      h(
        "p",
        { class: "trouble" },
        h("b", {}, `${error.code} `),
        advice(error, delivery.status, event.forged),
      ),
    );
  return !delivery.replies.length && !delivery.automatic && h("p", { class: "meta" }, "No reply");
}

function note(event) {
  const text = {
    time: () => `${plural(Math.round(event.seconds / 360) / 10, "hour")} later`,
    present: () => "Back to the present",
    flush: () => "The store was flushed",
    down: () => "The store went down",
    up: () => "The store is back",
    restart: () =>
      "The server was restarted: Twilio’s cookies are gone, and so is a store in memory",
  }[event.what]();
  return h("li", { class: "event", "data-uid": event.uid }, h("span", {}, text));
}

// A text that the server does not know yet.
export function pending(body, ticket) {
  $("thread").querySelector(".welcome")?.remove();
  const item = h(
    "li",
    { class: "exchange pending", "data-ticket": ticket },
    h("p", { class: "bubble out" }, body),
    typing(),
  );
  $("thread").append(item);
  toEnd();
  return item;
}

// One bubble is in the tab order; arrow keys move between them.
export function roving() {
  const bubbles = [...$("thread").querySelectorAll("button.bubble")];
  const current =
    bubbles.find((bubble) => bubble.getAttribute("aria-pressed") === "true") || bubbles.at(-1);
  for (const bubble of bubbles) bubble.tabIndex = bubble === current ? 0 : -1;
}

export function arrows(event) {
  const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
  const bubbles = [...$("thread").querySelectorAll("button.bubble")];
  const next = step && bubbles[bubbles.indexOf(document.activeElement) + step];
  if (!next) return;
  event.preventDefault();
  select(next.closest("[data-uid]").dataset.uid);
  next.focus();
}
