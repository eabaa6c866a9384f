// The inspector: one exchange taken apart, in the order in which it happened.

import { advice, h, plural } from "./dom.js";

export function empty() {
  return h("div", { class: "hint" },
    h("p", {}, "Send a text, then look here: the request as Twilio signs it, the cookie opened, the record, the TwiML, the time."),
    h("p", {}, "Choose any bubble to see how it came about."));
}

export function inspect(event, names, chosen, choose) {
  const delivery = event.deliveries[Math.min(chosen, event.deliveries.length - 1)];
  const attempt = delivery.attempts[0];
  return h("div", { class: "steps" },
    summary(event, delivery, names),
    event.deliveries.length > 1 && deliveries(event, chosen, choose),
    step("Request, as signed", `${attempt.method} ${new URL(attempt.url).pathname}`, request(attempt), true),
    step("Cookie that came along", cookieNote(delivery.cookie_sent), json(delivery.cookie_sent), Boolean(delivery.cookie_sent)),
    step("Answer", answerNote(delivery), answer(delivery, event.forged), true),
    step("Cookie handed back", delivery.cookie ? `${told(delivery.cookie_received)}, ${size(delivery.cookie)}` : "none", handedBack(delivery), Boolean(delivery.cookie)),
    step("Record in the store", event.record ? told(event.record) : "none, or the store is down",
      json(event.record), Boolean(event.record)));
}

function summary(event, delivery, names) {
  const good = delivery.status === 200 && !delivery.errors.some((error) => !error.warning);
  return h("div", { class: `summary ${good ? "good" : "bad"}` },
    h("div", { class: "headline" }, h("p", { class: "quote" }, event.body || "(empty)"),
      h("span", { class: "badge" }, `${delivery.status ?? "no answer"} in ${delivery.milliseconds} ms`)),
    h("dl", { class: "facts" },
      fact("From", names(event.from)), fact("To", event.to),
      fact("Length", `${plural(event.segments.count, "segment")}, ${event.segments.encoding}`),
      fact("MessageSid", h("code", {}, event.sid))));
}

const fact = (name, value) => h("div", {}, h("dt", {}, name), h("dd", {}, value));

function deliveries(event, chosen, choose) {
  const said = event.deliveries.map((delivery) => delivery.replies.map((reply) => reply.body).join("\n"));
  const counts = event.deliveries.map((delivery) => delivery.cookie_received?.count);
  const told = said.some((text) => text !== said[0]) ? "the replies differ"
    : counts.some((count) => count !== counts[0]) ? "counted more than once" : "";
  return h("div", { class: "deliveries", role: "group", "aria-label": "Deliveries of this message" },
    event.deliveries.map((_, index) =>
      h("button", { type: "button", "aria-pressed": String(index === chosen), onclick: () => choose(index) },
        `Delivery ${index + 1}`)),
    h("span", { class: told ? "differs" : "same" }, told || "same MessageSid, same reply, one count"));
}

function step(title, note, content, open) {
  return h("details", { class: "step", open },
    h("summary", {}, h("h3", {}, title), h("span", { class: "note" }, note)),
    h("div", { class: "content" }, content));
}

function request(attempt) {
  const signed = ["X-Twilio-Signature", "X-Twilio-Webhooks-Signature-Settings", "Cookie", "Content-Type"];
  const shown = attempt.headers.filter(([name]) => signed.includes(name));
  return [
    h("pre", { class: "wire", tabindex: "0", "aria-label": "Request line and headers" },
      h("span", { class: "t-tag" }, attempt.method), ` ${attempt.url}\n`,
      shown.flatMap(([name, value]) => [h("span", { class: "t-name" }, name), `: ${value}\n`])),
    h("details", { class: "inner" }, h("summary", {}, `Form: ${plural(attempt.form.length, "field")}`), form(attempt.form)),
    h("details", { class: "inner" }, h("summary", {}, "The text that is signed"),
      h("p", {}, "The URL, then every name and value, sorted by name, with nothing between. HMAC-SHA1 over this with the auth token, in base64, is X-Twilio-Signature."),
      h("pre", { class: "wire", tabindex: "0", "aria-label": "Signed text" }, h("span", { class: "t-tag" }, attempt.url),
        [...attempt.form].sort(([a], [b]) => (a < b ? -1 : 1))
          .flatMap(([name, value]) => [h("span", { class: "t-name" }, name), value]))),
  ];
}

