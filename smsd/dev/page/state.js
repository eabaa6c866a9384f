// What the page knows, who texts whom, and what survives a reload. Every other module reads it
// here.
//
// Events of the running server are `events`. A server that is restarted knows nothing of them,
// so this tab keeps what was said before (`past`), with a line about the restart. A text is one
// event, which is published again whenever more is known: `take` replaces it by its `uid`.

import { $ } from "./dom.js";

export const OTHER = "other";
const THREAD = "smsd-phone-thread";
const FORM = "smsd-phone-form";
const FIELDS = ["to", "from", "other", "body"];
const MOST_KEPT = 100;

export const state = {
  people: [],
  events: [],
  past: [],
  last: 0,
  boot: null,
  selected: null,
  delivery: 0,
  aheadS: 0,
  storeUp: true,
  sent: [],
  dialogue: null,
};

export const from = () => ($("from").value === OTHER ? $("other").value.trim() : $("from").value);
export const to = () => $("to").value.trim();
export const nameOf = (number) =>
  state.people.find((person) => person.number === number.replace(/^\w+:/, ""))?.name;
export const label = (number) => (nameOf(number) ? `${nameOf(number)} ${number}` : number);
export const ours = (event) =>
  event.kind === "exchange" && event.from === from() && event.to === to();
export const find = (uid) => [...state.past, ...state.events].find((event) => event.uid === uid);

// What happened to the world shows in a thread from its first message on.
export function thread() {
  const all = [...state.past, ...state.events];
  const first = all.findIndex(ours);
  return first < 0 ? [] : all.slice(first).filter((event) => event.kind === "note" || ours(event));
}

// Takes an event in: "new" or "changed"; "" if it, or a later version of it, is known already.
export function take(event) {
  const change = put(event);
  if (change) keepThread();
  return change;
}

function put(event) {
  event.uid = `${state.boot}:${event.key}`;
  const place = state.events.findIndex((one) => one.uid === event.uid);
  if (place >= 0 && state.events[place].id >= event.id) return "";
  if (place >= 0) state.events[place] = event;
  else state.events.push(event);
  state.last = Math.max(state.last, event.id);
  return place < 0 ? "new" : "changed";
}

export function forget(isGone) {
  for (const list of ["past", "events"])
    state[list] = state[list].filter((event) => !isGone(event));
  keepThread();
}

// Begins with what the server knows. Events of an earlier server become the past.
export function begin(found) {
  if (
    state.boot !== null &&
    state.boot !== found.boot &&
    (state.events.length || state.past.length)
  ) {
    const lost = state.events.map((event) =>
      event.pending ? { ...event, pending: false, stopped: true } : event,
    );
    const note = {
      kind: "note",
      what: "restart",
      uid: `restart-${found.boot}`,
      at: Date.now() / 1000,
    };
    state.past = [...state.past, ...lost, note].slice(-MOST_KEPT);
  }
  Object.assign(state, {
    people: found.people,
    events: [],
    boot: found.boot,
    last: 0,
    aheadS: found.ahead_s,
    storeUp: found.store_up,
    dialogue: found.dialogue,
  });
  for (const event of found.events) put(event);
  keepThread();
}

// The thread and the fields are kept apart: fields change with every key that is pressed.
function keepThread() {
  const { boot, events, past } = state;
  write(THREAD, { boot, events: events.slice(-MOST_KEPT), past });
}

export function keepFields() {
  const [to, from, other, body] = FIELDS.map((id) => $(id).value);
  write(FORM, { to, from, other, body, sent: state.sent.slice(-20) });
}

// What this tab held before it was loaded again: the fields, or null.
export function restore() {
  Object.assign(state, read(THREAD));
  const fields = read(FORM);
  if (fields) state.sent = fields.sent;
  return fields;
}

function write(key, value) {
  try {
    sessionStorage.setItem(key, JSON.stringify(value));
  } catch {
    // A full or forbidden storage: the page works, and only forgets at a reload.
  }
}

function read(key) {
  try {
    return JSON.parse(sessionStorage.getItem(key));
  } catch {
    return null;
  }
}
