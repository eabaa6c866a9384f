// The inspector: a verdict in one sentence, then one exchange taken apart, what matters most
// first.

import { advice, duration, h, plural, times } from "./dom.js";
import * as wire from "./wire.js";

export function empty() {
  return h(
    "div",
    { class: "hint" },
    h(
      "p",
      {},
      "Send a text, then look here: what was counted and why, the record, the cookies opened, the TwiML, the request as Twilio signs it.",
    ),
    h("p", {}, "Choose any bubble to see how it came about."),
  );
}

export function inspect(event, names, chosen, choose) {
  if (!event.deliveries)
    return h("div", { class: "steps" }, summary(event, names, unfinished(event)));
  const delivery = event.deliveries[Math.min(chosen, event.deliveries.length - 1)];
  return h(
    "div",
    { class: "steps" },
    summary(event, names, event.verdict, delivery),
    event.problem &&
      step(
        "Why the dialogue failed",
        event.problem.text.split(":")[0],
        wire.text("Traceback", event.problem.traceback),
      ),
    event.deliveries.length > 1 && deliveries(event, chosen, choose),
    step(
      "Record in the store",
      event.record ? told(event.record) : "none, or the store is down",
      record(event.record),
      Boolean(event.record),
    ),
    step(
      "Cookie that came along",
      delivery.cookie_sent ? told(delivery.cookie_sent) : "none",
      wire.json(delivery.cookie_sent),
      Boolean(delivery.cookie_sent),
    ),
    step("Answer", answerNote(delivery), answer(delivery, event.forged)),
    step(
      "Cookie sent back",
      delivery.cookie ? `${told(delivery.cookie_received)}, ${wire.size(delivery.cookie)}` : "none",
      sentBack(delivery),
      false,
    ),
    step("Request, as signed", requestNote(delivery), delivery.attempts.map(request), false),
  );
}

function unfinished(event) {
  if (event.stopped)
    return { text: "The server stopped before the reply came.", good: false, notes: [] };
  const notes = event.hops ? [`Twilio was asked to come again ${times(event.hops)}.`] : [];
  return { text: "A reply is on its way.", good: null, notes };
}

function summary(event, names, verdict, delivery) {
  const badge =
    delivery &&
    `${event.problem ? "failed, " : ""}${delivery.status ?? "no answer"} in ${duration(delivery.milliseconds)}`;
  const tone = verdict.good === null ? "open" : verdict.good ? "good" : "bad";
  return h(
    "div",
    { class: `summary ${tone}` },
    h("p", { class: "verdict" }, verdict.text),
    verdict.notes.map((note) => h("p", { class: "verdict-note" }, note)),
    h(
      "div",
      { class: "headline" },
      h("p", { class: "quote" }, event.body || "(empty)"),
      badge && h("span", { class: "badge" }, badge),
    ),
    h(
      "dl",
      { class: "facts" },
      fact("From", names(event.from)),
      fact("To", event.to),
      fact("Length", `${plural(event.segments.count, "segment")}, ${event.segments.encoding}`),
      fact("MessageSid", h("code", {}, event.sid)),
    ),
  );
}

const fact = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));

function deliveries(event, chosen, choose) {
  return h(
    "div",
    { class: "deliveries", role: "group", "aria-label": "Deliveries of this message" },
    event.deliveries.map((_, index) =>
      h(
        "button",
        { type: "button", "aria-pressed": String(index === chosen), onclick: () => choose(index) },
        `Delivery ${index + 1}`,
      ),
    ),
  );
}

function step(title, note, content, open = true) {
  return h(
    "details",
    { class: "step", open },
    h("summary", {}, h("h3", {}, title), h("span", { class: "note" }, note)),
    h("div", { class: "content" }, content),
  );
}

const told = (opened) =>
  opened.refused
    ? `refused: ${opened.refused}`
    : opened.count === undefined
      ? "opened"
      : `count ${opened.count}`;

// What the dialogue keeps comes first: that is what its author looks for.
function record(found) {
  if (!found) return wire.json(null);
  const { data, ...rest } = found;
  return [
    h("p", { class: "part" }, "session.data"),
    wire.json(data, "session.data"),
    h(
      "details",
      { class: "inner" },
      h("summary", {}, "What smsd keeps beside it"),
      wire.json(rest),
    ),
  ];
}

function answerNote(delivery) {
  const hops = delivery.hops ? `, ${plural(delivery.hops, "redirect")}` : "";
  return delivery.status
    ? `${delivery.status} in ${duration(delivery.milliseconds)}${hops}`
    : delivery.attempts.at(-1).failure;
}

function answer(delivery, forged) {
  const failed =
    delivery.attempts.length > 1 &&
    h(
      "p",
      {},
      `${plural(delivery.attempts.length, "request")}: ${delivery.attempts.map((one) => one.status ?? one.failure).join(", ")}`,
    );
  return [failed, errors(delivery, forged), wire.twiml(delivery.twiml)];
}

function errors(delivery, forged) {
  return (
    delivery.errors.length > 0 &&
    h(
      "ul",
      { class: "errors" },
      delivery.errors.map((error) =>
        h("li", {}, h("b", {}, String(error.code)), " ", advice(error, delivery.status, forged)),
      ),
    )
  );
}

function sentBack(delivery) {
  return [
    wire.json(delivery.cookie_received),
    delivery.cookie && wire.headers("Set-Cookie", wire.header("Set-Cookie", delivery.cookie)),
  ];
}

function requestNote(delivery) {
  const [first] = delivery.attempts;
  const more = delivery.attempts.length - 1;
  return `${first.method} ${new URL(first.url).pathname}${more ? ` and ${more} more` : ""}`;
}

function request(attempt) {
  const signed = [
    "X-Twilio-Signature",
    "X-Twilio-Webhooks-Signature-Settings",
    "Cookie",
    "Content-Type",
  ];
  const shown = attempt.headers.filter(([name]) => signed.includes(name));
  return [
    wire.headers(
      "Request line and headers",
      wire.requestLine(attempt.method, attempt.url),
      shown.map(([name, value]) => wire.header(name, value)),
    ),
    h(
      "details",
      { class: "inner" },
      h("summary", {}, `Form: ${plural(attempt.form.length, "field")}`),
      wire.form(attempt.form),
    ),
    h(
      "details",
      { class: "inner" },
      h("summary", {}, "The text that is signed"),
      h(
        "p",
        {},
        "The URL, then every name and value, sorted by name, with nothing between. HMAC-SHA1 over this with the auth token, in base64, is X-Twilio-Signature.",
      ),
      wire.signedText(attempt.url, attempt.form),
    ),
  ];
}
