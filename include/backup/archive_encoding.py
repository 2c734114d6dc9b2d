"""Decode names and definitions of an archive that is not in UTF-8."""

from __future__ import annotations

import codecs
from collections.abc import Iterable

from include.backup.archive_entry import Entry

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
