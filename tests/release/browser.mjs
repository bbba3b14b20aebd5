// Runs the page outside of a browser: `node browser.mjs PAGE` loads the module PAGE with a small document, reads steps
// from standard input and prints what each one shows. It knows only the parts of the DOM that the page uses, and has no
// way to make markup of text.

import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

class Node {
  constructor(name) {
    Object.assign(this, { name, children: [], attributes: {}, listeners: {}, value: "", checked: false, disabled: false });
  }
  setAttribute(key, value) {
    this.attributes[key] = String(value);
    if (key === "type") this.type = String(value);
  }
  getAttribute(key) {
    return this.attributes[key] ?? null;
  }
  append(...children) {
    for (const child of children) this.children.push(child instanceof Node ? child : String(child));
  }
  replaceChildren(...children) {
    this.children = [];
    this.append(...children);
  }
  addEventListener(event, act) {
    this.listeners[event] = act;
  }
  focus() {
    focused = this.attributes["aria-label"] ?? this.name;
  }
  get textContent() {
    return this.children.map((child) => (child instanceof Node ? child.textContent : child)).join("");
  }
  *all() {
    yield this;
    for (const child of this.children) if (child instanceof Node) yield* child.all();
  }
}

const script = JSON.parse(readFileSync(0, "utf-8"));
const places = { stack: new Node("p"), models: new Node("main") };
const timers = [];
const asked = [];
let focused = null;
let copied = null;
let answers = script.answers;

Object.assign(globalThis, {
  document: { hidden: false, createElement: (name) => new Node(name), getElementById: (id) => places[id] },
  location: { origin: script.origin },
  setTimeout: (act) => timers.push(act),
  fetch: async (path, options = {}) => {
    asked.push({ path, method: options.method ?? "GET", body: options.body ?? null });
    const answer = answers[path];
    if (answer === undefined) throw new TypeError("fetch failed");
    const { status = 200, text } = answer;
    return { ok: status < 400, status, text: async () => text };
  },
});
Object.defineProperty(globalThis, "navigator", { value: { clipboard: { writeText: async (text) => (copied = text) } } });

const settled = () => new Promise((done) => setImmediate(done));
const nodes = () => [...places.stack.all(), ...places.models.all()];
const named = (name) => nodes().filter((node) => node.name === name);
const inModel = (model) => named("article").find((node) => node.children[0].textContent === model);
const labelled = (model, label) =>
  [...inModel(model).all()].find((node) => node.attributes["aria-label"] === label || node.attributes.id === label);

const steps = {
  look: () => {},
  answer: ({ path, ...answer }) => (answers = { ...answers, [path]: answer }),
  break: ({ path }) => delete answers[path],
  wait: () => timers.pop()(),
  fill: ({ model, label, value }) => Object.assign(labelled(model, label), typeof value === "boolean" ? { checked: value } : { value }),
  write: ({ model, value }) => ([...inModel(model).all()].find((node) => node.name === "textarea").value = value),
  choose: ({ model, value }) => {
    const select = labelled(model, `version-${model}`);
    select.value = value;
    select.listeners.change();
  },
  press: ({ model, button, last = false }) => {
    const found = [...inModel(model).all()].filter((node) => node.name === "button" && node.textContent === button);
    found.at(last ? -1 : 0).listeners.click();
  },
};

function seen() {
  return {
    stack: places.stack.textContent,
    models: Object.fromEntries(named("article").map((node) => [node.children[0].textContent, text(node)])),
    fields: Object.fromEntries(
      named("article").map((node) => [
        node.children[0].textContent,
        [...node.all()]
          .filter((each) => ["input", "textarea"].includes(each.name))
          .map((each) => (each.type === "checkbox" ? each.checked : each.value)),
      ]),
    ),
    unlabelled: named("input").filter((node) => !node.attributes["aria-label"]).length,
    code: named("pre").map((node) => node.textContent),
    links: named("a").map((node) => node.attributes.href),
    elements: [...new Set(nodes().map((node) => node.name))].sort(),
    asked: asked.splice(0),
    focused,
    copied,
  };
}

function text(node) {
  return node.children.map((child) => (child instanceof Node ? text(child) : child)).filter(Boolean).join("|");
}

await import(pathToFileURL(process.argv[2]).href);
const shown = [];
for (const { step, ...rest } of script.steps) {
  steps[step](rest);
  for (let turn = 0; turn < 10; turn += 1) await settled();
  shown.push(seen());
}
process.stdout.write(JSON.stringify(shown));
