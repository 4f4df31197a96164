"use strict";
// Makes the table of tokens sortable, and filters it and the timeline. The page can be read without it.
const table = document.getElementById("all");
const bodies = [...table.tBodies].map((body) => [body, [...body.rows].filter((row) => row.id)]);
const ranks = new Map(["critical", "high", "medium", "low", "info", "fine"].map((level, rank) => [level, rank]));
const headers = [...table.tHead.rows[0].cells];
const compare = new Intl.Collator(undefined, { numeric: true }).compare;
headers.forEach((header, column) => {
  const button = document.createElement("button");
  button.append(...header.childNodes);
  header.append(button);
  button.addEventListener("click", () => {
    const down = header.getAttribute("aria-sort") === "ascending";
    for (const other of headers) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", down ? "descending" : "ascending");
    for (const [body, members] of bodies) {
      const rows = members.map((row) => {
        const text = row.cells[column].textContent.trim();
        return [row, column === 1 ? String(ranks.get(text.split(" ").pop())) : text];
      });
      rows.sort((one, other) => (down ? compare(other[1], one[1]) : compare(one[1], other[1])));
      body.append(...rows.map(([row]) => row));
    }
  });
});

// Each row of a timeline has a bar, perhaps a dot and a name. Those of hidden rows make room: the others move up.
const timelines = Array.from(document.querySelectorAll(".account"), (account) => {
  const elements = new Map();
  for (const element of account.querySelectorAll("[data-t]")) {
    if (!elements.has(element.dataset.t)) elements.set(element.dataset.t, []);
    elements.get(element.dataset.t).push(element);
  }
  const rows = Array.from(account.querySelectorAll("path[data-t]"), (bar) => {
    return { id: `t${bar.dataset.t}`, height: Number(bar.dataset.h), elements: elements.get(bar.dataset.t) };
  });
  const groups = new Map(Array.from(account.querySelectorAll(".group"), (text) => [Number(text.dataset.first), text]));
  const drawings = [...account.querySelectorAll(".timeline > svg")];
  return { account, rows, groups, drawings, height: drawings.length && Number(drawings[0].getAttribute("height")) };
});
const place = (element, shown, up) => {
  element.toggleAttribute("hidden", !shown);
  element.style.translate = `0 ${-up}px`;
};
const filterTimeline = ({ account, rows, groups, drawings, height }, shown, all) => {
  let up = 0;
  rows.forEach((row, index) => {
    const group = groups.get(index);
    if (group) {
      const some = rows.slice(index, index + Number(group.dataset.rows)).some(({ id }) => shown.has(id));
      if (!some) up += Number(group.dataset.h);
      place(group, some, up);
    }
    const matches = shown.has(row.id);
    if (!matches) up += row.height;
    for (const element of row.elements) place(element, matches, up);
  });
  for (const drawing of drawings) drawing.setAttribute("height", height - up);
  account.hidden = !all && !rows.some(({ id }) => shown.has(id));
};
const texts = new Map();
for (const [body, members] of bodies) {
  const owner = body.querySelector(".owner");
  const only = document.querySelector(".account h3");
  for (const row of members) texts.set(row, `${(owner || only).textContent} ${row.textContent}`.toLowerCase());
}
const box = document.getElementById("filter");
const filter = () => {
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  const shown = new Set();
  for (const [body, members] of bodies) {
    let some = words.length === 0;
    for (const row of members) {
      row.hidden = !words.every((word) => texts.get(row).includes(word));
      if (!row.hidden) some = shown.add(row.id);
    }
    body.hidden = !some;
  }
  for (const timeline of timelines) filterTimeline(timeline, shown, words.length === 0);
  box.parentElement.querySelector("output").textContent = words.length ? `${shown.size} of ${texts.size} tokens` : "";
};
box.parentElement.hidden = false;
box.addEventListener("input", filter);
filter(); // a browser may restore the text of a page that it shows again
