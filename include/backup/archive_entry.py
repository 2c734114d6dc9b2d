"""Entries of an archive's table of contents: their encoding, names and definitions.

Minor releases of PostgreSQL since 2026 (15.20 and 17.12, for example) keep a version number of each
column as ``pg_attver`` in ``pg_attribute.attoptions``. Their own pg_dump omits it. An older
pg_dump, such as 18.4, takes it for a user's option, and writes
``ALTER TABLE ... SET (pg_attver=...)`` into the definition of each table. Servers without the
feature refuse that statement, so it is removed. Servers with the feature ignore it: each server
counts by itself.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Entry:
    """A line of the archive's table of contents.

    Attributes:
        dump_id: the archive's own number of the entry.
        oid: object identifier in the dumped database.
        kind: ``TABLE DATA``, ``INDEX``, ``FK CONSTRAINT`` and so on.
        section: 1 none, 2 before the data, 3 data, 4 after the data.
        definition: the SQL that creates it.
        position: of the definition in the archive, in bytes from its begin.
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
        """Kind, schema and name for people."""
        name = f"{self.schema}.{self.name}" if self.schema else self.name
        return name if name.startswith(self.kind) else f"{self.kind} {name}"


SURROGATES = "surrogateescape"  # keep bytes that are no character of the encoding


def encoding_of(definition: str) -> str:
    """Return the encoding that an archive's entry ``SET client_encoding = '...'`` names."""
    return definition.partition("'")[2].partition("'")[0]


def codec_of(encoding: str) -> str:
    """Return Python's codec for an encoding of PostgreSQL.

    Texts in SQL_ASCII, or in an encoding that Python does not know, are read as UTF-8. Then
    `is_readable` detects names with other bytes.
    """
    plain = encoding.replace("_", "")
    for name in (encoding, plain, plain.replace("WIN", "cp"), plain.replace("KOI8", "koi8_")):
        try:
            return codecs.lookup(name).name if encoding != "SQL_ASCII" else "utf-8"
        except LookupError:
            continue
    return "utf-8"


def is_readable(text: str) -> bool:
    """Return whether each byte of a decoded text belongs to a character."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def archive_encoding(entries: Iterable[Entry]) -> str:
    """Return the encoding of an archive's texts, as PostgreSQL names it."""
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
    """Return an archive's head with blanks in place of the option, so that no position changes.

    Args:
        head: header and table of contents of an archive.
        entries: the decoded table of contents.
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
    """Return a table's definition without the option, to compare it with another server's."""
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
