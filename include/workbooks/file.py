"""Check that a returned file is a normal .xlsx workbook of limited size, before openpyxl reads it.

openpyxl does not read the returned ZIP archive. It reads a new archive with new headers, which
contains only the XML parts of the workbook.
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

MAX_BYTES = 32 * 1024**2  # a workpaper with 5,000 items and the longest notes has 20 MB
MAX_UNPACKED_BYTES = 64 * 1024**2  # bytes of all parts
MAX_PARTS = 500
MAX_CELLS = 1_000_000
MAX_ROWS, MAX_COLUMNS = 10_000, 100  # of a sheet; further cells are a fault
_MAX_ELEMENTS, _MAX_DEPTH = 4_000_000, 100  # of the XML parts
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

_AS_XLSX = _("Save the file as .xlsx (Excel workbook) and hand in that file.")
_SAVE_AGAIN = _("Open the file in a spreadsheet program, save it as .xlsx and hand it in again.")
_ISSUED = _("Fill in the issued workbook and add nothing else.")


@dataclass(frozen=True)
class CheckedFile:
    """A workbook that openpyxl can safely read.

    Attributes:
        content: uncompressed archive with only the XML parts of the workbook.
        faults: faults of the workbook that do not prevent the reading of cells.
        rows: number of rows that are read from each sheet.
        columns: number of columns that are read from each sheet.
    """

    content: bytes
    faults: tuple[Fault, ...]
    rows: int
    columns: int


def read_returned(file: Path) -> bytes:
    """Return the content of a returned file.

    If the file is too large, the content is cut one byte above the size limit. `check_file` refuses
    such content as too large.

    Raises:
        UsageError: the file cannot be read.
    """
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)  # a longer file is refused as too large
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}.") from None


def check_file(content: bytes, name: str) -> CheckedFile:
    """Check an untrusted workbook file, and return its content without risky parts.

    Args:
        content: content of the file.
        name: name of the file, for messages.

    Raises:
        WorkbookRefused: the file is not a normal .xlsx file, has a password, is too large or is
            damaged.
    """
    parts = _parts(content, name)
    names = sorted(parts)
    if b"opendocument" in parts.get("mimetype", b"")[:200]:
        raise _refused(name, _("The file is an OpenDocument spreadsheet (.ods)."), _AS_XLSX)
    types = parts.get("[Content_Types].xml")
    if types is None:
        raise _refused(name, _("The file is an archive, but not an Excel workbook."), _AS_XLSX)
    if b"sheet.binary" in types:
        raise _refused(name, _("The file is a binary workbook (.xlsb)."), _AS_XLSX)
    # Without .vml, the drawings of comments: those of Excel are not always well-formed XML
    xml = {name: parts[name] for name in names if name.lower().endswith((".xml", ".rels"))}
    xml_content = _XmlContent()
    for part, body in xml.items():
        _scan(name, part, body, xml_content)
    if len(xml_content.books) != 1:
        raise _refused(name, _("The file is an archive, but not an Excel workbook."), _AS_XLSX)
    if xml_content.strict:  # ECMA-376-1:2016, annex A: other namespaces, which few programs write
        raise _refused(name, _("The file is a Strict Open XML workbook."), _AS_XLSX)
    faults = [*_macros(names, types), *_links(names, xml_content), *_cells(xml_content)]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for part, body in xml.items():
            archive.writestr(part, body)
    return CheckedFile(
        buffer.getvalue(),
        tuple(faults),
        min(xml_content.rows, MAX_ROWS),
        min(xml_content.columns, MAX_COLUMNS),
    )


def _refused(name: str, message: Message, action: Message) -> WorkbookRefused:
    return WorkbookRefused(name, [Fault("", "", message, action)])


def _damaged(name: str, part: str) -> WorkbookRefused:
    return _refused(
        name, _("The file is damaged: its part {part} cannot be read.", part=part), _SAVE_AGAIN
    )


def _too_large(name: str) -> WorkbookRefused:
    message = _(
        "The file exceeds the allowed size of a workbook. The limits are {packed:bytes} for "
        "the file, {unpacked:bytes} for its unpacked content, {parts} parts and {cells} cells.",
        packed=MAX_BYTES,
        unpacked=MAX_UNPACKED_BYTES,
        parts=MAX_PARTS,
        cells=MAX_CELLS,
    )
    return _refused(name, message, _ISSUED)


def _parts(content: bytes, name: str) -> dict[str, bytes]:
    """Return the files inside the workbook's ZIP archive (its parts), by name.

    Each part is unpacked in chunks with a size limit, because archive headers may state wrong
    sizes.

    Args:
        content: content of the file.
        name: name of the file, for messages.
    """
    if len(content) > MAX_BYTES:
        raise _too_large(name)
    if content.startswith(_OLE2):
        if _ENCRYPTED in content:
            action = _("Save the file without a password and hand it in again.")
            raise _refused(name, _("The file is protected with a password."), action)
        raise _refused(name, _("The file is an Excel 97-2003 workbook (.xls)."), _AS_XLSX)
    if not content.startswith(b"PK\x03\x04"):
        raise _refused(name, _("The file is not an Excel workbook (.xlsx)."), _AS_XLSX)
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
            name, _("The file is damaged: its archive cannot be unpacked."), _SAVE_AGAIN
        ) from e


def _unpacked(archive: zipfile.ZipFile, name: str) -> dict[str, bytes]:
    entries = archive.infolist()
    if len(entries) > MAX_PARTS or sum(entry.file_size for entry in entries) > MAX_UNPACKED_BYTES:
        raise _too_large(name)
    if any(entry.flag_bits & 1 for entry in entries):
        action = _("Save the file without a password and hand it in again.")
        raise _refused(name, _("The file is protected with a password."), action)
    if len({entry.filename.lower() for entry in entries}) < len(entries):
        raise _refused(name, _("The file has two parts with the same name."), _SAVE_AGAIN)
    parts: dict[str, bytes] = {}
    bytes_left = MAX_UNPACKED_BYTES
    for entry in entries:
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise zipfile.BadZipFile(f"method {entry.compress_type}")  # ECMA-376-2:2021, annex B
        body = bytearray()
        with archive.open(entry) as stream:
            while piece := stream.read(_CHUNK):
                body += piece
                bytes_left -= len(piece)
                if bytes_left < 0:
                    raise _too_large(name)
        parts[entry.filename] = bytes(body)
    return parts


@dataclass
class _XmlContent:
    """Facts that `check_file` collects from all XML parts of a workbook."""

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
        """Return the name of the sheet that a part of the archive contains.

        If the part contains no sheet, return the name of the part.
        """
        for book, name, relation in self.sheets:
            target = self.relations.get((_relations_of(book), relation), "")
            if (
                posixpath.normpath(posixpath.join("/", posixpath.dirname(book), target))
                == f"/{part}"
            ):
                return name
        return part


class _TooLarge(Exception):
    """Raised if a part of the workbook's ZIP archive exceeds a limit."""


