// "Try it": a form of a version's inputs, its answer, and the same call as code.

import * as calls from "./calls.js";
import { button, copyable, element, scrolling, table } from "./elements.js";

const SHOWN = 400;
const EMPTY = { inputs: [{ name: "", shape: [1], datatype: "FP32", data: [0] }] };
let ids = 0;

export function trial(model, version, isPinned) {
  const form = calls.formOf(version.about);
  // Without inputs and an example, the whole request is written as JSON.
  const parts = form.length ? form.map(part) : [whole()];
  const answer = element("div", { "aria-live": "polite" });
  const code = element("div");
  const pinned = isPinned ? version.version : "";
  const requested = () => {
    const filled = parts.map((each) => each.read());
    return form.length ? calls.requestOf(version.about, form, filled) : filled[0];
  };
  const attempt = async (act) => {
    try {
      await act(requested());
    } catch (error) {
      answer.replaceChildren(problem(error.message));
    }
  };
  const send = button("Send", () => attempt((request) => ask(model, pinned, request, send, answer)), { class: "main" });
  const show = button("Show as code", () => attempt((request) => code.replaceChildren(...codes(model, pinned, version, request))));
  const to = isPinned ? `version ${version.version}` : "the version that the traffic's weights choose";
  return element(
    "section",
    { "aria-label": `Try ${model.name}` },
    element("h3", {}, "Try it"),
    element("p", { class: "quiet" }, `Asks ${to}.`),
    ...parts.map((each) => each.element),
    element("div", { class: "buttons" }, send, show),
    answer,
    code,
  );
}

function problem(text) {
  return element("p", { class: "problem", role: "alert" }, text);
}

// Parts of the form: each has an element, and reads what is in it

function whole() {
  return written("The request, as JSON", JSON.stringify(EMPTY), "request");
}

function part(described) {
  return described.text === undefined ? grid(described) : written("Input, as JSON", described.text, "input");
}

function written(label, text, noun) {
  const id = `field-${(ids += 1)}`;
  const area = element("textarea", { id, spellcheck: "false" });
  area.value = text;
  const read = () => {
    try {
      const value = calls.parse(area.value);
      mark(area, false);
      return value;
    } catch (error) {
      mark(area, true);
      throw new Error(`The ${noun} is not JSON: ${error.message}`);
    }
  };
  return { element: element("p", {}, element("label", { for: id }, label), area), read };
}

function grid(described) {
  const rows = described.rows.map((values) => cellsOf(described, values));
  const body = element("tbody");
  const add = button("Add row", () => change(() => rows.push(cellsOf(described, rows.at(-1).map(contentOf)))));
  const remove = button("Remove row", () => change(() => rows.pop()));
  const change = (act) => {
    act();
    draw();
  };
  const draw = () => {
    rows.forEach((cells, row) => cells.forEach((cell, place) => label(cell, described, row, place)));
    body.replaceChildren(...rows.map((cells, place) => rowOf(cells, place)));
    add.disabled = rows.length >= calls.MOST_ROWS;
    remove.disabled = rows.length === 1;
  };
  draw();
  const head = ["Row", ...described.columns.map((column) => column.label)].map((text) => element("th", { scope: "col" }, text));
  const made = element("table", {}, element("thead", {}, element("tr", {}, ...head)), body);
  const title = calls.titleOf(described);
  const buttons = described.isFixed ? [] : [element("div", { class: "buttons" }, add, remove)];
  return {
    element: element("fieldset", {}, element("legend", {}, title), scrolling(title, made), ...buttons),
    read: () => rows.map((cells, row) => cells.map((cell, place) => valueIn(cell, described.columns[place], row))),
  };
}

function rowOf(cells, place) {
  const number = element("th", { scope: "row" }, String(place + 1));
  return element("tr", {}, number, ...cells.map((cell) => element("td", {}, cell)));
}

function cellsOf(described, values) {
  return described.columns.map((column, place) => cellOf(column.datatype, values[place]));
}