function form(fields) {
  return h("table", {}, h("tbody", {}, fields.map(([name, value]) =>
    h("tr", {}, h("th", { scope: "row" }, name), value ? h("td", {}, value) : h("td", { class: "blank" }, "blank, and signed")))));
}

const told = (opened) => (opened.refused ? `refused: ${opened.refused}` : opened.count === undefined ? "opened" : `count ${opened.count}`);
const cookieNote = (opened) => (opened ? told(opened) : "none");
const size = (line) => `${new TextEncoder().encode(line.split(";")[0]).length} bytes`;
const answerNote = (delivery) => (delivery.status ? `${delivery.status} in ${delivery.milliseconds} ms` : delivery.attempts.at(-1).failure);

function answer(delivery, forged) {
  const failed = delivery.attempts.length > 1 &&
    h("p", {}, `${delivery.attempts.length} attempts: ${delivery.attempts.map((a) => a.status ?? a.failure).join(", ")}`);
  return [failed, errors(delivery, forged),
    delivery.twiml ? h("pre", { class: "wire", tabindex: "0", "aria-label": "TwiML" }, markup(delivery.twiml)) : h("p", { class: "blank" }, "empty body")];
}

function errors(delivery, forged) {
  return delivery.errors.length > 0 && h("ul", { class: "errors" }, delivery.errors.map((error) =>
    h("li", {}, h("b", {}, String(error.code)), " ", advice(error, delivery.status, forged))));
}

// TwiML with its tags set apart, and a line for each.
function markup(xml) {
  let depth = 0;
  return (xml.match(/<[^>]*>|[^<]+/g) || []).flatMap((token) => {
    if (!token.startsWith("<")) return [token];
    const closing = token.startsWith("</");
    const container = /^<\/?(Response|Message)\b/.test(token) && !token.endsWith("/>");
    const inline = closing && !/^<\/Response/.test(token);
    if (closing && container) depth -= 1;
    const lead = token.startsWith("<?") || inline ? "" : `\n${"  ".repeat(Math.max(depth, 0))}`;
    if (!closing && container) depth += 1;
    return [lead, h("span", { class: token.startsWith("<?") ? "t-dim" : "t-tag" }, token)];
  });
}

function handedBack(delivery) {
  return [json(delivery.cookie_received), delivery.cookie &&
    h("details", { class: "inner" }, h("summary", {}, "Set-Cookie, as sent"),
      h("pre", { class: "wire", tabindex: "0", "aria-label": "Set-Cookie" }, delivery.cookie))];
}

// JSON with an indent, and lists of plain values on one line.
function indented(value, lead = "") {
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const list = Array.isArray(value);
  const inner = `${lead}  `;
  const short = JSON.stringify(value);
  if ((list || short.length < 64) && Object.values(value).every((one) => one === null || typeof one !== "object"))
    return list ? short.replaceAll('","', '", "') : short.replaceAll('":', '": ').replaceAll(',"', ', "');
  const parts = list ? value.map((one) => indented(one, inner))
    : Object.entries(value).map(([name, one]) => `${JSON.stringify(name)}: ${indented(one, inner)}`);
  return `${list ? "[" : "{"}\n${inner}${parts.join(`,\n${inner}`)}\n${lead}${list ? "]" : "}"}`;
}

function json(value) {
  if (value === null || value === undefined) return h("p", { class: "blank" }, "nothing here");
  const tokens = indented(value).split(/("(?:[^"\\]|\\.)*"(?:\s*:)?)/);
  return h("pre", { class: "wire", tabindex: "0", "aria-label": "JSON" }, tokens.map((token) =>
    token.endsWith(":") ? h("span", { class: "t-name" }, token) : token.startsWith('"') ? h("span", { class: "t-text" }, token) : token));
}
