// The rows as typed arrays, their order, and which of them pass the filter.
const data = JSON.parse(document.getElementById("data").textContent);
const names = data.names;
const element = (id) => document.getElementById(id);

function decode(text, Type) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let k = 0; k < raw.length; k++) bytes[k] = raw.charCodeAt(k);
  return new Type(bytes.buffer);
}

const given = decode(data.given, Uint16Array);
const suggested = decode(data.suggested, Uint16Array);
const suspects = decode(data.suspects, Uint32Array);
const index = data.index && decode(data.index, Uint32Array);
const total = given.length;
const measures = {};
for (const name of ["issue", "probability", "score", "margin"]) {
  if (data[name]) measures[name] = decode(data[name], Float32Array);
}
const mainMeasure = measures.issue ? "issue" : measures.margin ? "margin" : "score";
const measureNames = { issue: "p(wrong)", probability: "p(sugg.)", score: "score", margin: "margin" };
const measureTitles = {
  issue: "Probability that the given label is wrong",
  probability: "Probability of the suggested label",
  score: "Score of the best class",
  margin: "Best score minus second best",
};
const searchable = data.paths && data.paths.map((path) => path.toLowerCase());
const rowOf = (k) => (index ? index[k] : k);

// Rows listed by their number in the data set; pictures and prototypes are known by it.
function placeOf(row) {
  if (!index) return row < total ? row : -1;
  let low = 0, high = total;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (index[middle] < row) low = middle + 1;
    else high = middle;
  }
  return low < total && index[low] === row ? low : -1;
}

function number(value) {
  if (Number.isNaN(value)) return "\u2013";
  return Number.isFinite(value) ? value.toFixed(3) : "\u221e";
}

function ranks(texts) {
  const order = texts.map((_, k) => k).sort((a, b) => (texts[a] < texts[b] ? -1 : texts[a] > texts[b] ? 1 : a - b));
  const rank = new Float64Array(texts.length);
  order.forEach((k, place) => { rank[k] = place; });
  return rank;
}

// Values to sort by; kept, because sorting 50,000 rows takes longer than looking at them.
const orders = new Map();
function sortValues(key) {
  if (measures[key]) return measures[key];
  if (key === "path") return ranks(searchable);
  if (key === "given" || key === "suggested") {
    const rank = ranks(names);
    return Float64Array.from(key === "given" ? given : suggested, (c) => rank[c]);
  }
  return Float64Array.from({ length: total }, (_, k) => k);
}

// All rows in order of a column; rows without a value come last either way, ties keep their order.
function ordering(key, descending) {
  if (key === "suspect") return suspects;
  const name = key + (descending ? " down" : " up");
  if (key !== "decision" && orders.has(name)) return orders.get(name);
  const values = key === "decision" ? decisionRanks() : sortValues(key);
  const sign = descending ? -1 : 1;
  const clean = Float64Array.from(values, (value) => (Number.isNaN(value) ? Infinity : sign * value));
  const order = Uint32Array.from({ length: total }, (_, k) => k).sort((a, b) => clean[a] - clean[b] || a - b);
  orders.set(name, order);
  return order;
}

function matchingRows(filter, sort) {
  const order = ordering(sort.key, sort.descending);
  const measure = measures[mainMeasure];
  const text = filter.text.trim().toLowerCase();
  const found = new Uint32Array(total);
  let count = 0;
  for (let place = 0; place < total; place++) {
    const k = order[place];
    if (filter.given >= 0 && given[k] !== filter.given) continue;
    if (filter.suggested >= 0 && suggested[k] !== filter.suggested) continue;
    if (filter.changed && given[k] === suggested[k]) continue;
    if (filter.low !== null && !(measure[k] >= filter.low)) continue;
    if (filter.high !== null && !(measure[k] <= filter.high)) continue;
    if (filter.decision && (decisionOf(k) ? decisionOf(k).kind : "none") !== filter.decision) continue;
    if (text && !(searchable && searchable[k].includes(text)) && String(rowOf(k)) !== text) continue;
    found[count++] = k;
  }
  return found.subarray(0, count);
}
