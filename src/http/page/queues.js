// A row for each queue, with what happened to it in the last two minutes.

import { ago, cut, make, number, rate, say, show, span } from "/words.js";

const SVG = "http://www.w3.org/2000/svg";
const SECONDS = 120;
const WIDTH = 240;
const HEIGHT = 40;
const [ARRIVED, , SETTLED, , DEPTH] = [0, 1, 2, 3, 4];

const rows = new Map();

export function showQueues(body, queues, looks) {
  queues.forEach((queue, at) => {
    let row = rows.get(queue.key);
    if (!row) {
      row = newRow(queue);
      rows.set(queue.key, row);
    }
    if (body.children[at] !== row.node) body.insertBefore(row.node, body.children[at] ?? null);
    fill(row, queue, looks.map((look) => ({ at: look.at, figures: look.queues[at] })));
  });
  while (body.children.length > queues.length) body.lastElementChild.remove();
}

function newRow(queue) {
  const part = (name) => make("span", { class: name });
  const parts = {
    delivery: part("more"),
    owner: part("more"),
    depth: part("figure"),
    oldest: part("more"),
    backlog: chart(["depth"]),
    arrived: part("figure in"),
    settled: part("figure out"),
    flow: chart(["in", "out"]),
    within: part("figure"),
    half: part("more"),
    folding: part("figure"),
    foldingMore: part("more"),
    commit: part("figure"),
    lanes: make("span", { class: "lanes", "aria-hidden": "true" }),
    lanesSaid: part("more"),
  };
  const cell = (label, name, ...children) =>
    make("td", { role: "cell", "data-label": label, class: name }, ...children);
  const rates = make("span", { class: "rates" }, parts.arrived, parts.settled);
  const node = make(
    "tr",
    { role: "row" },
    make("th", { scope: "row", role: "rowheader" }, make("span", { class: "key" }, cut(queue.key, 200)), parts.delivery, parts.owner),
    cell("Waiting", "waiting", parts.depth, parts.oldest, parts.backlog.svg),
    cell("In and out, two minutes", "flow", rates, parts.flow.svg),
    cell("99 % durable within", "", parts.within, parts.half),
    cell("Folding", "folding", parts.folding, parts.foldingMore),
    cell("Last commit", "commit", parts.commit),
    cell("Lanes", "lanes-cell", parts.lanes, parts.lanesSaid),
  );
  return { node, ...parts };
}

function fill(row, queue, looks) {
  const owned = ["recovering", "active", "draining"].includes(queue.phase);
  const { recent } = queue;
  row.node.dataset.phase = queue.phase;
  say(row.delivery, owned && queue.epoch > 0 ? `${queue.delivery}, epoch ${number(queue.epoch)}` : queue.delivery);
  say(row.owner, owner(queue));
  say(row.depth, number(queue.depth));
  const waits = queue.oldest_age_seconds > 0;
  const young = queue.depth > 0 ? "just arrived" : "nothing waits";
  const seen = queue.phase === "connecting" ? "when last seen" : "age not known here";
  say(row.oldest, waits ? `oldest ${span(queue.oldest_age_seconds)}` : owned ? young : seen);
  row.oldest.classList.toggle("late", queue.oldest_age_seconds - queue.window_seconds >= 5);
  draw(row.backlog, looks, [looks.map((look) => [look.at, look.figures[DEPTH]])], "waiting");

  say(row.arrived, owned ? `${rate(recent.arrived_per_second)} in` : "– in");
  say(row.settled, owned ? `${rate(recent.settled_per_second)} out` : "– out");
  draw(row.flow, looks, [rates(looks, ARRIVED), rates(looks, SETTLED)], "a second");

  const all = recent.durable_within;
  say(row.within, all.p99 ? within(all.p99) : "–");
  say(row.half, all.half ? `half within ${within(all.half)}` : "no event in 10 s");
  say(row.folding, recent.events_per_write ? `${rate(recent.events_per_write)} to 1` : "–");
  say(row.foldingMore, recent.events_per_write ? "events a write" : "");
  const commit = queue.last_commit_seconds_ago;
  say(row.commit, commit === null ? "none yet" : ago(commit));
  showLanes(row, queue.lanes);
}

