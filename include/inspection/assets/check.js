// Checks of a pack. Every check adds to `report.problems` the file that it is about.
const IN_MEMORY = 64 * 1024 * 1024; // bytes; a larger file is hashed in pieces
const LARGEST_LIST = 512 * 1024 * 1024; // bytes of the ledger and of other lists
const ED25519_DER = "302a300506032b6570032100"; // beginning of a public key (RFC 8410)
const FOLDER = /^bundles\/([^/]+\/\d{4}\/\d\d\/[^/]+)\/(.+)$/;
const LINK = /^(?:\.\.\/){4}([^/]+\/\d{4}\/\d\d\/[^/]+)\/SHA256SUMS$/;

const hex = (bytes) => [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
const text = (bytes) => new TextDecoder("utf-8", { fatal: true }).decode(bytes);
const fromBase64 = (words) => Uint8Array.from(atob(words), (letter) => letter.charCodeAt(0));
const webDigest = async (bytes) => hex(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)));

async function digestOf(entry) {
  if (entry.size <= IN_MEMORY) return webDigest(await readAll(entry, IN_MEMORY));
  const hash = new Sha256();
  await readChunks(entry, (chunk) => hash.update(chunk));
  return hash.digest();
}

// Return why this browser cannot check a pack, or "" if it can. Known answers are compared first.
async function inability() {
  if (!globalThis.crypto || !crypto.subtle) return "no_webcrypto";
  const sample = new Uint8Array(100003).map((_, index) => (index * 31) & 255);
  const hash = new Sha256();
  for (let at = 0; at < sample.length; at += 977) hash.update(sample.subarray(at, at + 977));
  if (hash.digest() !== (await webDigest(sample))) return "no_sha256";
  const bytes = (words) => Uint8Array.from(words.match(/../g), (pair) => parseInt(pair, 16));
  try { // RFC 8032, section 7.1, test 2
    const key = await importKey(bytes(
      ED25519_DER + "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"));
    const signature = bytes("92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da" +
      "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00");
    if (!(await verified(key, signature, bytes("72")))) return "no_ed25519";
    if (await verified(key, signature, bytes("73"))) return "no_ed25519";
  } catch {
    return "no_ed25519";
  }
  return "";
}

const importKey = (der) => crypto.subtle.importKey("spki", der, { name: "Ed25519" }, true, ["verify"]);
const verified = (key, signature, content) =>
  crypto.subtle.verify({ name: "Ed25519" }, key, signature, content);

class Checker {
  constructor(files, expected, progress) {
    this.files = files;
    this.expected = fingerprintsIn(expected); // null if the text contains anything else
    this.progress = progress;
    this.problems = [];
    this.notes = [];
    this.keys = []; // {fingerprint, name, key, isAccepted, signatures}
    this.rows = []; // rows of the ledger, in the order of the file
    this.digests = new Map();
    this.clausesOf = new Map(); // clauses of each control, according to the signed results
    this.gap = 0; // rows that are left out
    this.isOpenEnded = false;
    this.isEmpty = false; // whether the pack has no bundle of the period
    this.unproved = []; // clauses whose controls no signed result shows
    this.counts = { files: 0, bundles: 0, rows: 0, links: 0 };
  }

  problem(file, key, values = {}) {
    this.problems.push({ file, key, values });
  }

  // The page folds the items of a note.
  note(key, values = {}, items = []) {
    this.notes.push({ key, values, items });
  }

  // Return the keys of the texts that say what the checks leave open.
  reservations() {
    const open = [];
    if (this.isEmpty) open.push("verdict_empty");
    if (!this.expected?.size) open.push("verdict_compare");
    if (this.gap) open.push("verdict_gap");
    if (this.isOpenEnded) open.push("verdict_open");
    if (this.unproved.length) open.push("verdict_clauses");
    return open;
  }

  async check() {
    await this.readKeys();
    await this.readManifest();
    await this.checkLedger();
    await this.checkBundles();
    await this.checkList();
    this.checkCompleteness();
    return this;
  }

  // Return the content of a small file; null and a problem if it is missing or too large.
  async content(name, limit = LARGEST_LIST) {
    const entry = this.files.get(name);
    if (!entry) {
      this.problem(name, "missing");
      return null;
    }
    try {
      return await readAll(entry, limit);
    } catch {
      this.problem(name, "unreadable");
      return null;
    }
  }

