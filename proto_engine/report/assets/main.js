// Puts the parts together: what happens on clicks, keys and changes.
function announce() {
  const counts = countDecisions();
  const parts = [`${counts.accept.toLocaleString("en")} accepted`, `${counts.reject.toLocaleString("en")} rejected`];
  if (counts.relabel) parts.push(`${counts.relabel.toLocaleString("en")} relabeled`);
  element("progress").textContent = parts.join(" \u00b7 ");
  element("download").disabled = decisions.size === 0;
}

let painting = 0;
function afterDecision() {
  announce();
  renderRows();
  showDetail();
  markGallery();
  cancelAnimationFrame(painting);
  painting = requestAnimationFrame(() => {
    paintMatrices();
    element("after-changed").textContent = countChanges(data.changed).toLocaleString("en");
  });
}

function decideSelected(kind, label) {
  if (selected < 0) return;
  decide(selected, kind, label);
  if (cursor + 1 < matching.length) moveTo(cursor + 1);
  afterDecision();
}

function undoLast() {
  const row = undo();
  if (row < 0) return;
  const place = matching.indexOf(placeOf(row));
  if (place >= 0) moveTo(place);
  afterDecision();
}

function sortBy(key) {
  const first = key in measures; // numbers first read downwards
  sort.descending = sort.key === key ? !sort.descending : first;
  sort.key = key;
  element("grid-view").scrollTop = 0;
  refilter();
  moveTo(0);
}

function readFilters() {
  const bound = (id) => (element(id).value === "" ? null : Number(element(id).value));
  const chosen = (id) => (element(id).value === "" ? -1 : Number(element(id).value));
  filter.given = chosen("filter-given");
  filter.suggested = chosen("filter-suggested");
  filter.decision = element("filter-decision").value;
  filter.changed = element("filter-changed").checked;
  filter.low = bound("filter-low");
  filter.high = bound("filter-high");
  filter.text = element("filter-text").value;
  refilter();
}

function listOnly(g, s) {
  element("filters").reset();
  element("filter-given").value = g;
  element("filter-suggested").value = s;
  readFilters();
  element("rows").scrollIntoView();
}

function chooseRow(k) {
  let place = matching.indexOf(k);
  if (place < 0) {
    element("filters").reset();
    readFilters();
    place = matching.indexOf(k);
  }
  moveTo(place);
  element("rows").scrollIntoView();
  element("grid").focus({ preventScroll: true });
}

function onKey(event) {
  const target = event.target;
  if (event.ctrlKey || event.metaKey || event.altKey || !element("keys-on").checked) return;
  if (target.closest?.("input:not([type=checkbox]):not([type=radio]), select, textarea")) return;
  const page = Math.max(1, Math.floor(element("grid-view").clientHeight / rowHeight) - 1);
  const anywhere = { j: () => moveTo(cursor + 1), k: () => moveTo(cursor - 1), a: () => decideSelected("accept"), r: () => decideSelected("reject"), u: undoLast };
  const inList = {
    ArrowDown: anywhere.j,
    ArrowUp: anywhere.k,
    PageDown: () => moveTo(cursor + page),
    PageUp: () => moveTo(cursor - page),
    Home: () => moveTo(0),
    End: () => moveTo(matching.length - 1),
  };
  const action = anywhere[event.key] || (target === element("grid") && inList[event.key]);
  if (!action) return;
  event.preventDefault();
  action();
}

function fillSelects() {
  const used = [given, suggested].map((labels) => new Set(labels));
  ["filter-given", "filter-suggested"].forEach((id, which) => {
    names.forEach((name, c) => { if (used[which].has(c)) element(id).append(new Option(name, String(c))); });
  });
  element("range-name").textContent = measureTitles[mainMeasure];
}

function start() {
  load();
  fillSelects();
  buildHead(sortBy);
  buildDetail();
  const view = element("grid-view");
  view.addEventListener("scroll", () => requestAnimationFrame(renderRows), { passive: true });
  new ResizeObserver(renderRows).observe(view);
  element("grid-body").addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (row) moveTo(Number(row.dataset.place));
  });
  element("filters").addEventListener("input", readFilters);
  element("filters").addEventListener("submit", (event) => event.preventDefault());
  element("filters").addEventListener("reset", () => setTimeout(readFilters));
  element("suspect-order").addEventListener("click", () => {
    sort.key = "suspect";
    refilter();
    moveTo(0);
  });
  element("accept").addEventListener("click", () => decideSelected("accept"));
  element("reject").addEventListener("click", () => decideSelected("reject"));
  element("undo").addEventListener("click", undoLast);
  element("relabel").addEventListener("change", (event) => {
    if (event.target.value !== "") decideSelected("relabel", Number(event.target.value));
  });
  element("download").addEventListener("click", download);
  document.addEventListener("keydown", onKey);
  addEventListener("pagehide", saveNow);
  for (const svg of document.querySelectorAll("svg.matrix")) {
    svg.addEventListener("click", ({ target }) => {
      if (target.dataset.given === undefined) return;
      const [g, s] = [shownClasses[target.dataset.given], shownClasses[target.dataset.suggested]];
      listOnly(svg.id === "before" ? g : "", s);
    });
  }
  for (const radio of document.getElementsByName("cells")) {
    radio.addEventListener("change", () => {
      asCounts = radio.value === "counts";
      paintMatrices();
    });
  }
  element("undecided").addEventListener("change", (event) => {
    undecidedRows = event.target.value;
    afterDecision();
  });
  const table = element("class-table");
  [...table.tHead.rows[0].cells].forEach((head, column) => head.firstChild.addEventListener("click", () => sortTable(table, column)));
  table.tBodies[0].addEventListener("click", ({ target }) => {
    if (target.dataset.class !== undefined) listOnly(target.dataset.class, "");
  });
  data.graphs.forEach(([c], place) => element("graph-class").append(new Option(names[c], String(place))));
  element("graph-class").addEventListener("change", (event) => drawGraph(...data.graphs[event.target.value]));
  if (data.graphs.length) drawGraph(...data.graphs[0]);
  showMore(chooseRow);
  element("more").addEventListener("click", () => showMore(chooseRow));
  showPrototypes();
  readFilters();
  showKept();
  afterDecision();
}

start();
