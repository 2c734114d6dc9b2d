"""A returned file before any spreadsheet library sees it: is it a plain workbook, and small enough?

What is read is handed on as a new archive of the XML parts alone, so that no header of the file
that came in, and nothing but XML, reaches the library.
"""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from include.messages import Message, _
from include.services.errors import UsageError
from include.workbooks.faults import Fault, WorkbookRefused

MOST_BYTES = 32 * 1024**2  # of the file; 5,000 items with the longest notes have 20 MB
MOST_UNPACKED = 64 * 1024**2  # bytes of all parts
MOST_PARTS = 500
MOST_CELLS = 1_000_000
MOST_ROWS, MOST_COLUMNS = 10_000, 100  # of a sheet that are read; what lies beyond is a fault
_MOST_ELEMENTS, _DEEPEST = 4_000_000, 100  # of XML
_CHUNK = 64 * 1024

_OLE2 = bytes.fromhex("d0cf11e0a1b11ae1")  # [MS-CFB] 2.2: .xls, and .xlsx with a password
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")  # [MS-OFFCRYPTO] 1.3.2
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_STRICT = "http://purl.oclc.org/ooxml/spreadsheetml/main"
_RELATION = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"

_MACROS = re.compile(r"vbaproject|vbadata|macrosheets/|xl/activex|customui/|dialogsheets/")
_MACRO_TYPES = re.compile(rb"macroEnabled|vbaProject|macrosheet", re.IGNORECASE)
_LINKS = re.compile(
    r"externallinks/[^/]+\.xml$|/connections\.xml|querytables/|/embeddings/|/model/"
)

_AS_XLSX = _("Save it as .xlsx (Excel workbook) and hand that file in.")
_AGAIN = _("Open it in a spreadsheet program, save it as .xlsx and hand it in again.")
_ISSUED = _("Fill in the workbook that was issued and put nothing else into it.")


@dataclass(frozen=True)
class Examined:
    """A file that may be given to the library.

    Attributes:
        content: an archive of its XML parts, not compressed.
        faults: what was found in it; none of them keeps the cells from being read.
        rows: as many rows of every sheet have to be read.
        columns: as many columns.
    """

    content: bytes
    faults: tuple[Fault, ...]
    rows: int
    columns: int


def read_returned(file: Path) -> bytes:
    """Return the content of a file that was handed in, at most one byte more than is taken.

    Raises:
        UsageError: the file cannot be read.
    """
    try:
        with file.open("rb") as stream:
            return stream.read(MOST_BYTES + 1)  # one more, and it is refused as too large
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}.") from None


def examine(content: bytes, name: str) -> Examined:
    """Look at a file without trusting anything in it.

    Raises:
        WorkbookRefused: it is no plain .xlsx, has a password, is too large or damaged.
    """
    parts = _parts(content, name)
    names = sorted(parts)
    if b"opendocument" in parts.get("mimetype", b"")[:200]:
        raise _refused(name, _("The file is an OpenDocument spreadsheet (.ods)."), _AS_XLSX)
    types = parts.get("[Content_Types].xml")
    if types is None:
        raise _refused(name, _("The file is an archive, but no Excel workbook."), _AS_XLSX)
    if b"sheet.binary" in types:
        raise _refused(name, _("The file is a binary workbook (.xlsb)."), _AS_XLSX)
    # Not .vml, the drawing of comments: Excel writes some that is not well-formed
    xml = {one: parts[one] for one in names if one.lower().endswith((".xml", ".rels"))}
    seen = _Seen()
    for one, body in xml.items():
        _scan(name, one, body, seen)
    if len(seen.books) != 1:
        raise _refused(name, _("The file is an archive, but no Excel workbook."), _AS_XLSX)
    if seen.strict:  # ECMA-376-1:2016, annex A: other namespaces, which few programs write
        raise _refused(name, _("The file is a Strict Open XML workbook."), _AS_XLSX)
    faults = [*_macros(names, types), *_links(names, seen), *_cells(seen)]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for one, body in xml.items():
            archive.writestr(one, body)
    return Examined(
        buffer.getvalue(),
        tuple(faults),
        min(seen.rows, MOST_ROWS),
        min(seen.columns, MOST_COLUMNS),
    )


def _refused(name: str, message: Message, action: Message) -> WorkbookRefused:
    return WorkbookRefused(name, [Fault("", "", message, action)])


