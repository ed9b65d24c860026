// Sends what is typed, shows what all have typed, and says whether it is saved.

import { Text } from "/text.js";

const FIRST_PAUSE = 250;
const LONGEST_PAUSE = 5000;
// Said aloud, and looked into, only when it lasts.
const LASTS = 2000;

const $ = (id) => document.getElementById(id);
const say = (id, text) => {
  if ($(id).textContent !== text) $(id).textContent = text;
};

const page = new URLSearchParams(location.search).get("page") ?? "welcome";
const text = new Text($("text"), typed);

let socket = null;
let pause = FIRST_PAUSE;
// Why the page is not there yet; null, if it is.
let waiting = "it is being loaded";
let connected = false;
let you = null;
// Numbers of edits: the last one, and up to which MongoDB has them, without those that it refused.
let last = 0;
let saved = 0;
let lost = 0;
let write = "";
let unsavedSince = null;

// Paragraphs whose latest text has not come back yet: which edit is on its way, if any, and whether more was typed since.
const pending = new Map();
let edits = 0;

function typed(key) {
  const here = pending.get(key) ?? { own: null };
  pending.set(key, { ...here, more: true });
  send(key);
  showMark();
}

// One edit of a paragraph at a time is on its way; what is typed meanwhile goes with the next.
function send(key) {
  const here = pending.get(key);
  if (waiting !== null || !here.more || here.own !== null) return;
  edits += 1;
  pending.set(key, { own: edits, more: false });
  socket.send(JSON.stringify({ paragraph: key, text: text.get(key), own: edits }));
}

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/socket/${encodeURIComponent(page)}`);
  socket.addEventListener("message", (event) => {
    const told = JSON.parse(event.data);
    hear[told.type]?.(told);
    showMark();
  });
  socket.addEventListener("close", (event) => {
    connected = false;
    waiting = event.reason || "the gateway does not answer";
    // What was on its way may have got lost. It is sent again, which does no harm: it says what the paragraph is.
    for (const key of pending.keys()) pending.set(key, { own: null, more: true });
    showMark();
    setTimeout(connect, pause * (0.5 + Math.random()));
    pause = Math.min(pause * 2, LONGEST_PAUSE);
  });
}

const hear = {
  waiting(told) {
    connected = true;
    waiting = told.why;
  },

  page(told) {
    connected = true;
    ({ you, last, saved, lost } = told);
    waiting = null;
    pause = FIRST_PAUSE;
    const gone = text.keys().filter((key) => told.paragraphs[key] === undefined);
    for (const [key, said] of [...Object.entries(told.paragraphs), ...gone.map((key) => [key, null])]) {
      if (!pending.has(key)) text.set(key, said, false);
    }
    if (text.keys().length === 0) text.set("", null, false);
    for (const key of pending.keys()) send(key);
  },

  // All edits come in the same order for everybody, our own as well.
  edit(told) {
    last = Math.max(last, told.number);
    for (const [key, said] of Object.entries(told.paragraphs)) {
      const here = pending.get(key);
      if (here === undefined) {
        text.set(key, said, true);
      } else if (told.by === you && told.own === here.own) {
        if (here.more) {
          pending.set(key, { own: null, more: true });
          send(key);
        } else {
          pending.delete(key);
        }
      }
      // Somebody else's, while ours is on its way: ours comes later, and wins.
    }
  },

  saved(told) {
    ({ saved, lost } = told);
    // What is known of the write, from tidegate's receipt.
    if (told.events !== undefined) {
      const together = told.events === 1 ? "one edit" : `${told.events.toLocaleString("en")} edits in one write`;
      const after = told.ms === undefined ? "" : ` after ${Math.round(told.ms).toLocaleString("en")} ms`;
      write = `in MongoDB${after}, ${together}`;
    }
  },

  refused(told) {
    $("refused").hidden = false;
    say("refused", `An edit was refused and is not saved: ${told.reason}`);
  },

  people({ people }) {
    say("people", people === 1 ? "nobody else is here" : `${people} windows have it open`);
  },
};

function mark() {
  const unsent = pending.size === 1 ? "one paragraph is" : `${pending.size} paragraphs are`;
  const here = pending.size > 0 ? `; ${unsent} only in this window` : "";
  if (waiting !== null && !connected) return ["bad", "not connected", `${waiting}${here}`];
  if (waiting !== null) return [pending.size > 0 ? "bad" : "busy", "loading…", `${waiting}${here}`];
  if (pending.size > 0) return ["busy", "saving…", "on its way to Redis"];
  if (saved < last) {
    const some = last - saved === 1 ? "one edit is" : `${(last - saved).toLocaleString("en")} edits are`;
    const late = unsavedSince !== null && performance.now() - unsavedSince > LASTS;
    return [late ? "late" : "busy", "saving…", `${some} safe in Redis, and not in MongoDB yet`];
  }
  if (lost > 0) return ["bad", "saved in part", `${lost} of ${last} edits were refused`];
  return ["ok", "saved", write];
}

let announcing = null;

function showMark() {
  const isSaved = waiting === null && pending.size === 0 && saved >= last;
  unsavedSince = isSaved ? null : (unsavedSince ?? performance.now());
  const [level, said, more] = mark();
  $("mark").dataset.level = level;
  say("mark-more", more);
  if ($("mark-text").textContent === said) return;
  say("mark-text", said);
  clearTimeout(announcing);
  announcing = setTimeout(() => say("announce", said), LASTS);
}

// Nothing of it is kept when the window is closed.
addEventListener("beforeunload", (event) => {
  if (pending.size > 0) event.preventDefault();
});

say("name", page);
document.title = page;
$("another").href = `/?page=page-${Math.random().toString(36).slice(2, 8)}`;
// For what takes long without a message to say so.
setInterval(showMark, 1000);
connect();
