// Small helpers to make elements, format values and ask the server. Text is set as text, never
// as markup.

export const $ = (id) => document.getElementById(id);

export function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(
    ...children
      .flat(Infinity)
      .filter((child) => child !== null && child !== undefined && child !== false),
  );
  return node;
}

// The server understood the request and refused it; `field` names the input that is wrong.
export class Refused extends Error {
  constructor(text, field) {
    super(text);
    this.field = field;
  }
}

export async function post(path, body) {
  const response = await fetch(`/phone/api/${path}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  const answer = await response.json();
  if (!response.ok) throw new Refused(answer.error || `status ${response.status}`, answer.field);
  return answer;
}

export const clock = (seconds) =>
  new Date(seconds * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

export const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

export const times = (count) => (count === 1 ? "once" : count === 2 ? "twice" : `${count} times`);

// Rounded as people say it: nobody reads "3002.78 ms".
export function duration(milliseconds) {
  if (milliseconds < 1) return "under 1 ms";
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  if (milliseconds < 59_950) return `${(milliseconds / 1000).toFixed(1)} s`;
  const seconds = Math.round(milliseconds / 1000);
  return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
}

// What Twilio's error codes mean for the developer.
export function advice(error, status, forged) {
  if (status === 403 && forged)
    return "Refused with 403, as it must be: only what Twilio signed changes anything.";
  if (status === 403)
    return "The service refused the signature. Its log names the cause: another token, or another public URL.";
  return (
    {
      11200: `The webhook answered with status ${status}.`,
      11202: "Nothing listens there: the service refused the connection.",
      11203: "The service did not answer in time.",
      11205: "The connection broke before an answer came.",
      12100: "The answer is no well-formed XML, so Twilio sends nothing.",
      12300: "The answer has a content type that Twilio does not take.",
      14106: "Twilio follows 50 documents for one message and no more.",
      14107: "Two machines are talking to each other: Twilio stops after 30 quick replies.",
      21610: "This number has opted out. It must text START first.",
      21617: "A message may have 1600 characters.",
    }[error.code] || error.text
  );
}