class _NotPlain(Exception):
    """Raised if an XML part of a workbook has a DTD, or rows or cells in wrong order.

    No spreadsheet program writes such parts.
    """


class _PartScanner:
    """Collects facts about one XML part of a workbook.

    The XML parser expat calls the methods of this class.
    """

    def __init__(self, name: str, content: _XmlContent) -> None:
        self.name, self.content = name, content
        self.depth = self.row = self.column = 0
        self.in_cell = False

    def doctype(self, *_declaration: object) -> None:
        # ECMA-376-2:2021, 6.2.5 forbids DTDs; entities make XML bombs
        raise _NotPlain

    def start(self, tag: str, attributes: Mapping[str, str]) -> None:
        self.depth += 1
        self.content.elements += 1
        if self.depth > _MAX_DEPTH or self.content.elements > _MAX_ELEMENTS:
            raise _TooLarge
        space, _blank, local = tag.rpartition(" ")
        if self.depth == 1 and local == "workbook":
            self.content.strict |= space == _STRICT
            self.content.books.append(self.name)
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
            self.content.external.append(self.name)
        self.content.relations[self.name, attributes.get("Id", "")] = attributes.get("Target", "")

    def _main(self, local: str, attributes: Mapping[str, str]) -> None:
        if local == "sheet":
            relation = attributes.get(f"{_RELATION} id", "")
            self.content.sheets.append((self.name, attributes.get("name", ""), relation))
        elif local == "row":
            number = int(attributes.get("r", self.row + 1))
            if number <= self.row:
                raise _NotPlain
            self.row, self.column = number, 0
        elif local == "c":
            self._cell(attributes.get("r"))
        elif self.in_cell and local in ("v", "is", "f"):
            self._record_value(formula=local == "f")

    def _cell(self, coordinate: str | None) -> None:
        column = self.column + 1
        if coordinate is not None:
            from openpyxl.utils.cell import column_index_from_string, coordinate_from_string

            letters, row = coordinate_from_string(coordinate)
            column = column_index_from_string(letters)
            if row != self.row or column <= self.column:
                raise _NotPlain
        self.column, self.in_cell = column, True
        self.content.cells += 1
        if self.content.cells > MAX_CELLS:
            raise _TooLarge

    def _record_value(self, *, formula: bool) -> None:
        from openpyxl.utils.cell import get_column_letter

        cell = (self.name, f"{get_column_letter(self.column)}{self.row}")
        if formula:
            self.content.formulas.append(cell)
        if self.row > MAX_ROWS or self.column > MAX_COLUMNS:
            if not self.content.outside or self.content.outside[-1] != cell:
                self.content.outside.append(cell)
            return
        self.content.rows = max(self.content.rows, self.row)
        self.content.columns = max(self.content.columns, self.column)


