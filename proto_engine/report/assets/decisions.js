// Decisions by row number: kept in this browser where it keeps anything, downloaded as CSV.
const storageKey = "proto-engine-report:" + data.id;
const decisions = new Map(); // row number -> {kind, label}
const history = []; // [row number, decision before]
let stored = true;
let saving = 0;

const decisionOf = (k) => decisions.get(rowOf(k));
const kindWords = { accept: "accepted", reject: "rejected", relabel: "relabeled" };

function decisionRanks() {
  const rank = { accept: 0, reject: 1, relabel: 2 };
  return Float64Array.from({ length: total }, (_, k) => (decisionOf(k) ? rank[decisionOf(k).kind] : NaN));
}

function decide(k, kind, label) {
  const row = rowOf(k);
  const target = kind === "accept" ? suggested[k] : kind === "reject" ? given[k] : label;
  history.push([row, decisions.get(row)]);
  decisions.set(row, { kind, label: target });
  save();
}

// Takes back the last decision; returns its row number, or -1.
function undo() {
  if (!history.length) return -1;
  const [row, before] = history.pop();
  if (before) decisions.set(row, before);
  else decisions.delete(row);
  save();
  return row;
}

function countDecisions() {
  const counts = { accept: 0, reject: 0, relabel: 0 };
  for (const { kind } of decisions.values()) counts[kind] += 1;
  return counts;
}

function save() {
  clearTimeout(saving);
  saving = setTimeout(saveNow, 150);
}

function saveNow() {
  clearTimeout(saving);
  try {
    const entries = [...decisions].map(([row, { kind, label }]) => [row, kind, label]);
    localStorage.setItem(storageKey, JSON.stringify(entries));
  } catch {
    stored = false;
  }
  showKept();
}

function load() {
  try {
    const entries = JSON.parse(localStorage.getItem(storageKey) || "[]");
    for (const [row, kind, label] of entries) {
      const k = placeOf(row);
      if (k < 0 || !Object.hasOwn(kindWords, kind) || !Object.hasOwn(names, label)) continue;
      decisions.set(row, { kind, label });
      history.push([row, undefined]);
    }
  } catch {
    stored = false;
  }
}

function showKept() {
  element("kept").textContent = stored
    ? "Decisions are kept in this browser until you clear them. Download them to use them."
    : "This browser keeps no data for this page: download the decisions before you close it.";
}

function field(value) {
  const text = String(value);
  return /[",\r\n]/.test(text) ? '"' + text.replaceAll('"', '""') + '"' : text;
}

function decisionsCsv() {
  const head = ["index", ...(data.paths ? ["path"] : []), "given_label", "suggested_label", "decision", "label", "labels_sha256"];
  const lines = [head];
  for (const row of [...decisions.keys()].sort((a, b) => a - b)) {
    const k = placeOf(row);
    const { kind, label } = decisions.get(row);
    const path = data.paths ? [data.paths[k]] : [];
    lines.push([row, ...path, names[given[k]], names[suggested[k]], kind, names[label], data.digest]);
  }
  return lines.map((line) => line.map(field).join(",") + "\n").join("");
}

function download() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([decisionsCsv()], { type: "text/csv" }));
  link.download = "decisions.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
