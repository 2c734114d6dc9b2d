"""Leave attribute versions out of an archive's definitions.

Since the minor releases of November 2026 (15.20 and 17.12, for example), a server keeps an option
``pg_attver`` of each column, with a number that differs from database to database. An older
pg_dump does not know it and writes ``ALTER TABLE ... ALTER COLUMN ... SET (pg_attver=...)``. A
server without those releases refuses that statement, so a backup could not be restored there.
"""

from __future__ import annotations

import re

_NAME = r'(?:"(?:[^"]|"")*"|[a-z_][a-z0-9_]*)'
_STATEMENT = (
    rf"(?<=;\n)(?P<start>ALTER (?:FOREIGN )?TABLE (?:ONLY )?{_NAME}\.{_NAME} ALTER COLUMN {_NAME} "
    r"SET \()(?P<options>(?:[^()\n]*, )?pg_attver=\d+(?:, [^()\n]*)?)\);\n"
)
_IN_TEXT = re.compile(_STATEMENT)
_IN_BYTES = re.compile(_STATEMENT.encode())


def without_attribute_versions(definition: str) -> str:
    """Return a definition of an archive's entry without the versions of its columns."""
    return _IN_TEXT.sub(lambda match: _rest(match["start"], match["options"]), definition)


def blank_attribute_versions(head: bytes) -> bytes:
    """Return an archive's header and table of contents without the versions of columns.

    Blanks replace them, since the table of contents states the length of each definition.
    """

    def blank(match: re.Match[bytes]) -> bytes:
        rest = _rest(match["start"].decode("latin-1"), match["options"].decode("latin-1"))
        return rest.rstrip("\n").encode("latin-1").ljust(len(match[0]) - 1) + b"\n"

    return _IN_BYTES.sub(blank, head)


def _rest(start: str, options: str) -> str:
    others = [each for each in options.split(", ") if not each.startswith("pg_attver=")]
    return f"{start}{', '.join(others)});\n" if others else ""
