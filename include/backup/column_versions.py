"""Remove the column option ``pg_attver``, in which newer servers record a column's version.

Minor releases since 2026 (15.20 and 17.12, for example) keep this number in
``pg_attribute.attoptions``. Their own pg_dump omits it. An older pg_dump, such as 18.4, takes it
for a user's option, and writes ``ALTER TABLE ... SET (pg_attver=...)`` into the definition of each
table. Servers without the feature refuse that statement. Servers with the feature ignore it: each
server counts by itself.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from include.backup.archive_encoding import SURROGATES, archive_encoding, codec_of
from include.backup.archive_entry import Entry

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
