// Small helpers to make elements, and to ask the server. Text is always set as text, never as markup.

export const $ = (id) => document.getElementById(id);

export function h(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name === "class" ? "class" : name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export async function post(path, body) {
  const response = await fetch(`/phone/api/${path}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error || `status ${response.status}`);
  return answer;
}

export const clock = (seconds) =>
  new Date(seconds * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

export const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

// What Twilio's codes mean for the person at the desk.
export function advice(error, status, forged) {
  if (status === 403 && forged) return "Refused with 403, as it must be: only what Twilio signed changes anything.";
  if (status === 403)
    return "The service refused the signature. Its log names the cause: another token, or another public URL.";
  return {
    11200: `The webhook answered with status ${status}.`,
    11202: "Nothing listens there: the service refused the connection.",
    11203: "The service did not answer in time.",
    11205: "The connection broke before an answer came.",
    12100: "The answer is no well-formed XML, so Twilio sends nothing.",
    12300: "The answer has a content type that Twilio does not take.",
    14107: "Two machines are talking to each other: Twilio stops after 30 quick replies.",
    21610: "This number has opted out. It must text START first.",
    21617: "A message may have 1600 characters.",
  }[error.code] || error.text;
}
