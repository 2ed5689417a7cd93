// The list: only the rows in view exist as elements, and they are used again while it scrolls.
const rowHeight = 30;
const filter = { given: -1, suggested: -1, changed: false, decision: "", low: null, high: null, text: "" };
const sort = { key: "suspect", descending: true };
let matching = suspects; // listed rows in order
let cursor = 0; // place of the selected row in it
let selected = total ? suspects[0] : -1;
const pool = [];

const hasPictures = Object.keys(data.pictures).length > 0;
const columns = [
  { key: "row", title: "row", kind: "number", value: (k) => String(rowOf(k)) },
  ...(hasPictures ? [{ key: "picture", title: "", kind: "picture" }] : []),
  { key: "given", title: "given", kind: "name", value: (k) => names[given[k]] },
  { key: "suggested", title: "suggested", kind: "name", value: (k) => names[suggested[k]] },
  ...Object.keys(measures).map((name) => ({
    key: name,
    title: measureNames[name],
    hint: measureTitles[name],
    kind: "number" + (name === mainMeasure ? "" : " extra"),
    value: (k) => number(measures[name][k]),
  })),
  ...(data.paths ? [{ key: "path", title: "path", kind: "path extra", value: (k) => data.paths[k] }] : []),
  { key: "decision", title: "decision", kind: "decision", value: decisionText },
];

function decisionText(k) {
  const decision = decisionOf(k);
  if (!decision) return "";
  return decision.kind === "relabel" ? `relabeled ${names[decision.label]}` : kindWords[decision.kind];
}

function buildHead(sortBy) {
  for (const column of columns) {
    const cell = document.createElement("div");
    cell.setAttribute("role", "columnheader");
    cell.className = column.kind;
    if (column.title) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = column.title;
      if (column.hint) button.title = column.hint;
      button.addEventListener("click", () => sortBy(column.key));
      cell.setAttribute("aria-sort", "none");
      cell.dataset.key = column.key;
      cell.append(button);
    }
    element("grid-head").append(cell);
  }
  const widths = { number: "4.6rem", picture: "2.4rem", name: "minmax(5rem, 1fr)", path: "minmax(8rem, 3fr)", decision: "7.5rem" };
  const narrower = { ...widths, number: "4.4rem", name: "minmax(4.7rem, 1fr)", decision: "5.4rem" };
  const template = (list, wide) => list.map((column) => wide[column.kind.split(" ")[0]]).join(" ");
  element("grid").style.setProperty("--wide", template(columns, widths));
  const few = columns.filter((column) => !column.kind.endsWith("extra") && column.key !== "row");
  element("grid").style.setProperty("--narrow", template(few, narrower));
}

function markSort() {
  for (const cell of element("grid-head").children) {
    if (!cell.dataset.key) continue;
    cell.setAttribute("aria-sort", cell.dataset.key !== sort.key ? "none" : sort.descending ? "descending" : "ascending");
  }
}

function poolRow(place) {
  const size = Math.ceil(element("grid-view").clientHeight / rowHeight) + 12;
  while (pool.length < size) {
    const row = document.createElement("div");
    row.setAttribute("role", "row");
    row.className = "row";
    row.id = "row-" + pool.length;
    for (const column of columns) {
      const cell = document.createElement("div");
      cell.setAttribute("role", "gridcell");
      cell.className = column.kind;
      if (column.kind === "picture") cell.append(document.createElement("img"));
      row.append(cell);
    }
    element("grid-body").append(row);
    pool.push(row);
  }
  return pool[place % pool.length];
}

function fillRow(row, place) {
  const k = matching[place];
  const shown = `${k} ${place} ${place === cursor} ${decisionText(k)}`;
  if (row.hidden) row.hidden = false;
  if (row.shown === shown) return; // while scrolling most rows stay what they are
  row.shown = shown;
  row.dataset.place = place;
  row.style.transform = `translateY(${place * rowHeight}px)`;
  row.setAttribute("aria-rowindex", place + 2);
  row.setAttribute("aria-selected", place === cursor);
  row.classList.toggle("differs", given[k] !== suggested[k]);
  row.dataset.decision = decisionOf(k) ? decisionOf(k).kind : "";
  columns.forEach((column, c) => {
    const cell = row.children[c];
    if (column.kind === "picture") {
      const image = cell.firstChild, source = pictureOf(rowOf(k));
      image.hidden = !source;
      image.alt = "";
      if (source && image.dataset.row !== String(rowOf(k))) {
        image.src = source;
        image.dataset.row = rowOf(k);
      }
    } else {
      const text = column.value(k);
      if (cell.textContent !== text) cell.textContent = text;
      if (column.kind.startsWith("name") || column.kind.startsWith("path")) cell.title = text;
    }
  });
}