function cellOf(datatype, value) {
  if (datatype === "BOOL") {
    const box = element("input", { type: "checkbox" });
    box.checked = Boolean(value);
    return box;
  }
  const isText = datatype === "BYTES";
  const keys = isText ? {} : { inputmode: "decimal", autocomplete: "off" };
  const field = element("input", { type: "text", class: isText ? "cell wide" : "cell number", ...keys });
  field.value = calls.textOf(value);
  return field;
}

function contentOf(cell) {
  return cell.type === "checkbox" ? cell.checked : cell.value;
}

function label(cell, described, row, place) {
  const { label: column } = described.columns[place];
  const name = described.tensors.length > 1 ? column : `${described.tensors[0].name}, ${column}`;
  cell.setAttribute("aria-label", `${name}, row ${row + 1}`);
}

function valueIn(cell, column, row) {
  if (column.datatype === "BOOL") {
    return cell.checked;
  }
  try {
    const value = calls.valueOf(cell.value, column.datatype);
    mark(cell, false);
    return value;
  } catch (error) {
    mark(cell, true);
    cell.focus();
    throw new Error(`Row ${row + 1}, column ${column.label}: ${error.message}.`);
  }
}

function mark(field, isWrong) {
  field.setAttribute("aria-invalid", String(isWrong));
}

// The answer

async function ask(model, version, request, send, answer) {
  if (send.getAttribute("aria-disabled") === "true") {
    return;
  }
  // Not disabled, or it would lose the keyboard's focus.
  send.setAttribute("aria-disabled", "true");
  answer.replaceChildren(element("p", { class: "quiet" }, "Waiting for the answer…"));
  try {
    answer.replaceChildren(...(await answered(calls.pathOf(model.name, version), calls.toJson(request))));
  } finally {
    send.setAttribute("aria-disabled", "false");
  }
}

async function answered(path, body) {
  const began = performance.now();
  let response, text;
  try {
    response = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body });
    text = await response.text();
  } catch (error) {
    return [problem(`No answer: ${error.message}. The gateway cannot be reached, or has closed the connection.`)];
  }
  const took = `${Math.round(performance.now() - began)} ms`;
  let document = null;
  try {
    document = calls.parse(text);
  } catch {
    // Of a proxy, not of the model.
  }
  if (!response.ok || !isAnswer(document)) {
    const reason = typeof document?.error === "string" ? document.error : text;
    return [problem(`Error ${response.status} after ${took}: ${short(reason) || "no reason given"}`)];
  }
  const by = document.model_version ? `Version ${document.model_version} answered` : "Answered";
  return [element("p", { class: "good" }, `${by} in ${took}.`), ...tables(document.outputs), asJson(text)];
}

function isAnswer(document) {
  return Array.isArray(document?.outputs) && document.outputs.every((each) => Array.isArray(each?.shape));
}

function short(text) {
  return text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text;
}

function tables(outputs) {
  return calls.tablesOf(outputs).flatMap(({ columns, rows, isWhole }) => {
    const numbered = rows.map((row, place) => [String(place + 1), ...row]);
    const shown = scrolling("Answer", table(["Row", ...columns], numbered, "Answer"));
    return isWhole ? [shown] : [shown, element("p", { class: "quiet" }, "The table is cut off; the JSON is whole.")];
  });
}

function asJson(text) {
  return element("details", {}, element("summary", {}, "Answer as JSON"), copyable(text));
}

function codes(model, version, described, request) {
  const url = location.origin + calls.pathOf(model.name, version);
  const outputs = described.about.outputs;
  return [
    ["curl", calls.curl(url, request)],
    ["Python, requests", calls.requests(url, request)],
    ["Python, tritonclient", calls.tritonclient(location.origin, model.name, version, request, outputs)],
    ...(described.grpc
      ? [["Python, tritonclient over gRPC", calls.grpc(location.origin, model.name, version, request, outputs)]]
      : []),
  ].map(([title, text]) => element("details", { open: "" }, element("summary", {}, title), copyable(text)));
}
