// How raw things look: JSON, TwiML, headers, and long values that fold.

import { h } from "./dom.js";

const LONG = 48;

const block = (name, ...content) =>
  h("pre", { class: "wire", tabindex: "0", "aria-label": name }, content);
const blank = (text) => h("p", { class: "blank" }, text);

// JSON with an indent, and lists of plain values on one line.
function indented(value, lead = "") {
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const list = Array.isArray(value);
  const inner = `${lead}  `;
  const short = JSON.stringify(value);
  if (
    (list || short.length < 64) &&
    Object.values(value).every((one) => one === null || typeof one !== "object")
  )
    return list
      ? short.replaceAll('","', '", "')
      : short.replaceAll('":', '": ').replaceAll(',"', ', "');
  const parts = list
    ? value.map((one) => indented(one, inner))
    : Object.entries(value).map(
        ([name, one]) => `${JSON.stringify(name)}: ${indented(one, inner)}`,
      );
  return `${list ? "[" : "{"}\n${inner}${parts.join(`,\n${inner}`)}\n${lead}${list ? "]" : "}"}`;
}

export function json(value, name = "JSON") {
  if (value === null || value === undefined) return blank("nothing here");
  const tokens = indented(value).split(/("(?:[^"\\]|\\.)*"(?:\s*:)?)/);
  return block(
    name,
    tokens.map((token) =>
      token.endsWith(":")
        ? h("span", { class: "t-name" }, token)
        : token.startsWith('"')
          ? h("span", { class: "t-text" }, token)
          : token,
    ),
  );
}

// TwiML with its tags set apart, and a line for each.
export function twiml(xml) {
  if (!xml) return blank("empty body");
  let depth = 0;
  return block(
    "TwiML",
    (xml.match(/<[^>]*>|[^<]+/g) || []).flatMap((token) => {
      if (!token.startsWith("<")) return [token];
      const closing = token.startsWith("</");
      const container = /^<\/?(Response|Message)\b/.test(token) && !token.endsWith("/>");
      const inline = closing && !/^<\/Response/.test(token);
      if (closing && container) depth -= 1;
      const lead = token.startsWith("<?") || inline ? "" : `\n${"  ".repeat(Math.max(depth, 0))}`;
      if (!closing && container) depth += 1;
      return [lead, h("span", { class: token.startsWith("<?") ? "t-dim" : "t-tag" }, token)];
    }),
  );
}

export const text = (name, value) => block(name, value);

const bytes = (value) => new TextEncoder().encode(value).length;
export const size = (setCookie) => `${bytes(setCookie.split(";")[0])} bytes`;

// One header; a long value shows its beginning, and unfolds.
export function header(name, value) {
  const title = h("span", { class: "t-name" }, name);
  if (value.length <= LONG) return h("div", { class: "header" }, title, `: ${value}`);
  return h(
    "details",
    { class: "header" },
    h(
      "summary",
      {},
      title,
      h("span", { class: "start" }, `: ${value}`),
      h("span", { class: "t-dim" }, `${bytes(value)} bytes`),
    ),
    h("div", { class: "whole" }, value),
  );
}

export function headers(name, ...lines) {
  return h(
    "div",
    { class: "wire headers", tabindex: "0", role: "group", "aria-label": name },
    lines,
  );
}

export const requestLine = (method, url) =>
  h("div", { class: "header" }, h("span", { class: "t-tag" }, method), ` ${url}`);

export function signedText(url, fields) {
  const sorted = [...fields].sort(([a], [b]) => (a < b ? -1 : 1));
  return block(
    "Signed text",
    h("span", { class: "t-tag" }, url),
    sorted.flatMap(([name, value]) => [h("span", { class: "t-name" }, name), value]),
  );
}

export function form(fields) {
  return h(
    "table",
    {},
    h(
      "tbody",
      {},
      fields.map(([name, value]) =>
        h(
          "tr",
          {},
          h("th", { scope: "row" }, name),
          value ? h("td", {}, value) : h("td", { class: "blank" }, "blank, and signed"),
        ),
      ),
    ),
  );
}