def _scan(name: str, part: str, body: bytes, content: _XmlContent) -> None:
    from openpyxl.utils.exceptions import CellCoordinatesException

    reader = _PartScanner(part, content)
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
    except (ValueError, LookupError) as error:  # an invalid number or encoding
        raise _damaged(name, part) from error


def _macros(names: list[str], types: bytes) -> list[Fault]:
    macro_parts = [name for name in names if _MACROS.search(name.lower())]
    if not macro_parts and not _MACRO_TYPES.search(types):
        return []
    return [Fault("", "", _("The file contains macros or controls."), _AS_XLSX)]


def _links(names: list[str], content: _XmlContent) -> list[Fault]:
    faults = []
    if any(_LINKS.search(name.lower()) for name in names):
        message = _("The file contains embedded files, data connections or links to other files.")
        faults.append(Fault("", "", message, _ISSUED))
    for part in dict.fromkeys(content.external):
        folder, base = posixpath.split(part)
        owner = posixpath.join(posixpath.dirname(folder), base.removesuffix(".rels"))
        title = content.title(owner)
        if title == owner and "externallinks/" in owner.lower():
            continue  # already reported
        message = _("The workbook contains a link to a target outside of the workbook.")
        action = _(
            "Remove hyperlinks and linked pictures. Web addresses are allowed as plain text."
        )
        faults.append(Fault("" if title == owner else title, "", message, action))
    return faults


def _cells(content: _XmlContent) -> list[Fault]:
    formula, replace_formula = (
        _("The cell contains a formula."),
        _("Replace the formula with the text of the answer or note."),
    )
    outside, move_content = (
        _("The cell is far outside of the table and is not empty."),
        _("Move the content of this cell into a note cell of the table, and clear this cell."),
    )
    return [
        *(
            Fault(content.title(part), cell, formula, replace_formula)
            for part, cell in content.formulas
        ),
        *(
            Fault(content.title(part), cell, outside, move_content)
            for part, cell in content.outside
        ),
    ]


def _relations_of(part: str) -> str:
    folder, base = posixpath.split(part)
    return posixpath.join(folder, "_rels", f"{base}.rels")
