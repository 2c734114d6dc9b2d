"""Decode entries of an archive's table of contents: encoding, names and definitions.

This module also removes ``pg_attver`` from definitions. Since 2026, minor releases of PostgreSQL,
such as 15.20 and 17.12, store a version number of each column as ``pg_attver`` in
``pg_attribute.attoptions``. The pg_dump of these releases omits this number. An older pg_dump, such
as 18.4, takes it for an option that a user has set, and writes ``ALTER TABLE ... SET
(pg_attver=...)`` into the definition of each table. Servers without ``pg_attver`` refuse this
statement. Servers with ``pg_attver`` do not need the statement, because each server counts the
versions itself.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Entry:
    """An entry of an archive's table of contents. It describes one database object or its data.

    Attributes:
        dump_id: number of the entry in the archive.
        oid: object identifier in the dumped database.
        name: name of the object.
        kind: type of the entry, such as ``TABLE DATA``, ``INDEX`` or ``FK CONSTRAINT``.
        section: section of pg_restore: 1 for none, 2 for pre-data, 3 for data, 4 for post-data.
        definition: SQL statement that creates the object.
        schema: schema of the object; empty if the object belongs to no schema.
        position: position of the definition in the archive, in bytes from the beginning.
    """

    dump_id: int
    oid: int
    name: str
    kind: str
    section: int
    definition: str
    schema: str
    position: int = field(default=0, compare=False)

    @property
    def label(self) -> str:
        """Return the type, schema and name of the entry as display text."""
        name = f"{self.schema}.{self.name}" if self.schema else self.name
        return name if name.startswith(self.kind) else f"{self.kind} {name}"


SURROGATES = "surrogateescape"  # keep bytes that are not characters of the encoding


def encoding_of(definition: str) -> str:
    """Return the encoding that a statement ``SET client_encoding = '...'`` names.

    Args:
        definition: the statement. An archive contains it as the definition of its entry
            ``ENCODING``.
    """
    return definition.partition("'")[2].partition("'")[0]


def codec_of(encoding: str) -> str:
    """Return the name of the Python codec for a PostgreSQL encoding.

    For SQL_ASCII, and for an encoding that Python does not know, the result is UTF-8. Names whose
    bytes are not valid UTF-8 can then be detected with `is_readable`.
    """
    plain = encoding.replace("_", "")
    for name in (encoding, plain, plain.replace("WIN", "cp"), plain.replace("KOI8", "koi8_")):
        try:
            return codecs.lookup(name).name if encoding != "SQL_ASCII" else "utf-8"
        except LookupError:
            continue
    return "utf-8"


def is_readable(text: str) -> bool:
    """Return whether a decoded text contains no byte that was invalid in the original encoding.

    Args:
        text: decoded text, in which each invalid byte was replaced by a lone surrogate.
    """
    return not any("\ud800" <= character <= "\udfff" for character in text)


def archive_encoding(entries: Iterable[Entry]) -> str:
    """Return PostgreSQL's name for the encoding of an archive; UTF8 if the archive names none."""
    return next((encoding_of(e.definition) for e in entries if e.kind == "ENCODING"), "UTF8")


KINDS = {"TABLE", "FOREIGN TABLE", "MATERIALIZED VIEW"}  # whose definitions have such statements
_NAME = rb'(?:"(?:[^"]|"")+"|[\w$\x80-\xff]+)'
_STATEMENT = re.compile(
    rb"(?<=\n)ALTER (?:FOREIGN )?TABLE ONLY %(n)s\.%(n)s ALTER COLUMN %(n)s SET \([^()]*\);\n?"
    % {b"n": _NAME}
)
_OPTION = re.compile(rb"\bpg_attver=\d+, |(?:, )?\bpg_attver=\d+(?=\);)")
_EMPTY = re.compile(rb"SET \( *\);$")


def loadable_head(head: bytes, entries: Sequence[Entry]) -> bytes:
    """Return an archive's head in which ``pg_attver`` is overwritten with spaces.

    Servers without ``pg_attver`` accept this head. A statement that sets only ``pg_attver`` is
    overwritten completely. The head keeps its length, and all other bytes keep their positions.

    Args:
        head: header and table of contents of an archive.
        entries: decoded table of contents.
    """
    loadable = bytearray(head)
    codec = codec_of(archive_encoding(entries))
    for entry in entries:
        definition = entry.definition.encode(codec, SURROGATES)
        if entry.kind in KINDS and b"pg_attver=" in definition:
            end = entry.position + len(definition)
            loadable[entry.position : end] = _STATEMENT.sub(_blank, definition)
    return bytes(loadable)


def without_column_versions(definition: str) -> str:
    """Return a table's definition without the column versions (``pg_attver``).

    Only definitions without these versions can be compared between two servers.
    """
    if "pg_attver=" not in definition:
        return definition
    text = _STATEMENT.sub(_remove, definition.encode("utf-8", SURROGATES))
    return text.decode("utf-8", SURROGATES)


def _blank(statement: re.Match[bytes]) -> bytes:
    text = _OPTION.sub(lambda option: b" " * len(option.group()), statement.group())
    return b" " * len(text) if _EMPTY.search(text) else text


def _remove(statement: re.Match[bytes]) -> bytes:
    text = _OPTION.sub(b"", statement.group())
    return b"" if _EMPTY.search(text) else text
