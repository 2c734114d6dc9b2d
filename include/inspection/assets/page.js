// The page: language, choice of the files, and the result.
const TEXTS = JSON.parse(document.getElementById("texts").textContent);
const MOST_SHOWN = 1000; // problems
let language = navigator.language.toLowerCase().startsWith("zh") ? "zh-CN" : "en";
let shown = null; // {checker} or {message}
let chosen = null; // function that opens the files that were chosen last
let newest = { expected: null }; // the newest check; results of earlier ones are dropped

const say = (key, values = {}) =>
  TEXTS[language][key].replace(/\{(\w+)\}/g, (_, name) => shownValue(values[name]));

function shownValue(value) {
  if (!Array.isArray(value)) return String(value ?? "");
  return value.map((workflow) => workflow.title[language]).join(language === "en" ? ", " : "、") || "-";
}

function element(tag, words, name = "") {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (words) made.textContent = words;
  return made;
}

// Show control characters and changes of the direction as code points.
const visible = (words) => words.replace(
  /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g,
  (letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`);

function render() {
  document.documentElement.lang = language;
  document.title = say("title");
  for (const part of document.querySelectorAll("[data-text]")) part.textContent = say(part.dataset.text);
  const button = document.getElementById("language");
  button.textContent = language === "en" ? "中文" : "English";
  button.lang = language === "en" ? "zh-CN" : "en";
  const result = document.getElementById("result");
  result.replaceChildren();
  delete result.dataset.verdict;
  result.hidden = shown === null;
  if (shown && shown.message) {
    result.append(element("p", say(shown.message), `verdict ${shown.kind ?? "bad"}`));
  }
  if (shown && shown.checker) renderResult(result, shown.checker);
}

function renderResult(result, checker) {
  const { problems, notes, keys, counts, manifest } = checker;
  const open = problems.length ? [] : checker.reservations();
  const kind = problems.length ? "bad" : open.length ? "care" : "good";
  result.dataset.verdict = kind;
  for (const key of open.length ? open : [`verdict_${kind}`]) {
    const values = { count: problems.length, clauses: checker.unproved.join(", ") };
    result.append(element("p", visible(say(key, values)), `verdict ${kind}`));
  }
  result.append(element("p", say("counts", counts)));
  if (manifest.first_day) {
    const { first_day, last_day, timezone } = manifest;
    const clauses = manifest.clauses.join(", ");
    const controls = [...checker.controlsOfClauses()].sort().map((id) => nameOf(manifest, id));
    result.append(element("p", visible(say("scope", { clauses, first_day, last_day, timezone }))));
    result.append(element("p", visible(say("scope_controls", { controls: controls.join("; ") }))));
    result.append(element("p", say("scope_unsigned")));
  }
  for (const key of keys) {
    const line = element("p", `${say("fingerprint", { count: key.signatures })} `);
    line.append(element("code", key.fingerprint.match(/.{8}/g).join(" ")));
    result.append(line);
  }
  if (problems.length) result.append(problemTable(problems));
  for (const note of notes) result.append(noteOf(note, checker.unproved.length > 0));
}

function noteOf({ key, values, items }, isOpen) {
  const words = visible(say(key, values));
  if (!items.length) return element("p", words);
  const fold = element("details");
  fold.open = isOpen;
  const list = element("ul");
  for (const item of items) list.append(element("li", visible(item)));
  fold.append(element("summary", words), list);
  return fold;
}

function nameOf(manifest, id) {
  const title = manifest.control_details.find((control) => control.id === id)?.title[language];
  return title ? `${id} (${title})` : id;
}

function problemTable(problems) {
  const frame = element("div", "", "scroll");
  const table = element("table");
  const head = element("tr");
  for (const key of ["file", "problem"]) {
    const cell = element("th", say(key));
    cell.scope = "col";
    head.append(cell);
  }
  table.append(head);
  for (const problem of problems.slice(0, MOST_SHOWN)) {
    const row = element("tr", "", "problem");
    row.append(element("td", visible(problem.file), "file"));
    row.append(element("td", visible(say(problem.key, problem.values))));
    table.append(row);
  }
  frame.append(table);
  if (problems.length > MOST_SHOWN) {
    frame.append(element("p", say("more", { count: problems.length - MOST_SHOWN })));
  }
  return frame;
}

const expectedField = document.getElementById("expected");

async function checkFiles(open) {
  chosen = open;
  if (await checkChosen()) document.getElementById("result").focus();
}

// Check the chosen files. Return false if a newer check, or a change of the field, replaced this one.
async function checkChosen() {
  const progress = document.getElementById("progress");
  const current = { expected: expectedField.value };
  newest = current;
  const stopIfReplaced = () => { if (newest !== current) throw new Error("replaced"); };
  const tell = (count, total) => {
    stopIfReplaced();
    progress.textContent = say("progress", { count, total });
  };
  shown = null;
  render();
  progress.textContent = say("working");
  let result;
  try {
    const unable = await inability();
    result = unable ? { message: unable } : await checkPack(chosen, current.expected, tell);
    stopIfReplaced();
  } catch {
    if (newest !== current) return false;
    result = { message: "failed" };
  }
  shown = result;
  progress.textContent = "";
  render();
  return true;
}

async function checkPack(open, expected, tell) {
  const early = [];
  const all = await open((file, key) => early.push({ file, key, values: {} }));
  const files = all && packOf(all);
  if (!files) return { message: "not_a_pack" };
  const checker = new Checker(files, expected, tell);
  checker.problems.push(...early);
  return { checker: await checker.check() };
}

// A verdict never refers to an earlier content of the field.
function removeVerdict() {
  if (!chosen) return;
  newest = { expected: null };
  document.getElementById("progress").textContent = "";
  shown = { message: "outdated", kind: "care" };
  render();
  if (fingerprintsIn(expectedField.value)) checkChosen();
}

expectedField.addEventListener("input", removeVerdict);
expectedField.addEventListener("change", () => {
  if (chosen && newest.expected !== expectedField.value) checkChosen();
});
document.getElementById("language").addEventListener("click", () => {
  language = language === "en" ? "zh-CN" : "en";
  render();
});
document.getElementById("folder").addEventListener("change", (event) => {
  const list = [...event.target.files];
  event.target.value = ""; // the same files can be chosen again
  if (list.length) checkFiles(async () => openFolder(list));
});
document.getElementById("archive").addEventListener("change", (event) => {
  const file = event.target.files[0];
  event.target.value = "";
  if (file) checkFiles((problem) => openArchive(file, problem));
});

const drop = document.getElementById("drop");
drop.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  const item = event.dataTransfer.items[0];
  const file = event.dataTransfer.files[0];
  if (!item) return;
  const isFolder = item.webkitGetAsEntry && item.webkitGetAsEntry()?.isDirectory;
  if (!isFolder && file) {
    checkFiles((problem) => openArchive(file, problem));
  } else if (item.getAsFileSystemHandle) {
    const handle = item.getAsFileSystemHandle();
    checkFiles(async () => openDropped(await handle));
  } else {
    chosen = null;
    newest = { expected: null };
    document.getElementById("progress").textContent = "";
    shown = { message: "use_button" };
    render();
  }
});
render();
