// Numbers and times as people say them, and nodes made without any markup in text.

export function number(n) {
  return Math.round(n).toLocaleString("en-US");
}

// 60 ms, 2.5 s, 12 s, 3 min 20 s, 2 h 5 min, 4 d 3 h
export function span(seconds) {
  const two = (large, unit, small, smaller) => (small === 0 ? `${large} ${unit}` : `${large} ${unit} ${small} ${smaller}`);
  const whole = Math.floor(seconds);
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${Math.floor(seconds * 10) / 10} s`;
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return two(Math.floor(whole / 60), "min", whole % 60, "s");
  if (whole < 86400) return two(Math.floor(whole / 3600), "h", Math.floor((whole % 3600) / 60), "min");
  return two(Math.floor(whole / 86400), "d", Math.floor((whole % 86400) / 3600), "h");
}

export function ago(seconds) {
  return seconds < 1 ? "just now" : `${span(seconds)} ago`;
}

export function rate(perSecond) {
  return perSecond > 0 && perSecond < 9.95 ? perSecond.toFixed(1) : number(perSecond);
}

export function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB"];
  let at = 0;
  while (n >= 1024 && at < units.length - 1) {
    n /= 1024;
    at += 1;
  }
  return `${at === 0 || n >= 100 ? Math.round(n) : n.toFixed(1).replace(/\.0$/, "")} ${units[at]}`;
}

export function plural(n, one, many) {
  return `${number(n)} ${n === 1 ? one : many}`;
}

// The daemon bounds what it tells; this is in case it did not.
export function cut(text, length) {
  const whole = String(text ?? "");
  return whole.length > length ? `${whole.slice(0, length)}…` : whole;
}

// Children that are text become text, whatever is in it.
export function make(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// Only where it changed, so that what somebody selects stays selected.
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function show(node, visible) {
  if (node.hidden === visible) node.hidden = !visible;
}
