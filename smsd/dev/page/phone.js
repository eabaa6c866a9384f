// The phone: sending, switches, live events. The server acts as Twilio; this only shows it.

import { $, clock, h, plural, post } from "./dom.js";
import { empty, inspect } from "./inspector.js";
import { OTHER, from, label, nameOf, ours, state, to } from "./state.js";
import { append, arrows, drawThread, onSelect, pending, roving, toEnd } from "./thread.js";

// --- the inspector

function select(id, delivery = 0) {
  state.selected = id;
  state.delivery = delivery;
  const event = state.events.find((one) => one.id === id);
  $("inspector").replaceChildren(event ? inspect(event, label, delivery, (index) => chooseDelivery(id, index)) : empty());
  for (const item of $("thread").querySelectorAll("[data-id]"))
    item.querySelector("button").setAttribute("aria-pressed", String(Number(item.dataset.id) === id));
  roving();
}

function chooseDelivery(id, index) {
  select(id, index);
  $("inspector").querySelector(".deliveries [aria-pressed=true]").focus();
}

// --- sending

function armed() {
  return { twice: $("twice").checked, forged: $("forged").checked, cookie: $("lost").checked ? "lost" : $("stale").checked ? "stale" : "jar" };
}

function drawArmed() {
  $("armed").replaceChildren(...["twice", "lost", "stale", "forged"].filter((id) => $(id).checked).map((id) =>
    h("li", {}, h("button", { type: "button", onclick: () => { $(id).checked = false; drawArmed(); $("body").focus(); },
      "aria-label": `${$(`${id}-name`).textContent}: undo` }, $(`${id}-name`).textContent, h("span", { "aria-hidden": "true" }, "×")))));
}

async function send(body, order) {
  const item = pending(body);
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
  const why = error instanceof TypeError ? "Not sent: the server is gone." : `Not sent: ${error.message}`;
  item.append(h("p", { class: "trouble", role: "alert" }, h("b", {}, why), " ",
    h("button", { type: "button", onclick: () => { item.remove(); send(body, order); } }, "Try again")));
  toEnd();
}

function submit(event) {
  event.preventDefault();
  const body = $("body").value;
  if (!body.trim()) return $("body").focus();
  if (!from() || !to()) return announce("A number is missing.");
  state.sent.push(body);
  send(body, armed());
  for (const id of ["twice", "lost", "stale", "forged"]) $(id).checked = false;
  $("body").value = "";
  drawArmed();
  measure();
}

