// The files of a pack: from a chosen folder, or from the ZIP file itself (PKWARE APPNOTE 6.3.10).
class FolderEntry {
  constructor(file) {
    this.file = file;
    this.size = file.size;
  }

  stream() {
    return this.file.stream();
  }
}

class ZipEntry {
  constructor(archive, header) {
    this.archive = archive;
    this.header = header;
    this.size = header.size;
  }

  async blob() {
    const { offset, packed } = this.header;
    const local = view(await bytesOf(this.archive.slice(offset, offset + 30)));
    if (local.getUint32(0, true) !== 0x04034b50) throw new Error("local header");
    const start = offset + 30 + local.getUint16(26, true) + local.getUint16(28, true);
    return this.archive.slice(start, start + packed);
  }

  async stream() {
    const stream = (await this.blob()).stream();
    if (this.header.method === 0) return stream;
    return stream.pipeThrough(new DecompressionStream("deflate-raw"));
  }
}

const view = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
const bytesOf = async (blob) => new Uint8Array(await blob.arrayBuffer());

// Call `take` with each chunk of a file. A file that is longer than it claims to be is an error.
async function readChunks(entry, take) {
  const reader = (await entry.stream()).getReader();
  let size = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    size += value.length;
    if (size > entry.size) {
      await reader.cancel();
      throw new Error("too long");
    }
    take(value);
  }
  if (size !== entry.size) throw new Error("too short");
}

async function readAll(entry, limit) {
  if (entry.size > limit) throw new Error("too large");
  const content = new Uint8Array(entry.size);
  let at = 0;
  await readChunks(entry, (chunk) => {
    content.set(chunk, at);
    at += chunk.length;
  });
  return content;
}

const isSafe = (path) =>
  !path.includes("\\") && !/^[A-Za-z]:/.test(path) &&
  path.split("/").every((part) => part !== "" && part !== "." && part !== "..");

// Return the files of a ZIP archive by path. `problem(path, key)` is called for unusable entries.
async function openArchive(archive, problem) {
  const tail = await bytesOf(archive.slice(Math.max(0, archive.size - 65557)));
  const end = view(tail);
  let at = tail.length - 22;
  while (at >= 0 && end.getUint32(at, true) !== 0x06054b50) at -= 1;
  if (at < 0) return null;
  let count = end.getUint16(at + 10, true);
  let size = end.getUint32(at + 12, true);
  let start = end.getUint32(at + 16, true);
  if (count === 0xffff || size === 0xffffffff || start === 0xffffffff) {
    const position = archive.size - tail.length + at - 20;
    const locator = view(await bytesOf(archive.slice(position, position + 20)));
    if (locator.getUint32(0, true) !== 0x07064b50) return null;
    const record = Number(locator.getBigUint64(8, true));
    const end64 = view(await bytesOf(archive.slice(record, record + 56)));
    if (end64.getUint32(0, true) !== 0x06064b50) return null;
    count = Number(end64.getBigUint64(32, true));
    size = Number(end64.getBigUint64(40, true));
    start = Number(end64.getBigUint64(48, true));
  }
  const bytes = await bytesOf(archive.slice(start, start + size));
  const directory = view(bytes);
  const utf8 = new TextDecoder("utf-8");
  const files = new Map();
  let position = 0;
  for (let number = 0; number < count; number++) {
    if (directory.getUint32(position, true) !== 0x02014b50) return null;
    const nameLength = directory.getUint16(position + 28, true);
    const extraLength = directory.getUint16(position + 30, true);
    const commentLength = directory.getUint16(position + 32, true);
    const name = utf8.decode(bytes.subarray(position + 46, position + 46 + nameLength));
    const header = {
      method: directory.getUint16(position + 10, true),
      packed: directory.getUint32(position + 20, true),
      size: directory.getUint32(position + 24, true),
      offset: directory.getUint32(position + 42, true),
    };
    readZip64(directory, position + 46 + nameLength, extraLength, header);
    const isEncrypted = (directory.getUint16(position + 8, true) & 1) === 1;
    position += 46 + nameLength + extraLength + commentLength;
    if (name.endsWith("/") && header.size === 0) continue;
    if (!isSafe(name)) problem(name, "unsafe_name");
    else if (files.has(name)) problem(name, "twice");
    else if (isEncrypted || (header.method !== 0 && header.method !== 8)) problem(name, "unreadable");
    else files.set(name, new ZipEntry(archive, header));
  }
  return files;
}

function readZip64(directory, start, length, header) {
  let at = start;
  while (at + 4 <= start + length) {
    const id = directory.getUint16(at, true), size = directory.getUint16(at + 2, true);
    if (id === 1) {
      let value = at + 4;
      for (const name of ["size", "packed", "offset"]) {
        if (header[name] === 0xffffffff) {
          header[name] = Number(directory.getBigUint64(value, true));
          value += 8;
        }
      }
    }
    at += 4 + size;
  }
}

// Return the files of a chosen folder by path. The first part of each path is the chosen folder.
function openFolder(list) {
  const files = new Map();
  for (const file of list) {
    files.set(file.webkitRelativePath.split("/").slice(1).join("/"), new FolderEntry(file));
  }
  return files;
}

// Return the files of a dropped folder. On some systems, browsers refuse this for local pages.
async function openDropped(handle) {
  const files = new Map();
  async function walk(folder, prefix) {
    for await (const child of folder.values()) {
      if (child.kind === "directory") await walk(child, `${prefix}${child.name}/`);
      else files.set(prefix + child.name, new FolderEntry(await child.getFile()));
    }
  }
  await walk(handle, "");
  return files;
}

// Return the files below the folder that contains the pack. People may choose a folder above it.
function packOf(files) {
  const names = [...files.keys()];
  const lengthOf = (name) => name.split("/").length;
  const marks = names
    .filter((name) => /(^|\/)(manifest\.json|pack\.sha256|verify\.html)$/.test(name))
    .filter((name) => !/(^|\/)bundles\//.test(name))
    .sort((a, b) => lengthOf(a) - lengthOf(b));
  if (marks.length === 0) return null;
  const prefix = marks[0].slice(0, marks[0].lastIndexOf("/") + 1);
  const pack = new Map();
  for (const [name, entry] of files) {
    if (name.startsWith(prefix)) pack.set(name.slice(prefix.length), entry);
  }
  return pack;
}
