// The page: lists what is served, asks whether it is ready, and tries models out.
// What comes from a release or an answer only ever becomes text: nothing here writes markup.

import { commitUrl, isWeb, mainVersion, modelsOf, parse } from "./calls.js";
import { element, link, scrolling, table } from "./elements.js";
import { trial } from "./trial.js";

const REFRESH_SECONDS = 10;
const MOST_OPEN = 5;
const stack = document.getElementById("stack");
const main = document.getElementById("models");

async function read(path, options) {
  const response = await fetch(path, { cache: "no-store", ...options });
  if (!response.ok) {
    throw new Error(`${path} answers ${response.status}`);
  }
  return parse(await response.text());
}

async function start() {
  let served;
  try {
    served = await read("/portal/served.json");
  } catch (error) {
    say(`What is served is not known: ${error.message}. Reload the page to try again.`, "bad");
    return;
  }
  const states = new Map();
  const models = modelsOf(served);
  main.replaceChildren(...models.map((model) => article(model, states, models.length <= MOST_OPEN)));
  await refresh(served, states);
}

// Asks until what is served is no longer what the page lists.
async function refresh(served, states) {
  if (!document.hidden) {
    try {
      if (!show(served, states, await read("/mlapi/v2/repository/index", { method: "POST", body: "{}" }))) {
        return;
      }
    } catch (error) {
      states.forEach((cell) => setState(cell, "unknown", "quiet"));
      say(`Which models are ready is not known: ${error.message}.`, "bad");
    }
  }
  setTimeout(() => refresh(served, states), REFRESH_SECONDS * 1000);
}

function show(served, states, index) {
  const found = new Map(index.map((each) => [key(each.name, each.version), each.state === "READY"]));
  if (found.size !== served.length || served.some((each) => !found.has(key(each.model, each.version)))) {
    say("What is served has changed. ", "bad", element("a", { href: "/" }, "Reload the page"));
    return false;
  }
  for (const [name, cell] of states) {
    setState(cell, found.get(name) ? "ready" : "not ready", found.get(name) ? "good" : "bad");
  }
  const down = served.filter((each) => each.weight > 0 && !found.get(key(each.model, each.version)));
  if (down.length) {
    say(`Not ready: ${down.map((each) => `${each.model} ${each.version}`).join(", ")}`, "bad");
  } else {
    say("Every version with traffic is ready.", "good");
  }
  return true;
}

function key(model, version) {
  return `${model}/${version}`;
}

function say(text, kind, ...more) {
  // Only what is new, or a screen reader would read it each time.
  if (stack.textContent !== text) {
    stack.setAttribute("class", kind);
    stack.replaceChildren(text, ...more);
  }
}

function setState(cell, text, kind) {
  cell.setAttribute("class", kind);
  cell.replaceChildren(text);
}

function article(model, states, isOpen) {
  const rows = model.versions.map((version) => row(version, states));
  const head = ["Version", "Traffic", "State", "Deployed", "Release", "Served with"];
  const chosen = element("div");
  const select = versionChoice(model, (version, isPinned) =>
    chosen.replaceChildren(...aboutVersion(version), trial(model, version, isPinned)),
  );
  const name = `model-${model.name}`;
  return element(
    "article",
    { "aria-labelledby": name },
    element("h2", { id: name, translate: "no" }, model.name),
    scrolling(`Versions of ${model.name}`, table(head, rows, "Versions")),
    element("details", isOpen ? { open: "" } : {}, element("summary", {}, "Inputs, outputs, and a form to try it"), select, chosen),
  );
}

function row(version, states) {
  const state = element("span", { class: "quiet" }, "asking…");
  states.set(key(version.model, version.version), state);
  const packages = Object.entries(version.about.frameworks ?? {}).map((each) => each.join(" "));
  return [
    version.version,
    traffic(version),
    state,
    version.deployed ? element("time", { datetime: version.deployed }, localTime(version.deployed)) : "unknown",
    release(version.about.origin ?? {}),
    packages.join(", ") || version.about.implementation || "unknown",
  ];
}

function traffic(version) {
  if (version.shadow) {
    return element("span", { class: "mark" }, "shadow, gets copies");
  }
  return version.weight ? `${version.weight} %` : element("span", { class: "mark" }, "warm, no traffic");
}

function localTime(text) {
  const time = new Date(text);
  return Number.isNaN(time.getTime()) ? text : time.toLocaleString();
}

function release(origin) {
  const parts = [];
  if (origin.tag) {
    parts.push(origin.tag);
  }
  if (origin.commit) {
    parts.push(link(commitUrl(origin), `commit ${origin.commit.slice(0, 10)}`));
  }
  if (origin.pipeline) {
    parts.push(link(origin.pipeline, "pipeline"));
  }
  if (origin.repository && isWeb(origin.repository)) {
    parts.push(link(origin.repository, "repository"));
  }
  return parts.length ? element("span", {}, ...parts.flatMap((part, place) => (place ? [", ", part] : [part]))) : "unknown";
}

function versionChoice(model, choose) {
  const byWeight = mainVersion(model);
  const options = [
    element("option", { value: "" }, "by traffic"),
    ...model.versions.map((version, place) => element("option", { value: String(place) }, version.version)),
  ];
  const select = element("select", { id: `version-${model.name}` }, ...options);
  const chosen = () => (select.value === "" ? byWeight : model.versions[Number(select.value)]);
  select.addEventListener("change", () => choose(chosen(), select.value !== ""));
  choose(byWeight, false);
  return element("p", {}, element("label", { for: `version-${model.name}` }, "Version to look at: "), " ", select);
}

function aboutVersion(version) {
  const rows = ["inputs", "outputs"].flatMap((kind) =>
    (version.about[kind] ?? []).map((tensor) => [
      kind === "inputs" ? "input" : "output",
      tensor.name,
      tensor.datatype,
      `[${tensor.shape.join(", ")}]`,
    ]),
  );
  const title = element("h3", {}, `Inputs and outputs of ${version.version}`);
  if (!rows.length) {
    return [title, element("p", { class: "quiet" }, "The release does not describe them.")];
  }
  const caption = "In a shape, -1 is any size.";
  return [title, scrolling("Inputs and outputs", table(["", "Name", "Datatype", "Shape"], rows, caption))];
}

await start();
