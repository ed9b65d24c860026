// The paragraphs on the screen, in the order of their keys.

const LONGEST = 2000;
const LONGEST_KEY = 60;
const MOST = 200;

const letter = (n) => String.fromCharCode(97 + n);
const value = (key, at) => key.charCodeAt(at) - 97;

// A word that sorts between two others; "" and null stand for the beginning and the end. None ends with "a", so there
// always is one.
export function between(low, high) {
  let key = "";
  for (let at = 0; ; at += 1) {
    const from = at < low.length ? value(low, at) : 0;
    const to = high !== null && at < high.length ? value(high, at) : 26;
    // What comes last is followed closely: it will be followed often.
    if (high === null && at < low.length && from < 25) return key + letter(from + 1);
    if (to - from > 1) return key + letter((from + to) >> 1);
    key += letter(from);
    if (to > from) high = null;
  }
}

const word = (key) => key.split("-", 1)[0];

export class Text {
  // `typed` is called with a key and what the paragraph now says; null, if it is removed.
  constructor(node, typed) {
    this.node = node;
    this.typed = typed;
    node.addEventListener("input", (event) => {
      fit(event.target);
      this.typed(event.target.dataset.key, event.target.value);
    });
    node.addEventListener("keydown", (event) => this.pressed(event));
  }

  keys() {
    return [...this.node.children].map((area) => area.dataset.key);
  }

  get(key) {
    return this.area(key)?.value ?? null;
  }

  area(key) {
    return [...this.node.children].find((area) => area.dataset.key === key);
  }

  // What a paragraph says, as somebody else has it.
  set(key, text, touched) {
    let area = this.area(key);
    if (text === null) {
      if (area) this.remove(area);
    } else {
      area ??= this.add(key);
      if (area.value !== text) {
        const { selectionStart, selectionEnd } = area;
        area.value = text;
        fit(area);
        if (area === document.activeElement) area.setSelectionRange(selectionStart, selectionEnd);
      }
      if (touched) touch(area);
    }
    // There is always one to type into, the same for all.
    if (this.node.children.length === 0) this.add("m-first");
  }

  add(key) {
    const area = document.createElement("textarea");
    area.dataset.key = key;
    area.rows = 1;
    area.maxLength = LONGEST;
    area.setAttribute("aria-label", "Paragraph");
    area.spellcheck = false;
    const next = [...this.node.children].find((other) => other.dataset.key > key);
    this.node.insertBefore(area, next ?? null);
    return area;
  }

  remove(area) {
    const focused = area === document.activeElement;
    const neighbour = area.previousElementSibling ?? area.nextElementSibling;
    area.remove();
    if (focused) neighbour?.focus();
  }

  pressed(event) {
    const area = event.target;
    if (event.isComposing) return;
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      this.split(area);
    } else if (event.key === "Backspace" && area.value === "" && this.node.children.length > 1) {
      event.preventDefault();
      this.remove(area);
      this.typed(area.dataset.key, null);
    }
  }

  split(area) {
    // Two people who began a paragraph at the same place at once made equal words: behind both.
    const words = this.keys().map(word);
    const low = word(area.dataset.key);
    const key = between(low, words.find((other) => other > low) ?? null);
    if (this.node.children.length >= MOST || key.length > LONGEST_KEY) return;
    const rest = area.value.slice(area.selectionEnd);
    if (rest !== "" || area.selectionStart !== area.selectionEnd) {
      area.value = area.value.slice(0, area.selectionStart);
      fit(area);
      this.typed(area.dataset.key, area.value);
    }
    const added = this.add(`${key}-${Math.random().toString(36).slice(2, 8)}`);
    added.value = rest;
    fit(added);
    added.focus();
    added.setSelectionRange(0, 0);
    this.typed(added.dataset.key, rest);
  }
}

// For browsers that do not size fields by themselves.
function fit(area) {
  if (CSS.supports("field-sizing", "content")) return;
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight}px`;
}

function touch(area) {
  area.classList.add("touched");
  setTimeout(() => area.classList.remove("touched"), 600);
}