  async digest(name) {
    if (!this.digests.has(name)) {
      let digest = "";
      try {
        digest = await digestOf(this.files.get(name));
      } catch {
        this.problem(name, "unreadable");
      }
      this.digests.set(name, digest);
      this.counts.files += 1;
      this.progress(this.counts.files, this.files.size);
    }
    return this.digests.get(name);
  }

  async readKeys() {
    for (const name of this.files.keys()) {
      if (!/^keys\/[^/]+\.pem$/.test(name)) continue;
      const pem = await this.content(name, 4096);
      const key = pem && (await this.parseKey(pem));
      if (!key) {
        if (pem) this.problem(name, "not_a_key");
        continue;
      }
      if (name !== `keys/${key.fingerprint}.pem`) this.problem(name, "other_key", key);
      const isAccepted = !this.expected?.size || this.expected.has(key.fingerprint);
      this.keys.push({ ...key, name, isAccepted, signatures: 0 });
    }
    if (this.keys.length === 0) this.problem("keys/", "no_key");
    if (!this.expected) this.problem("keys/", "bad_fingerprint");
    const isKnown = this.keys.some((key) => key.isAccepted);
    for (const key of this.keys) {
      if (!isKnown) this.problem(key.name, "unexpected_key", key);
      else if (!key.isAccepted) this.note("further_key", { file: key.name });
    }
  }

  async parseKey(pem) {
    try {
      const body = text(pem).replace(/-----(BEGIN|END) PUBLIC KEY-----/g, "").replace(/\s/g, "");
      const der = fromBase64(body);
      if (der.length !== 44 || !hex(der).startsWith(ED25519_DER)) return null;
      return { fingerprint: await webDigest(der), key: await importKey(der) };
    } catch {
      return null;
    }
  }

  // Return the key of the pack that made a signature, or null.
  async signer(signature, content) {
    for (const candidate of this.keys) {
      try {
        if (!(await verified(candidate.key, signature, content))) continue;
        candidate.signatures += 1;
        return candidate;
      } catch { /* a signature of another length */ }
    }
    return null;
  }

  async readManifest() {
    this.manifest = {
      bundles: [], controls: [], clauses: [], control_details: [], workflows: [], since: "", until: "",
      ledger_rows_left_out: 0, ledger_workflows_left_out: [], workflows_left_out: [],
    };
    const content = await this.content("manifest.json");
    if (!content) return;
    try {
      const manifest = JSON.parse(text(content));
      const isText = (value) => typeof value === "string";
      const lists = ["bundles", "control_details", "workflows_left_out", "ledger_workflows_left_out"];
      const isComplete = lists.every((list) => Array.isArray(manifest[list])) &&
        ["controls", "clauses", "workflows"].every((list) => manifest[list].every(isText)) &&
        ["first_day", "last_day", "timezone"].every((name) => isText(manifest[name])) &&
        manifest.controls.length > 0 && manifest.clauses.length > 0 &&
        lists.slice(1).every((list) => manifest[list].every((item) => typeof item?.title === "object")) &&
        Number.isInteger(manifest.ledger_rows_left_out) && manifest.ledger_rows_left_out >= 0 &&
        [manifest.ledger_first, manifest.ledger_last].every((n) => n === null || Number.isInteger(n));
      if (!isComplete) throw new Error("manifest");
      const isSame = isPeriod(manifest);
      this.manifest = manifest;
      if (!isSame) this.problem("manifest.json", "period_differs");
    } catch {
      this.problem("manifest.json", "not_a_manifest");
    }
  }