def _damaged(name: str, part: str) -> WorkbookRefused:
    return _refused(name, _("The file is damaged, in its part {part}.", part=part), _AGAIN)


def _too_large(name: str) -> WorkbookRefused:
    message = _(
        "The file is larger than such a workbook can be: {most:bytes} at most, {unpacked:bytes} "
        "when unpacked, {parts} parts and {cells} cells.",
        most=MOST_BYTES,
        unpacked=MOST_UNPACKED,
        parts=MOST_PARTS,
        cells=MOST_CELLS,
    )
    return _refused(name, message, _ISSUED)


def _parts(content: bytes, name: str) -> dict[str, bytes]:
    """Every part of the archive, read in pieces: its header may lie about its size."""
    if len(content) > MOST_BYTES:
        raise _too_large(name)
    if content.startswith(_OLE2):
        if _ENCRYPTED in content:
            action = _("Save it without a password and hand it in again.")
            raise _refused(name, _("The file is protected with a password."), action)
        raise _refused(name, _("The file is an Excel 97-2003 workbook (.xls)."), _AS_XLSX)
    if not content.startswith(b"PK\x03\x04"):
        raise _refused(name, _("The file is no Excel workbook (.xlsx)."), _AS_XLSX)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return _unpacked(archive, name)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        ValueError,
        NotImplementedError,
    ) as e:
        raise _refused(
            name, _("The file is damaged: its archive cannot be unpacked."), _AGAIN
        ) from e


def _unpacked(archive: zipfile.ZipFile, name: str) -> dict[str, bytes]:
    entries = archive.infolist()
    if len(entries) > MOST_PARTS or sum(entry.file_size for entry in entries) > MOST_UNPACKED:
        raise _too_large(name)
    if any(entry.flag_bits & 1 for entry in entries):
        action = _("Save it without a password and hand it in again.")
        raise _refused(name, _("The file is protected with a password."), action)
    if len({entry.filename.lower() for entry in entries}) < len(entries):
        raise _refused(name, _("The file has two parts with one name."), _AGAIN)
    parts: dict[str, bytes] = {}
    left = MOST_UNPACKED
    for entry in entries:
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise zipfile.BadZipFile(f"method {entry.compress_type}")  # ECMA-376-2:2021, annex B
        body = bytearray()
        with archive.open(entry) as stream:
            while piece := stream.read(_CHUNK):
                body += piece
                left -= len(piece)
                if left < 0:
                    raise _too_large(name)
        parts[entry.filename] = bytes(body)
    return parts


@dataclass
class _Seen:
    """What the XML of all parts holds."""

    books: list[str] = field(default_factory=list)
    strict: bool = False
    sheets: list[tuple[str, str, str]] = field(default_factory=list)  # part, name, relation
    relations: dict[tuple[str, str], str] = field(default_factory=dict)  # part, id -> target
    external: list[str] = field(default_factory=list)  # parts of relations
    formulas: list[tuple[str, str]] = field(default_factory=list)  # part, cell
    outside: list[tuple[str, str]] = field(default_factory=list)
    elements: int = 0
    cells: int = 0
    rows: int = 1
    columns: int = 1

    def title(self, part: str) -> str:
        """The name of the sheet that a part holds."""
        for book, name, relation in self.sheets:
            target = self.relations.get((_relations_of(book), relation), "")
            if (
                posixpath.normpath(posixpath.join("/", posixpath.dirname(book), target))
                == f"/{part}"
            ):
                return name
        return part


class _TooLarge(Exception):
    """A part has more in it than is read."""


class _NotPlain(Exception):
    """A part has what no spreadsheet program writes: a DTD, cells out of order."""


