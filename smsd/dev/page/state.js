// What the page knows, and who texts whom. Every other module reads it here.

import { $ } from "./dom.js";

export const OTHER = "other";
export const state = { people: [], events: [], last: 0, boot: null, selected: null, delivery: 0, aheadS: 0, storeUp: true, sent: [] };

export const from = () => ($("from").value === OTHER ? $("other").value.trim() : $("from").value);
export const to = () => $("to").value.trim();
export const nameOf = (number) => state.people.find((person) => person.number === number.replace(/^\w+:/, ""))?.name;
export const label = (number) => (nameOf(number) ? `${nameOf(number)} ${number}` : number);
export const ours = (event) => event.kind === "exchange" && event.from === from() && event.to === to();

// What happened to the world shows in a thread from its first message on.
export function thread() {
  const first = state.events.findIndex(ours);
  return first < 0 ? [] : state.events.slice(first).filter((event) => event.kind === "note" || ours(event));
}