  async checkLedger() {
    const name = "chain/ledger.txt";
    const content = await this.content(name);
    this.removedUpTo = 0;
    if (!content) return;
    let before = null;
    for (const line of text(content).split("\n")) {
      if (!line) continue;
      const [signature, signed] = line.split("\t");
      let record, row;
      try {
        [record, row] = JSON.parse(signed);
        const signer = await this.signer(fromBase64(signature), new TextEncoder().encode(signed));
        const isSigned = Boolean(signer?.isAccepted);
        if (record === "evidence_checkpoint") {
          if (!signer) this.problem(name, "checkpoint_changed");
          else if (!isSigned) this.problem(name, "foreign_signature", signer);
          if (isSigned) this.removedUpTo = row.up_to_seq;
          continue;
        }
        if (record !== "evidence_ledger") throw new Error(record);
        const number = { number: row.seq, bundle: row.bundle };
        if (!signer) this.problem(name, "row_changed", number);
        else if (!isSigned) this.problem(name, "foreign_row", { ...number, ...signer });
      } catch {
        this.problem(name, "bad_line");
        continue;
      }
      this.rows.push(row);
      this.counts.rows += 1;
      if (before && row.seq === before.seq + 1) {
        if (row.previous_sums_sha256 !== before.sums_sha256) {
          this.problem(name, "chain_broken", { number: row.seq, bundle: row.bundle });
        } else {
          row.before = before;
          this.counts.links += 1;
        }
      } else if (before && row.seq <= before.seq) {
        this.problem(name, "wrong_order", { number: row.seq });
      } else if (before && row.seq - 1 > this.removedUpTo) {
        const first = Math.max(before.seq + 1, this.removedUpTo + 1);
        row.isAfterGap = true;
        if (this.manifest.ledger_rows_left_out === 0) {
          this.problem(name, "rows_missing", { first, last: row.seq - 1 });
        }
      }
      before = row;
    }
    this.checkEdges(before);
    if (before) this.checkGap(before);
    if (this.removedUpTo) this.note("removed_up_to", { number: this.removedUpTo });
  }

  // The rows before and after the period prove that it has no other bundle at its edges.
  checkEdges(last) {
    const [first] = this.rows;
    if (!first) {
      this.problem("chain/ledger.txt", "no_rows");
      return;
    }
    const since = Date.parse(this.manifest.since), until = Date.parse(this.manifest.until);
    const isPartial = this.manifest.ledger_rows_left_out > 0;
    const isFirst = first.seq <= this.removedUpTo + 1;
    if (Date.parse(first.sealed_at) >= since && !isFirst && !isPartial) {
      this.problem("chain/ledger.txt", "rows_before_missing", { number: first.seq });
    }
    if (Date.parse(last.sealed_at) < until) {
      this.isOpenEnded = true;
      const moment = localTime(this.manifest.timezone, last.sealed_at);
      this.note("open_end", { number: last.seq, moment });
    }
  }

  // Compare the gaps with what manifest.json says about them, and with the signed rows.
  checkGap(before) {
    const name = "chain/ledger.txt";
    const manifest = this.manifest, declared = manifest.ledger_rows_left_out;
    const first = Math.min(this.rows[0].seq, manifest.ledger_first ?? Infinity);
    const last = Math.max(before.seq, manifest.ledger_last ?? 0);
    const kept = this.rows.filter((row) => row.seq > this.removedUpTo).length;
    const gap = Math.max(last - Math.max(first - 1, this.removedUpTo), 0) - kept;
    // Rows of removed bundles may be missing without being left out.
    if (gap > declared || last - first + 1 - this.rows.length < declared) {
      this.problem(name, "gap_differs", { count: gap, declared });
    }
    if (!declared) return;
    this.gap = Math.max(gap, declared);
    const workflows = manifest.ledger_workflows_left_out;
    this.leftOut = new Set(workflows.map((workflow) => workflow.name));
    if (!this.leftOut.size) this.problem(name, "gap_unnamed", { count: this.gap });
    for (const row of this.rows) {
      if (!this.leftOut.has(row.dag_id) && !this.leftOut.has(workflowOf(row.bundle))) continue;
      this.problem(name, "left_out_present", { number: row.seq, bundle: row.bundle });
    }
    this.note("gaps", { count: this.gap, workflows, others: manifest.workflows_left_out });
  }

  async checkBundles() {
    const folders = new Map();
    for (const name of this.files.keys()) {
      if (!name.startsWith("bundles/")) continue;
      const match = FOLDER.exec(name);
      if (!match) {
        this.problem(name, "added");
        continue;
      }
      if (!folders.has(match[1])) folders.set(match[1], []);
      folders.get(match[1]).push(match[2]);
    }
    this.folders = folders;
    this.byFolder = new Map(this.rows.map((row) => [row.bundle, row]));
    this.byDigest = new Map(this.rows.map((row) => [row.sums_sha256, row]));
    for (const [folder, names] of folders) {
      this.counts.bundles += 1;
      await this.checkBundle(folder, names);
    }
  }

