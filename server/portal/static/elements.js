// Elements of the page. Their text is always text.

import { isWeb } from "./calls.js";

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

// A link if the address is one of the web, else only its text.
export function link(url, text) {
  return url && isWeb(url) ? element("a", { href: url, rel: "noopener noreferrer" }, text) : text;
}

export function button(text, press, attributes = {}) {
  const made = element("button", { type: "button", ...attributes }, text);
  made.addEventListener("click", press);
  return made;
}

export function table(head, rows, caption) {
  const cells = (row) => row.map((each, place) => (place ? element("td", {}, each) : element("th", { scope: "row" }, each)));
  return element(
    "table",
    {},
    element("caption", {}, caption),
    element("thead", {}, element("tr", {}, ...head.map((each) => element("th", { scope: "col" }, each)))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...cells(row)))),
  );
}

// What may be wider than the page; the keyboard can scroll it.
export function scrolling(label, child) {
  return element("div", { class: "scroll", role: "region", "aria-label": label, tabindex: "0" }, child);
}

export function copyable(text) {
  const code = element("pre", { tabindex: "0" }, text);
  const said = element("span", { role: "status", class: "quiet" });
  const copy = button("Copy", async () => {
    try {
      await navigator.clipboard.writeText(text);
      said.replaceChildren(" copied");
    } catch {
      // Browsers have a clipboard for https and loopback only.
      getSelection().selectAllChildren(code);
      said.replaceChildren(" selected: copy it with the keyboard");
    }
  });
  return element("div", {}, code, copy, said);
}
