// Asks /status once a second and shows what it says. All that comes from outside is set as text.

import { showQueues } from "/queues.js";
import { ago, bytes, cut, make, number, plural, say, show, span } from "/words.js";

const EVERY = 1000;
const LONGEST = 10000;
const PATIENCE = 5000;
const LOOKS = 121;

const $ = (id) => document.getElementById(id);
const seconds = () => performance.now() / 1000;

// What was learnt so far.
let looks = [];
let next = 0;
// Since when nothing was heard, how often in a row that was so, and when it is asked again.
let heard = null;
let failures = 0;
let again = 0;
let timer;
let asking = false;
let announced = "";

async function ask() {
  if (asking) return;
  asking = true;
  clearTimeout(timer);
  let pause = EVERY;
  try {
    const answer = await fetch(`/status?since=${next}`, { signal: AbortSignal.timeout(PATIENCE) });
    if (!answer.ok) throw new Error(`it answers with ${answer.status}`);
    const status = await answer.json();
    remember(status.history);
    heard = { at: seconds(), clock: new Date() };
    failures = 0;
    showStatus(status);
  } catch (error) {
    failures += 1;
    pause = Math.min(EVERY * 2 ** (failures - 1), LONGEST);
    console.info(`tidegate: ${error.message}`);
  }
  asking = false;
  again = seconds() + pause / 1000;
  if (failures > 0) showLost();
  timer = setTimeout(ask, pause);
}

function remember(history) {
  // Times that begin anew are those of a process that was started anew.
  if (history.looks.length > 0 && looks.length > 0 && history.looks[0].at <= looks.at(-1).at) looks = [];
  looks = looks.concat(history.looks).slice(-LOOKS);
  next = history.next;
}

function showState(level, kind, text, advice, error = "") {
  $("state").dataset.level = level;
  // A number and its unit stay on one line.
  say($("state-text"), text.replaceAll(/(\d) (ms|s|min|h|d)\b/g, "$1\u00a0$2"));
  say($("state-advice"), advice);
  say($("state-error"), error && `The error: ${error}`);
  show($("state-error"), error !== "");
  document.title = level === "ok" ? "tidegate" : `${kind.replaceAll("-", " ")} · tidegate`;
  if (announced !== kind) {
    announced = kind;
    say($("announce"), text);
  }
}

function showLost() {
  if (failures === 0) return;
  document.body.classList.add("lost");
  const wait = Math.max(0, Math.ceil(again - seconds()));
  const soon = wait > 0 ? `asking again in ${wait} s` : "asking again";
  const time = heard === null ? "" : ` for ${span(Math.max(1, Math.round(seconds() - heard.at)))}`;
  const told = heard === null ? "It has said nothing yet" : `What is below was said at ${heard.clock.toLocaleTimeString()}`;
  showState(
    "lost",
    "connection-lost",
    `The connection to tidegate has been lost${time}.`,
    `See that the process runs, and what its log says. If it is gone, events wait in Redis. ${told}; ${soon}.`,
  );
}

function showStatus(status) {
  document.body.classList.remove("lost");
  const { level, kind, text, advice, error } = status.summary;
  showState(level, kind, cut(text, 500), cut(advice, 1000), cut(error, 600));
  say($("instance"), `${cut(status.instance, 100)} ${status.version} at ${location.host}, up ${span(status.uptime_seconds)}`);
  showQueues($("queues").tBodies[0], status.queues, looks);
  showServer($("redis"), status.dependencies.redis);
  showServer($("mongodb"), status.dependencies.mongodb);
  showMemory($("memory"), status.buffer);
  showLetters(status.latest_dead_letters, status);
  say($("polled"), `Asked every second, last at ${heard.clock.toLocaleTimeString()}`);
}

function showServer(card, server) {
  card.dataset.state = server.state;
  const words = { up: "up", down: "down", refuses: "refuses", unknown: "not asked yet" }[server.state] ?? server.state;
  const time = server.for_seconds === undefined ? "" : ` for ${span(server.for_seconds)}`;
  say(card.querySelector(".fact"), `${words}${time}`);
  const past = server.last_outage;
  let more = "no outage since the start";
  if (server.state === "down" || server.state === "refuses") more = server.error;
  else if (past) {
    more = `last outage ${ago(past.ended_seconds_ago)}, for ${span(past.lasted_seconds)}: ${past.error}`;
  } else if (server.state === "unknown") more = "";
  say(card.querySelector(".more"), cut(more, 500));
}

