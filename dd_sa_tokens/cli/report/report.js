"use strict";
// Makes the table of tokens sortable. The page can be read without it.
const table = document.getElementById("all");
const body = table.tBodies[0];
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
    const rows = Array.from(body.rows, (row) => {
      const text = row.cells[column].textContent.trim();
      return [row, column === 1 ? String(ranks.get(text.split(" ").pop())) : text];
    });
    rows.sort((one, other) => (down ? compare(other[1], one[1]) : compare(one[1], other[1])));
    body.append(...rows.map(([row]) => row));
  });
});
