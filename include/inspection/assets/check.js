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
    const typed = expected.toLowerCase().replace(/sha-?256/g, "").replace(/[\s:-]/g, "");
    this.expected = /[0-9a-f]{64}/.exec(typed)?.[0] ?? typed;
    this.progress = progress;
    this.problems = [];
    this.notes = [];
    this.keys = []; // {fingerprint, name, key}
    this.rows = []; // rows of the ledger, in the order of the file
    this.digests = new Map();
    this.counts = { files: 0, bundles: 0, rows: 0, links: 0 };
  }

  problem(file, key, values = {}) {
    this.problems.push({ file, key, values });
  }

  note(key, values = {}) {
    this.notes.push({ key, values });
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
      this.keys.push({ ...key, name });
    }
    if (this.keys.length === 0) this.problem("keys/", "no_key");
    if (this.expected && !this.keys.some((key) => key.fingerprint === this.expected)) {
      for (const key of this.keys) this.problem(key.name, "unexpected_key", key);
    }
    if (this.expected && this.keys.length > 1) {
      for (const key of this.keys) {
        if (key.fingerprint !== this.expected) this.note("further_key", { file: key.name });
      }
    }
    if (!this.expected) this.note("compare_key");
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
        if (await verified(candidate.key, signature, content)) return candidate;
      } catch { /* a signature of another length */ }
    }
    return null;
  }

  async readManifest() {
    this.manifest = { bundles: [], controls: [], clauses: [], since: "", until: "" };
    const content = await this.content("manifest.json");
    if (!content) return;
    try {
      const manifest = JSON.parse(text(content));
      for (const list of ["bundles", "controls", "clauses", "workflows_left_out"]) {
        if (!Array.isArray(manifest[list])) throw new Error(list);
      }
      if (!manifest.workflows_left_out.every((workflow) => typeof workflow?.title === "object")) {
        throw new Error("workflows_left_out");
      }
      if (Number.isNaN(Date.parse(manifest.since) + Date.parse(manifest.until))) throw new Error();
      this.manifest = manifest;
    } catch {
      this.problem("manifest.json", "not_a_manifest");
    }
  }

  async checkLedger() {
    const name = "chain/ledger.txt";
    const content = await this.content(name);
    this.removedUpTo = 0;
    if (!content) return;
    let before = null, missing = 0;
    for (const line of text(content).split("\n")) {
      if (!line) continue;
      const [signature, signed] = line.split("\t");
      let record, row;
      try {
        [record, row] = JSON.parse(signed);
        const isSigned = await this.signer(fromBase64(signature), new TextEncoder().encode(signed));
        if (record === "evidence_checkpoint" && !isSigned) this.problem(name, "checkpoint_changed");
        if (record === "evidence_checkpoint") {
          if (isSigned) this.removedUpTo = row.up_to_seq;
          continue;
        }
        if (record !== "evidence_ledger") throw new Error(record);
        row.isSigned = Boolean(isSigned);
      } catch {
        this.problem(name, "bad_line");
        continue;
      }
      this.rows.push(row);
      this.counts.rows += 1;
      if (!row.isSigned) this.problem(name, "row_changed", { number: row.seq, bundle: row.bundle });
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
        missing += row.seq - first;
        if (!(this.manifest.ledger_rows_left_out > 0)) {
          this.problem(name, "rows_missing", { first, last: row.seq - 1 });
        }
      }
      before = row;
    }
    this.checkEdges(before);
    // Rows may also be left out before the first and after the last row of the pack.
    if (this.manifest.ledger_rows_left_out > 0) {
      this.gap = Math.max(missing, this.manifest.ledger_rows_left_out);
    }
    if (this.gap) {
      this.note("gaps", { count: this.gap, workflows: this.manifest.workflows_left_out });
    }
    if (this.removedUpTo) this.note("removed_up_to", { number: this.removedUpTo });
  }

  // The rows before and after the period prove that it has no other bundle at its edges.
  checkEdges(last) {
    const [first] = this.rows;
    const since = Date.parse(this.manifest.since), until = Date.parse(this.manifest.until);
    const isInPeriod = (row) => Date.parse(row.sealed_at) >= since && Date.parse(row.sealed_at) < until;
    const isPartial = this.manifest.ledger_rows_left_out > 0;
    if (!first) {
      this.note("no_rows");
      return;
    }
    if (isInPeriod(first) && first.seq > this.removedUpTo + 1 && !isPartial) {
      this.problem("chain/ledger.txt", "rows_before_missing", { number: first.seq });
    }
    if (isInPeriod(last) || Date.parse(last.sealed_at) < since) {
      this.note("open_end", { number: last.seq, moment: last.sealed_at });
    }
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

  // The signed rows of the ledger say which bundles belong to the pack.
  checkCompleteness() {
    const { since, until, controls } = this.manifest;
    let removed = 0;
    for (const row of this.rows) {
      const sealed = Date.parse(row.sealed_at);
      const belongs = sealed >= Date.parse(since) && sealed < Date.parse(until) &&
        row.controls.some((control) => controls.includes(control));
      if (!belongs) continue;
      if (row.seq <= this.removedUpTo) removed += 1;
      else if (!this.folders.has(row.bundle)) this.problem(`bundles/${row.bundle}/`, "missing_bundle");
    }
    if (removed) this.note("removed", { count: removed });
    if (this.counts.bundles === 0 && removed === 0) this.note("no_bundles");
    const failed = this.manifest.bundles.filter((bundle) => bundle.verified === false).length;
    if (failed) this.note("declared_bad", { count: failed });
  }
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