  async checkBundle(folder, names) {
    const at = `bundles/${folder}/`;
    const sums = await this.content(`${at}SHA256SUMS`);
    const signature = await this.content(`${at}SHA256SUMS.sig`, 4096);
    if (!sums) {
      for (const name of names) await this.digest(at + name);
      return;
    }
    const signer = signature && (await this.signer(signature, sums));
    if (signature && !signer) this.problem(`${at}SHA256SUMS`, "not_signed");
    if (signer && !signer.isAccepted) {
      this.problem(`${at}SHA256SUMS`, "foreign_signature", signer);
    }
    const list = parseSums(sums);
    if (!list) {
      this.problem(`${at}SHA256SUMS`, "bad_line");
      return;
    }
    for (const name of names) {
      if (name === "SHA256SUMS" || name === "SHA256SUMS.sig") continue;
      const digest = await this.digest(at + name);
      if (!list.files.has(name)) this.problem(at + name, "added");
      else if (digest && digest !== list.files.get(name)) this.problem(at + name, "changed");
    }
    for (const name of [...list.files.keys(), "result.json", "signer.pem"]) {
      if (!names.includes(name)) this.problem(at + name, "missing");
    }
    await this.checkSigner(at, names, signer);
    await this.checkRow(at, folder, sums, list, signer);
  }

  async checkSigner(at, names, signer) {
    if (!signer || !names.includes("signer.pem")) return;
    const pem = await this.content(`${at}signer.pem`, 4096);
    const own = pem && (await this.parseKey(pem));
    if (pem && (!own || own.fingerprint !== signer.fingerprint)) {
      this.problem(`${at}signer.pem`, "other_signer");
    }
  }

  async checkRow(at, folder, sums, list, signer) {
    const digest = await webDigest(sums);
    const row = this.byFolder.get(folder);
    const other = this.byDigest.get(digest);
    if (!row || row.sums_sha256 !== digest) {
      if (other && other.bundle !== folder) {
        this.problem(`${at}SHA256SUMS`, "swapped", { bundle: `bundles/${other.bundle}` });
      } else {
        this.problem(`${at}SHA256SUMS`, row ? "differs_from_row" : "no_row");
      }
      return;
    }
    if (signer && row.key_fingerprint !== signer.fingerprint) {
      this.problem(`${at}SHA256SUMS.sig`, "other_signer");
    }
    const linked = list.link ? list.link.digest : "";
    const isLinked = linked === row.previous_sums_sha256 &&
      (!row.before || !list.link || list.link.bundle === row.before.bundle);
    if (!isLinked) this.problem(`${at}SHA256SUMS`, "link_broken");
    if (row.isAfterGap && this.leftOut && list.link) { // the signed link names a bundle of the gap
      const workflow = workflowOf(list.link.bundle);
      if (!this.leftOut.has(workflow)) {
        this.problem(`${at}SHA256SUMS`, "left_out_other", { bundle: list.link.bundle });
      }
    }
    await this.checkResult(at, row);
  }

  async checkResult(at, row) {
    if (!this.files.has(`${at}result.json`)) return;
    const content = await this.content(`${at}result.json`);
    if (!content) return;
    try {
      const result = JSON.parse(text(content));
      const same = result.run.dag_id === row.dag_id && result.run.run_id === row.run_id &&
        result.outcome === row.outcome &&
        JSON.stringify(result.controls.map((control) => control.id)) === JSON.stringify(row.controls) &&
        Date.parse(result.run.started_at) === Date.parse(row.started_at);
      if (!same) this.problem(`${at}result.json`, "result_differs");
      for (const { id, clause } of result.controls) {
        if (!this.clausesOf.has(id)) this.clausesOf.set(id, new Set());
        this.clausesOf.get(id).add(clause);
      }
    } catch {
      this.problem(`${at}result.json`, "result_differs");
    }
  }

  // Compare all files with the list of the pack. It is not signed; it shows losses on the way.
  async checkList() {
    const content = await this.content("pack.sha256");
    if (!content) return;
    const list = parseSums(content);
    if (!list) {
      this.problem("pack.sha256", "bad_line");
      return;
    }
    const isNamed = (file) => this.problems.some((problem) => problem.file === file);
    for (const name of this.files.keys()) {
      if (name === "pack.sha256") continue;
      const digest = await this.digest(name);
      if (!list.files.has(name)) this.problem(name, "added");
      else if (digest && digest !== list.files.get(name) && !isNamed(name)) {
        this.problem(name, "changed");
      }
    }
    for (const name of list.files.keys()) {
      if (!this.files.has(name)) this.problem(name, "missing");
    }
  }

  // Return the controls of the clauses, according to manifest.json and to the signed results.
  controlsOfClauses() {
    const controls = new Set(this.manifest.controls);
    for (const [control, clauses] of this.clausesOf) {
      if (this.manifest.clauses.some((clause) => clauses.has(clause))) controls.add(control);
    }
    return controls;
  }