function owner(queue) {
  const time = span(queue.phase_seconds);
  switch (queue.phase) {
    case "active":
      return "owned by this instance";
    case "recovering":
      return "being taken over: settling what was read before";
    case "draining":
      return "flushing, then giving it up";
    case "standby":
      return `standing by: ${queue.owner ? cut(queue.owner, 100) : "another instance"} owns it`;
    case "paused": {
      const { by, reason } = queue.pause ?? {};
      return `paused${by ? ` by ${cut(by, 100)}` : ""} for ${time}${reason ? `: ${cut(reason, 200)}` : ""}`;
    }
    case "connecting":
      return `not owned: trying to take it over for ${time}`;
    default:
      return "given up";
  }
}

// No number is what is beyond all that is measured.
function within(bound) {
  return bound.seconds === null ? "over 1 min" : span(bound.seconds);
}

const DOINGS = [
  ["retrying", "retrying MongoDB"],
  ["writing", "writing"],
  ["limited", "held to batch.max_writes_per_second"],
  ["gathering", "gathering"],
  ["idle", "idle"],
];

function showLanes(row, lanes) {
  while (row.lanes.children.length < lanes.length) row.lanes.append(make("i"));
  lanes.forEach((lane, at) => {
    const { dataset } = row.lanes.children[at];
    if (dataset.doing !== lane.doing) dataset.doing = lane.doing;
  });
  const said = DOINGS.map(([doing, words]) => {
    const these = lanes.filter((lane) => lane.doing === doing);
    if (these.length === 0) return null;
    const longest = Math.max(...these.map((lane) => lane.for_seconds));
    // How long matters where somebody is waited for.
    const time = doing === "retrying" || (doing === "writing" && longest >= 1) ? ` for ${span(longest)}` : "";
    return `${these.length} ${words}${time}`;
  });
  say(row.lanesSaid, said.filter(Boolean).join(", "));
}

// What a total grew by, a second, between each two looks.
function rates(looks, column) {
  const points = [];
  for (let at = 1; at < looks.length; at += 1) {
    const [before, now] = [looks[at - 1], looks[at]];
    const time = now.at - before.at;
    if (time > 0) points.push([now.at, (now.figures[column] - before.figures[column]) / time]);
  }
  return points;
}

function chart(names) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.classList.add("chart");
  const lines = names.map((name) => {
    const [area, line] = ["area", "line"].map((kind) => {
      const path = document.createElementNS(SVG, "path");
      path.classList.add(kind, name);
      svg.append(path);
      return path;
    });
    return { area, line };
  });
  return { svg, lines };
}

function draw(chart, looks, series, unit) {
  const end = looks.at(-1)?.at ?? 0;
  const most = Math.max(1, ...series.flat().map(([, value]) => value));
  const x = (at) => (((at - end + SECONDS) / SECONDS) * WIDTH).toFixed(1);
  // A pixel above and below, for the line's width.
  const y = (value) => (HEIGHT - 1 - (value / most) * (HEIGHT - 2)).toFixed(1);
  series.forEach((points, at) => {
    const path = points.map(([time, value]) => `${x(time)} ${y(value)}`).join("L");
    const { area, line } = chart.lines[at];
    line.setAttribute("d", path && `M${path}`);
    area.setAttribute("d", path && `M${path}L${WIDTH} ${HEIGHT}L${x(points[0][0])} ${HEIGHT}Z`);
  });
  chart.svg.setAttribute("aria-label", `The last two minutes; at most ${number(most)} ${unit}`);
  show(chart.svg, looks.length > 1);
}
