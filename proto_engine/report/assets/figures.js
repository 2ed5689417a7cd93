// The noise matrices, the table of classes and the decision graph.
const svgNamespace = "http://www.w3.org/2000/svg";
const shownClasses = data.matrix.classes;
const shownPlace = new Map(shownClasses.map((c, place) => [c, place]));

// Label after the decisions by suggested label. Rows that are not listed count as undecided.
function countsAfter(undecided) {
  const size = shownClasses.length;
  const counts = data.matrix.counts.slice();
  const move = (from, to, s) => {
    if (s === undefined || from === to) return;
    if (from !== undefined) counts[from * size + s] -= 1;
    if (to !== undefined) counts[to * size + s] += 1;
  };
  if (undecided === "suggested") {
    for (let s = 0; s < size; s++) {
      let sum = 0;
      for (let g = 0; g < size; g++) {
        sum += counts[g * size + s];
        counts[g * size + s] = 0;
      }
      counts[s * size + s] = sum;
    }
  }
  for (const [row, { label }] of decisions) {
    const k = placeOf(row);
    const start = undecided === "suggested" ? suggested[k] : given[k];
    const s = shownPlace.get(suggested[k]);
    // A row given a class that is not shown is in no cell, whichever label it takes first.
    if (shownPlace.has(given[k])) move(shownPlace.get(start), shownPlace.get(label), s);
  }
  return counts;
}

function shareText(share) {
  const percent = 100 * share;
  if (percent === 0) return "";
  return percent >= 9.95 ? percent.toFixed(0) : percent.toFixed(1);
}

function paintMatrix(svg, counts, asCounts, verb) {
  const size = shownClasses.length;
  const largest = Number(svg.dataset.largest);
  const texts = svg.querySelectorAll("text.value");
  svg.querySelectorAll("rect").forEach((rect, cell) => {
    const g = Math.floor(cell / size), s = cell % size;
    let sum = 0;
    for (let k = 0; k < size; k++) sum += counts[g * size + k];
    const share = sum ? counts[cell] / sum : 0;
    const off = 0.04 + 0.8 * Math.min(share / (largest || 1), 1) ** 0.8;
    rect.setAttribute("fill-opacity", (g === s ? 0.06 + 0.5 * share : off).toFixed(2));
    rect.firstChild.textContent =
      `${verb} ${names[shownClasses[g]]}, suggested ${names[shownClasses[s]]}: ${counts[cell].toLocaleString("en")} (${(100 * share).toFixed(1)} %)`;
    if (texts.length) texts[cell].textContent = asCounts ? (counts[cell] ? counts[cell].toLocaleString("en") : "") : shareText(share);
  });
}

let undecidedRows = "given";
let asCounts = false;

function paintMatrices() {
  if (element("before")) {
    paintMatrix(element("before"), data.matrix.counts, asCounts, "given");
    paintMatrix(element("after"), countsAfter(undecidedRows), asCounts, "labeled");
  }
}

// How many labels differ from the given ones once the decisions are applied.
let suggestedChanges = 0;
function countChanges(all) {
  let changes = undecidedRows === "suggested" ? all : 0;
  for (const [row, { label }] of decisions) {
    const k = placeOf(row);
    if (undecidedRows === "suggested" && given[k] !== suggested[k]) changes -= 1;
    if (label !== given[k]) changes += 1;
  }
  return changes;
}

function sortTable(table, column) {
  const heads = [...table.tHead.rows[0].cells];
  const before = heads[column].getAttribute("aria-sort");
  // Names first read upwards, numbers downwards.
  const descending = before === "none" ? column > 0 : before === "ascending";
  heads.forEach((head, k) => head.setAttribute("aria-sort", k !== column ? "none" : descending ? "descending" : "ascending"));
  const sign = descending ? -1 : 1;
  const rows = [...table.tBodies[0].rows].map((row, place) => {
    const text = row.cells[column].dataset.value;
    return { row, place, text, value: text === "" ? NaN : Number(text) };
  });
  rows.sort((a, b) => {
    if (column === 0) return sign * (a.text < b.text ? -1 : a.text > b.text ? 1 : 0) || a.place - b.place;
    if (Number.isNaN(a.value) || Number.isNaN(b.value)) return Number.isNaN(a.value) - Number.isNaN(b.value) || a.place - b.place;
    return sign * (a.value - b.value) || a.place - b.place;
  });
  table.tBodies[0].append(...rows.map(({ row }) => row));
}

const plot = { left: 52, top: 10, width: 460, height: 240 };

function draw(parent, tag, attributes, text) {
  const node = document.createElementNS(svgNamespace, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  parent.append(node);
  return node;
}

function drawGraph(c, packed) {
  const [rho, eta, markedRho, markedEta] = packed.map((text) => decode(text, Float32Array));
  const { left, top, width, height } = plot;
  const ends = (a, b) => {
    let low = Infinity, high = -Infinity;
    for (const array of [a, b]) for (const value of array) if (Number.isFinite(value)) { low = Math.min(low, value); high = Math.max(high, value); }
    return low < high ? [low, high] : Number.isFinite(low) ? [low - 0.5, low + 0.5] : [0, 1];
  };
  const [rhoLow, rhoHigh] = ends(rho, markedRho), [etaLow, etaHigh] = ends(eta, markedEta);
  const x = (value) => left + 6 + ((width - 12) * (value - rhoLow)) / (rhoHigh - rhoLow);
  const y = (value) => top + height - 6 - ((height - 12) * (value - etaLow)) / (etaHigh - etaLow);
  const svg = document.createElementNS(svgNamespace, "svg");
  const box = { width: left + width + 12, height: top + height + 40 };
  for (const [name, value] of Object.entries({ ...box, viewBox: `0 0 ${box.width} ${box.height}`, role: "img", "font-size": 11, fill: "currentColor" })) svg.setAttribute(name, value);
  svg.setAttribute("aria-label", `Decision graph of ${names[c]}: ${rho.length + markedRho.length} rows, ${markedRho.length} prototypes`);
  for (let k = 0; k <= 4; k++) {
    const e = etaLow + (k / 4) * (etaHigh - etaLow), r = rhoLow + (k / 4) * (rhoHigh - rhoLow);
    draw(svg, "path", { d: `M${left} ${y(e)}h${width}`, stroke: "currentColor", "stroke-opacity": 0.15 });
    draw(svg, "text", { x: left - 6, y: y(e) + 4, "text-anchor": "end" }, e.toFixed(2));
    draw(svg, "text", { x: x(r), y: top + height + 15, "text-anchor": "middle" }, Math.round(r).toLocaleString("en"));
  }
  draw(svg, "text", { x: left + width / 2, y: top + height + 33, "text-anchor": "middle" }, "density \u03c1");
  draw(svg, "text", { x: 12, y: top + height / 2, "text-anchor": "middle", transform: `rotate(-90 12 ${top + height / 2})` }, "similarity \u03b7");
  const dots = (r, e) => Array.from(r, (value, k) => (Number.isFinite(e[k]) ? `M${x(value).toFixed(1)} ${y(e[k]).toFixed(1)}h0` : "")).join("");
  draw(svg, "path", { d: dots(rho, eta), class: "dots kept" });
  draw(svg, "path", { d: dots(markedRho, markedEta), class: "dots changed" });
  element("graph-plot").replaceChildren(svg);
}