  // The signed rows of the ledger say which bundles belong to the pack. A run that could not run
  // names no control; it belongs to the pack if its workflow has controls of the clauses.
  checkCompleteness() {
    const since = Date.parse(this.manifest.since), until = Date.parse(this.manifest.until);
    const controls = this.controlsOfClauses();
    const isOfClauses = (row) => row.controls.some((control) => controls.has(control));
    const workflows = new Set(this.manifest.workflows);
    for (const row of this.rows) if (isOfClauses(row)) workflows.add(row.dag_id);
    let removed = 0, others = 0, present = 0, further = 0;
    const otherControls = new Set();
    for (const row of this.rows) {
      const sealed = Date.parse(row.sealed_at);
      if (sealed < since || sealed >= until) continue;
      if (this.folders.has(row.bundle)) present += 1;
      const isWithout = row.controls.length === 0 && workflows.has(row.dag_id);
      if (!isOfClauses(row) && !isWithout) {
        if (row.controls.length) others += 1;
        if (this.folders.has(row.bundle)) further += 1;
        for (const control of row.controls) otherControls.add(control);
      } else if (row.seq <= this.removedUpTo) {
        removed += 1;
      } else if (!this.folders.has(row.bundle)) {
        this.problem(`bundles/${row.bundle}/`, "missing_bundle");
      }
    }
    if (others) {
      const isShown = (clause) => [...this.clausesOf.values()].some((clauses) => clauses.has(clause));
      this.unproved = this.manifest.clauses.filter((clause) => !isShown(clause));
      this.note("other_controls", { count: others, controls: otherControls.size }, [...otherControls].sort());
    }
    this.isEmpty = present === 0;
    if (further) this.note("further_bundles", { count: further });
    if (removed) this.note("removed", { count: removed });
    if (this.counts.bundles === 0 && removed === 0) this.note("no_bundles");
    const failed = this.manifest.bundles.filter((bundle) => bundle.verified === false).length;
    if (failed) this.note("declared_bad", { count: failed });
  }
}

const workflowOf = (bundle) => bundle.split("/")[0];

// Return the fingerprints in a text, which may have spaces, colons and lines; null if it has more.
function fingerprintsIn(words) {
  const digits = words.toLowerCase().replace(/sha-?256/g, "").replace(/[\s:,;-]/g, "");
  return /^(?:[0-9a-f]{64})*$/.test(digits) ? new Set(digits.match(/.{64}/g)) : null;
}

// Return the day and the time of a moment in a timezone, such as ["2026-07-01", "17:35:45"].
function partsIn(timeZone, moment) {
  const parts = new Intl.DateTimeFormat("en-US", {
    timeZone, calendar: "gregory", numberingSystem: "latn", hourCycle: "h23",
    year: "numeric", month: "2-digit", day: "2-digit",
    hour: "2-digit", minute: "2-digit", second: "2-digit",
  }).formatToParts(new Date(moment));
  const joined = (types, mark) =>
    types.map((type) => parts.find((part) => part.type === type).value).join(mark);
  return [joined(["year", "month", "day"], "-"), joined(["hour", "minute", "second"], ":")];
}

const dayIn = (timeZone, moment) => partsIn(timeZone, moment)[0];

// Return a moment as text, such as "2026-07-01 17:35:45 (Asia/Shanghai)".
function localTime(timeZone, moment) {
  const zone = timeZone || "UTC"; // manifest.json cannot be read
  return `${partsIn(zone, moment).join(" ")} (${zone})`;
}

// Return whether the moments of a manifest are the edges of the days that the page shows.
function isPeriod({ first_day: first, last_day: last, timezone, since, until }) {
  const day = (moment) => dayIn(timezone, moment);
  const begin = Date.parse(since), end = Date.parse(until);
  return day(begin - 1) < first && day(begin) === first && day(end - 1) === last && last < day(end);
}

function parseSums(content) {
  const files = new Map();
  let link = null;
  try {
    for (const line of text(content).split("\n")) {
      if (!line) continue;
      const match = /^([0-9a-f]{64})  (.+)$/.exec(line);
      if (!match) return null;
      const linked = LINK.exec(match[2]);
      if (linked && !link) link = { bundle: linked[1], digest: match[1] };
      else if (!isSafe(match[2]) || files.has(match[2])) return null;
      else files.set(match[2], match[1]);
    }
  } catch {
    return null;
  }
  return { files, link };
}