let measured = 0;
function measure() {
  const body = $("body").value;
  $("body").style.height = "auto";
  $("body").style.height = `${Math.min($("body").scrollHeight, 120)}px`;
  clearTimeout(measured);
  if (!body) return void ($("count").textContent = "Enter sends, Shift and Enter starts a new line");
  measured = setTimeout(async () => {
    const count = await post("segments", { body }).catch(() => null);
    if (count && $("body").value === body) $("count").textContent = `${count.units} units, ${count.encoding}: ${plural(count.count, "segment")}`;
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

// --- live

function receive(event) {
  if (state.events.some((one) => one.id === event.id)) return;
  state.events.push(event);
  state.last = Math.max(state.last, event.id);
  if (event.kind === "note") {
    state.aheadS = event.ahead_s ?? state.aheadS;
    state.storeUp = event.store_up ?? state.storeUp;
    pills();
  }
  append(event);
  if (ours(event)) select(event.id);
}

function pills() {
  const hours = Math.round(state.aheadS / 360) / 10;
  pill("pill-store", state.storeUp ? "good" : "bad", state.storeUp ? "store up" : "store down");
  pill("pill-clock", hours ? "warm" : "", hours ? `clock ${plural(hours, "hour")} ahead` : "clock on time");
  $("down").checked = !state.storeUp;
  tick();
}

function pill(id, kind, text) {
  $(id).className = `pill ${kind}`;
  $(id).textContent = text;
}

const tick = () => { $("time").textContent = clock(Date.now() / 1000 + state.aheadS); };
const announce = (text) => { $("announce").textContent = text; };

function banner(text) {
  $("banner").hidden = !text;
  $("banner").textContent = text;
}

async function load() {
  const found = await (await fetch("/phone/api/state")).json();
  Object.assign(state, { people: found.people, events: found.events, boot: found.boot, aheadS: found.ahead_s, storeUp: found.store_up });
  state.last = found.events.at(-1)?.id ?? 0;
  $("webhook").textContent = found.webhook;
  if (!$("from").options.length) choices(found);
  pills();
  avatar();
  drawThread();
  select(state.events.findLast(ours)?.id ?? null);
}

function choices(found) {
  $("from").append(...found.people.map((person) => h("option", { value: person.number }, `${person.name}  ${person.number}`)),
    h("option", { value: OTHER }, "Another number…"));
  $("to").value = found.to;
}

function listen() {
  const source = new EventSource(`/phone/api/events?after=${state.last}`);
  source.addEventListener("hello", (event) => {
    pill("pill-live", "good", "live");
    banner("");
    if (event.data === state.boot) return;
    source.close();
    load().then(listen, () => setTimeout(listen, 1000));
  });
  source.onmessage = (event) => receive(JSON.parse(event.data));
  source.onerror = () => {
    if (source.readyState === EventSource.OPEN) return;
    setTimeout(() => check(source), 300);
  };
}

// A stream that ended is not yet a server that is gone: ask before saying so.
async function check(source) {
  const answer = await fetch("/phone/api/state").catch(() => null);
  if (answer === null) {
    pill("pill-live", "bad", "server gone");
    banner("The server is gone. Start it again, and this page goes on by itself.");
  }
  if (source.readyState === EventSource.CLOSED) setTimeout(listen, 1000);
}

// --- who

function avatar() {
  const number = from();
  $("avatar").textContent = (nameOf(number) || number.slice(-2) || "?").slice(0, nameOf(number) ? 1 : 2);
  $("avatar").dataset.hue = String([...number].reduce((sum, char) => sum + char.charCodeAt(0), 0) % 5);
  for (const node of [$("other"), document.querySelector("label[for=other]")]) node.hidden = $("from").value !== OTHER;
}

function changed() {
  avatar();
  drawThread();
  select(state.events.findLast(ours)?.id ?? null);
}

function view(name) {
  document.body.dataset.view = name;
  for (const button of document.querySelectorAll(".tabs button"))
    button.dataset.view === name ? button.setAttribute("aria-current", "page") : button.removeAttribute("aria-current");
  toEnd();
}

async function world(path, body) {
  try {
    receive(await post(path, body));
  } catch (error) {
    announce(error.message);
    banner(error instanceof TypeError ? "The server is gone." : error.message);
    pills();
  }
}

$("composer").addEventListener("submit", submit);
$("body").addEventListener("keydown", typed);
$("body").addEventListener("input", measure);
$("thread").addEventListener("keydown", arrows);
$("from").addEventListener("change", () => { changed(); if ($("from").value === OTHER) $("other").focus(); });
$("other").addEventListener("change", changed);
$("to").addEventListener("change", changed);
for (const id of ["twice", "lost", "stale", "forged"])
  $(id).addEventListener("change", () => {
    if (id === "lost" && $("lost").checked) $("stale").checked = false;
    if (id === "stale" && $("stale").checked) $("lost").checked = false;
    drawArmed();
  });
$("down").addEventListener("change", () => world("store", { action: $("down").checked ? "down" : "up" }));
$("flush").addEventListener("click", () => world("store", { action: "flush" }));
$("hours").addEventListener("click", () => world("clock", { seconds: 4 * 3600 }));
for (const button of document.querySelectorAll(".tabs button")) button.addEventListener("click", () => view(button.dataset.view));
onSelect(select);
setInterval(tick, 5000);
$("inspector").append(empty());
load().then(() => { listen(); $("body").focus({ preventScroll: true }); }, () => banner("The server is gone."));