class _Part:
    """Reads one part; expat calls it back."""

    def __init__(self, name: str, seen: _Seen) -> None:
        self.name, self.seen = name, seen
        self.depth = self.row = self.column = 0
        self.in_cell = False

    def doctype(self, *_declaration: object) -> None:
        # ECMA-376-2:2021, 6.2.5: no DTD in a package; entities are how XML bombs are made
        raise _NotPlain

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self.depth += 1
        self.seen.elements += 1
        if self.depth > _DEEPEST or self.seen.elements > _MOST_ELEMENTS:
            raise _TooLarge
        space, _blank, local = tag.rpartition(" ")
        if self.depth == 1 and local == "workbook":
            self.seen.strict |= space == _STRICT
            self.seen.books.append(self.name)
        if local == "Relationship" and self.name.endswith(".rels"):
            self._relation(attributes)
        elif space == _MAIN:
            self._main(local, attributes)

    def end(self, tag: str) -> None:
        self.depth -= 1
        if tag == f"{_MAIN} c":
            self.in_cell = False

    def _relation(self, attributes: Mapping[str, str]) -> None:
        if attributes.get("TargetMode", "").lower() == "external":
            self.seen.external.append(self.name)
        self.seen.relations[self.name, attributes.get("Id", "")] = attributes.get("Target", "")

    def _main(self, local: str, attributes: Mapping[str, str]) -> None:
        if local == "sheet":
            relation = attributes.get(f"{_RELATION} id", "")
            self.seen.sheets.append((self.name, attributes.get("name", ""), relation))
        elif local == "row":
            number = int(attributes.get("r", self.row + 1))
            if number <= self.row:
                raise _NotPlain
            self.row, self.column = number, 0
        elif local == "c":
            self._cell(attributes.get("r"))
        elif self.in_cell and local in ("v", "is", "f"):
            self._holds(formula=local == "f")

    def _cell(self, place: str | None) -> None:
        column = self.column + 1
        if place is not None:
            from openpyxl.utils.cell import column_index_from_string, coordinate_from_string

            letters, row = coordinate_from_string(place)
            column = column_index_from_string(letters)
            if row != self.row or column <= self.column:
                raise _NotPlain
        self.column, self.in_cell = column, True
        self.seen.cells += 1
        if self.seen.cells > MOST_CELLS:
            raise _TooLarge

    def _holds(self, *, formula: bool) -> None:
        from openpyxl.utils.cell import get_column_letter

        place = (self.name, f"{get_column_letter(self.column)}{self.row}")
        if formula:
            self.seen.formulas.append(place)
        if self.row > MOST_ROWS or self.column > MOST_COLUMNS:
            if not self.seen.outside or self.seen.outside[-1] != place:
                self.seen.outside.append(place)
            return
        self.seen.rows = max(self.seen.rows, self.row)
        self.seen.columns = max(self.seen.columns, self.column)


def _scan(name: str, part: str, body: bytes, seen: _Seen) -> None:
    from openpyxl.utils.exceptions import CellCoordinatesException

    reader = _Part(part, seen)
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartDoctypeDeclHandler = reader.doctype
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    try:
        parser.Parse(body, True)
    except _TooLarge as error:
        raise _too_large(name) from error
    except (_NotPlain, expat.ExpatError, CellCoordinatesException) as error:
        raise _damaged(name, part) from error
    except (ValueError, LookupError) as error:  # no number; an encoding that is none
        raise _damaged(name, part) from error


def _macros(names: list[str], types: bytes) -> list[Fault]:
    found = [name for name in names if _MACROS.search(name.lower())]
    if not found and not _MACRO_TYPES.search(types):
        return []
    return [Fault("", "", _("The file contains macros or controls."), _AS_XLSX)]


def _links(names: list[str], seen: _Seen) -> list[Fault]:
    faults = []
    if any(_LINKS.search(name.lower()) for name in names):
        message = _("The file contains links to other files, data connections or embedded files.")
        faults.append(Fault("", "", message, _ISSUED))
    for part in dict.fromkeys(seen.external):
        folder, base = posixpath.split(part)
        owner = posixpath.join(posixpath.dirname(folder), base.removesuffix(".rels"))
        title = seen.title(owner)
        if title == owner and "externallinks/" in owner.lower():
            continue  # said above
        message = _("There is a link to something outside of the workbook.")
        action = _("Remove hyperlinks and linked pictures; an address may stand there as text.")
        faults.append(Fault("" if title == owner else title, "", message, action))
    return faults


def _cells(seen: _Seen) -> list[Fault]:
    formula, value = _("There is a formula."), _("Put the answer or the note there as text.")
    outside, into = _("There is something far outside of the table."), _("Move it into a note.")
    return [
        *(Fault(seen.title(part), cell, formula, value) for part, cell in seen.formulas),
        *(Fault(seen.title(part), cell, outside, into) for part, cell in seen.outside),
    ]


def _relations_of(part: str) -> str:
    folder, base = posixpath.split(part)
    return posixpath.join(folder, "_rels", f"{base}.rels")
