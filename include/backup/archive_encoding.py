"""Names and definitions of an archive in another encoding than UTF-8."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from include.backup.archive import Entry

SURROGATES = "surrogateescape"  # keep bytes that the encoding does not have


def encoding_of(definition: str) -> str:
    """Return the encoding that an archive's entry ``SET client_encoding = '...'`` names."""
    return definition.partition("'")[2].partition("'")[0]


def codec_of(encoding: str) -> str:
    """Return Python's codec for an encoding of PostgreSQL.

    SQL_ASCII, and an encoding that Python does not know, are read as UTF-8: other bytes of a name
    are found by `is_readable`.
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