function showMemory(card, buffer) {
  const share = Math.max(buffer.events / buffer.max_events, buffer.bytes / buffer.max_bytes);
  say(card.querySelector(".fact"), `${number(share * 100)} % in use`);
  const events = `${number(buffer.events)} of ${plural(buffer.max_events, "event", "events")}`;
  say(card.querySelector(".more"), `${events}, ${bytes(buffer.bytes)} of ${bytes(buffer.max_bytes)}`);
  card.querySelector("meter").value = Math.min(share, 1);
}

let lettersShown = "";

function showLetters(letters, status) {
  const lists = status.queues.filter((queue) => queue.dead_letters > 0);
  const kept = lists.map((queue) => `${cut(queue.dead_letter_list, 200)} holds ${number(queue.dead_letters)}`);
  const none = kept.length > 0 ? `None since the start of this instance. ${kept.join(", ")}.` : "None.";
  say($("letters-none"), letters.length > 0 ? "" : none);
  show($("letters-none"), letters.length === 0);
  show($("letters-some"), letters.length > 0);
  say($("letters-where"), letters.length > 0 ? where(kept, status.payloads_shown) : "");
  showGroups($("letters-groups"), status.dead_letter_groups);
  const rows = $("letters").tBodies[0];
  // Rows are made anew only for new letters; only their age changes otherwise.
  const shown = JSON.stringify(letters.map(({ queue, offset, at }) => [queue, offset, at]));
  if (shown !== lettersShown) {
    lettersShown = shown;
    rows.replaceChildren(...letters.map(letterRow));
  }
  letters.forEach((letter, at) => say(rows.rows[at].querySelector(".ago"), ago(letter.seconds_ago)));
}

// The largest ones: what is wrong with most letters since the start.
function showGroups(list, groups) {
  const lines = groups.slice(0, 10).map(({ queue, class: name, reason, count }) =>
    `${number(count)} × ${name} of ${cut(queue, 100)}${reason === "" ? "" : `: ${cut(reason, 200)}`}`);
  if (groups.length > 10) lines.push(`and ${number(groups.length - 10)} more reasons`);
  while (list.children.length > lines.length) list.lastChild.remove();
  while (list.children.length < lines.length) list.append(make("li", {}));
  lines.forEach((line, at) => say(list.children[at], line));
}

function where(kept, payloads) {
  const held = kept.length > 0 ? `${kept.join(", ")}. ` : "";
  const read = "To read them: tidegate dead list";
  return payloads ? `${held}${read}` : `${held}Events are not shown here (http.show_payloads). ${read}`;
}

function letterRow(letter) {
  const cell = (label, name, ...children) =>
    make("td", { role: "cell", "data-label": label, class: name }, ...children);
  const when = new Date(letter.at);
  const code = letter.code === undefined ? "" : `, code ${letter.code}`;
  const reason = [
    make("span", { class: "reason" }, cut(letter.reason, 600)),
    make("span", { class: "more" }, `${letter.class}${code}`),
  ];
  if (letter.traceparent !== undefined) {
    reason.push(make("span", { class: "more" }, letter.traceparent));
  }
  if (letter.event !== undefined) {
    reason.push(make("pre", { tabindex: "0", "aria-label": "The event" }, cut(letter.event, 4000)));
  }
  return make(
    "tr",
    { role: "row" },
    cell("When", "", make("span", { class: "ago" }), make("span", { class: "more" }, when.toLocaleTimeString())),
    cell("Queue", "key", cut(letter.queue, 200)),
    cell("Reason", "why", ...reason),
    cell("Offset", "offset", letter.offset),
  );
}

$("config").addEventListener("toggle", async () => {
  if (!$("config").open) return;
  const text = $("config").querySelector("pre");
  try {
    const answer = await fetch("/config", { signal: AbortSignal.timeout(PATIENCE) });
    say(text, answer.ok ? await answer.text() : `tidegate answers with ${answer.status}`);
  } catch {
    say(text, "tidegate does not answer; close this and open it again");
  }
});

// Browsers let hidden pages sleep.
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) ask();
});
setInterval(showLost, 1000);
ask();
