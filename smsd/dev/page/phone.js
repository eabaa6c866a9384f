// The page as a whole: who texts whom, the state of the service, live events. The server acts
// as Twilio; this shows it.

import * as composer from "./composer.js";
import { $, clock, h, post, Refused } from "./dom.js";
import { empty, inspect } from "./inspector.js";
import {
  OTHER,
  begin,
  find,
  forget,
  from,
  keepFields,
  label,
  nameOf,
  ours,
  restore,
  state,
  take,
  thread,
  to,
} from "./state.js";
import { arrows, connect, drawThread, roving, show, toEnd } from "./thread.js";

const narrow = matchMedia("(max-width: 759px)");
const GONE = "The server is gone. Start it again, and this page goes on by itself.";

// --- the inspector

function select(uid, { delivery = 0, open = false } = {}) {
  state.selected = uid;
  state.delivery = delivery;
  const event = find(uid);
  const choose = (index) => {
    select(uid, { delivery: index });
    $("inspector").querySelector(".deliveries [aria-pressed=true]").focus();
  };
  $("inspector").replaceChildren(event ? inspect(event, label, delivery, choose) : empty());
  for (const item of $("thread").querySelectorAll("li[data-uid] > button"))
    item.setAttribute("aria-pressed", String(item.parentElement.dataset.uid === uid));
  roving();
  if (open && narrow.matches) view("inspector");
}

const selectLast = () => select(thread().findLast(ours)?.uid ?? null);

// --- live

function receive(event) {
  const change = take(event);
  if (!change) return;
  if (event.kind === "clear") return cleared(event);
  if (event.kind === "note") {
    state.aheadS = event.ahead_s ?? state.aheadS;
    state.storeUp = event.store_up ?? state.storeUp;
    drawPills();
  }
  show(event);
  if (ours(event) && (change === "new" || state.selected === event.uid))
    select(event.uid, { delivery: state.delivery });
}

function cleared(event) {
  forget((one) => one.kind === "exchange" && one.from === event.from && one.to === event.to);
  drawThread();
  selectLast();
}

function drawPills() {
  const hours = Math.round(state.aheadS / 360) / 10;
  pill("pill-store", state.storeUp ? "good" : "bad", state.storeUp ? "store up" : "store down");
  pill("pill-clock", hours ? "warm" : "", hours ? `clock +${hours} h` : "clock on time");
  $("down").checked = !state.storeUp;
  $("present").hidden = !hours;
  tick();
}

function pill(id, kind, text) {
  $(id).className = `pill ${kind}`;
  $(id).textContent = text;
}

const tick = () => {
  $("time").textContent = clock(Date.now() / 1000 + state.aheadS);
};

function banner(text) {
  $("banner").hidden = !text;
  $("banner").textContent = text;
}

function drawDialogue(dialogue) {
  state.dialogue = dialogue;
  $("dialogue").textContent = dialogue.name;
  $("loaded").textContent = `loaded ${clock(dialogue.loaded_at)}`;
  const [reason, ...rest] = (dialogue.refused || "").split("\n");
  $("refused").hidden = !reason;
  $("refused").replaceChildren(
    ...(reason
      ? [
          h(
            "p",
            {},
            h(
              "b",
              {},
              `The new version cannot be loaded. The one of ${clock(dialogue.loaded_at)} goes on. `,
            ),
            reason,
          ),
          rest.join("").trim() &&
            h(
              "details",
              {},
              h("summary", {}, "Traceback"),
              h("pre", { tabindex: "0", "aria-label": "Traceback" }, rest.join("\n").trim()),
            ),
        ].filter(Boolean)
      : []),
  );
}

async function load() {
  const found = await (await fetch("/phone/api/state")).json();
  begin(found);
  $("webhook").textContent = found.webhook;
  if (!$("from").options.length) fill(found);
  drawDialogue(found.dialogue);
  drawPills();
  drawAvatar();
  drawThread();
  selectLast();
}

// The fields: as they were in this tab, or as a newcomer needs them.
let remembered = null;
function fill(found) {
  $("from").append(
    ...found.people.map((person) =>
      h("option", { value: person.number }, `${person.name}  ${person.number}`),
    ),
    h("option", { value: OTHER }, "Another number…"),
  );
  $("to").value = remembered?.to ?? found.to;
  if (!remembered) return;
  if ([...$("from").options].some((option) => option.value === remembered.from))
    $("from").value = remembered.from;
  $("other").value = remembered.other;
  $("body").value = remembered.body;
  composer.measure();
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
  source.addEventListener("dialogue", (event) => drawDialogue(JSON.parse(event.data)));
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
    banner(GONE);
  }
  if (source.readyState === EventSource.CLOSED) setTimeout(listen, 1000);
}

// --- who

// As every messenger does, it shows the other party: the number that is texted.
function drawAvatar() {
  const number = to();
  $("avatar").textContent = (
    nameOf(number)?.slice(0, 1) ||
    number.replace(/\W/g, "").slice(-2) ||
    "?"
  ).toUpperCase();
  $("avatar").dataset.hue = String(
    [...number].reduce((sum, char) => sum + char.charCodeAt(0), 0) % 5,
  );
  for (const node of [$("other"), document.querySelector("label[for=other]")])
    node.hidden = $("from").value !== OTHER;
}

function changed() {
  keepFields();
  drawAvatar();
  drawThread();
  selectLast();
}

function view(name) {
  document.body.dataset.view = name;
  for (const button of document.querySelectorAll(".tabs button"))
    button.dataset.view === name
      ? button.setAttribute("aria-current", "page")
      : button.removeAttribute("aria-current");
  toEnd();
}

async function ask(path, body) {
  try {
    receive(await post(path, body));
  } catch (error) {
    banner(error instanceof Refused ? error.message : GONE);
    drawPills();
  }
}

connect({ select, say: composer.say });
composer.onSent(receive);
composer.start();
$("thread").addEventListener("keydown", arrows);
$("from").addEventListener("change", () => {
  changed();
  if ($("from").value === OTHER) $("other").focus();
});
for (const id of ["other", "to"])
  $(id).addEventListener("change", () => {
    composer.numbersAreGood();
    changed();
  });
$("down").addEventListener("change", () =>
  ask("store", { action: $("down").checked ? "down" : "up" }),
);
$("flush").addEventListener("click", () => ask("store", { action: "flush" }));
$("hours").addEventListener("click", () => ask("clock", { seconds: 4 * 3600 }));
$("present").addEventListener("click", () => {
  ask("clock", { seconds: null });
  $("hours").focus();
});
$("clear").addEventListener("click", () => {
  ask("clear", { from: from(), to: to() });
  $("body").focus();
});
for (const button of document.querySelectorAll(".tabs button"))
  button.addEventListener("click", () => view(button.dataset.view));
setInterval(tick, 5000);
$("inspector").append(empty());
remembered = restore();
load().then(
  () => {
    listen();
    $("body").focus({ preventScroll: true });
  },
  () => banner("The server is gone."),
);