function renderRows() {
  const view = element("grid-view");
  poolRow(0);
  const first = Math.max(0, Math.floor(view.scrollTop / rowHeight) - 5);
  const last = Math.min(matching.length, first + pool.length);
  const used = new Set();
  for (let place = first; place < last; place++) {
    const row = poolRow(place);
    fillRow(row, place);
    used.add(row);
  }
  for (const row of pool) if (!used.has(row) && !row.hidden) row.hidden = true;
  const active = cursor >= first && cursor < last ? poolRow(cursor).id : "";
  if (active) element("grid").setAttribute("aria-activedescendant", active);
  else element("grid").removeAttribute("aria-activedescendant");
}

function refilter() {
  matching = matchingRows(filter, sort);
  cursor = Math.max(matching.indexOf(selected), 0);
  selected = matching.length ? matching[cursor] : -1;
  element("grid-body").style.height = matching.length * rowHeight + "px";
  element("grid").setAttribute("aria-rowcount", matching.length + 1);
  element("matching").textContent = `${matching.length.toLocaleString("en")} of ${total.toLocaleString("en")} rows`;
  element("grid").classList.toggle("empty", matching.length === 0);
  markSort();
  reveal();
  showDetail();
}

function reveal() {
  const view = element("grid-view");
  const top = cursor * rowHeight, bottom = top + rowHeight;
  if (top < view.scrollTop) view.scrollTop = top;
  else if (bottom > view.scrollTop + view.clientHeight) view.scrollTop = bottom - view.clientHeight;
  renderRows();
}

function moveTo(place) {
  if (!matching.length) return;
  cursor = Math.min(Math.max(place, 0), matching.length - 1);
  selected = matching[cursor];
  reveal();
  showDetail();
}

// The selected row at length.
function showDetail() {
  const box = element("detail");
  const known = selected >= 0;
  box.classList.toggle("nothing", !known);
  if (!known) {
    element("detail-title").textContent = "No row";
    return;
  }
  const k = selected, source = pictureOf(rowOf(k));
  element("detail-title").textContent = `Row ${rowOf(k).toLocaleString("en")}`;
  element("detail-path").textContent = data.paths ? data.paths[k] : "";
  element("detail-image").hidden = !source;
  if (source) element("detail-image").src = source;
  element("detail-image").alt = source ? `Image of row ${rowOf(k)}` : "";
  element("detail-none").hidden = Boolean(source) || !hasPictures;
  element("detail-given").textContent = names[given[k]];
  element("detail-suggested").textContent = names[suggested[k]];
  for (const name of Object.keys(measures)) element("detail-" + name).textContent = number(measures[name][k]);
  element("detail-decision").textContent = decisionText(k) || "undecided";
  element("detail").dataset.decision = decisionOf(k) ? decisionOf(k).kind : "";
  element("undo").disabled = history.length === 0;
  element("relabel").value = "";
}

function buildDetail() {
  const box = element("detail");
  const add = (tag, attributes, ...children) => {
    const node = Object.assign(document.createElement(tag), attributes);
    node.append(...children);
    return node;
  };
  const pair = (title, id) => add("div", {}, add("dt", {}, title), add("dd", { id }));
  box.append(
    add("h3", { id: "detail-title" }),
    add("p", { id: "detail-path", className: "note" }),
    add("div", { className: "picture" }, add("img", { id: "detail-image" }), add("span", { id: "detail-none", className: "note" }, "no picture in this page")),
    add("dl", {}, pair("given", "detail-given"), pair("suggested", "detail-suggested"),
      ...Object.keys(measures).map((name) => pair(measureTitles[name], "detail-" + name)), pair("decision", "detail-decision")),
    add("div", { className: "buttons" },
      add("button", { type: "button", id: "accept" }, "Accept"), add("button", { type: "button", id: "reject" }, "Reject"),
      add("button", { type: "button", id: "undo" }, "Undo")),
    add("label", {}, "Another label ", add("select", { id: "relabel" }, add("option", { value: "" }, "choose"), ...names.map((name, c) => add("option", { value: String(c) }, name)))),
  );
}
