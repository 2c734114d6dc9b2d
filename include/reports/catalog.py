"""Keeps the translation catalogue in step with the code: ``python -m include.reports.catalog``.

Extracts every ``_("...")`` of include/, dags/ and plugins/ and of the templates, merges them into
the ``.po`` files and keeps what is translated. ``--check`` changes nothing and names what is wrong.
"""

from __future__ import annotations

import argparse
import string
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

from include.reports.i18n import LOCALE_DIR, LOCALES

ROOT = Path(__file__).parents[2]
FOLDERS = ("dags", "include", "plugins")
_METHODS = [("**.py", "python"), ("**.j2", "jinja2")]
_WRITTEN = datetime(2026, 1, 1, tzinfo=UTC)  # git knows when; a moving date is only noise in it
_KINDS = {"", "bytes", "duration", "percent"}


@dataclass(frozen=True)
class Problem:
    """One entry that a reader of this language would stumble over."""

    text: str
    reason: str
    files: tuple[str, ...]

    def __str__(self) -> str:
        return f"{', '.join(self.files) or 'catalogue'}: {self.reason}: {self.text!r}"


def extract(root: Path = ROOT) -> Catalog:
    """Collect every message of the code and the templates."""
    template = Catalog(project="ParcelSeal", charset="utf-8")
    for folder in FOLDERS:
        if (root / folder).is_dir():
            found = extract_from_dir(
                root / folder, _METHODS, keywords={"_": None}, strip_comment_tags=True
            )
            for file, _line, message, _comments, _context in found:
                template.add(message, locations=[(f"{folder}/{Path(file).as_posix()}", 0)])
    return template


def problems(
    locale: str, template: Catalog | None = None, path: Path | None = None
) -> list[Problem]:
    """Name every message that is missing, fuzzy, obsolete, or has other fields than its source."""
    template = template or extract()
    catalogue = _read(locale, path)
    found = []
    for message in template:
        text = str(message.id)
        if not text:
            continue
        files = tuple(sorted({file for file, _line in message.locations}))
        entry = catalogue.get(text)
        if entry is None or not entry.string:
            found.append(Problem(text, "not translated", files))
        elif entry.fuzzy:
            found.append(Problem(text, "marked fuzzy", files))
        elif fields(text) != fields(str(entry.string)):
            found.append(Problem(text, f"other fields in {entry.string!r}", files))
        if unknown := {kind for _name, kind in fields(text)} - _KINDS:
            found.append(Problem(text, f"unknown format {sorted(unknown)}", files))
    known = {message.id for message in template}
    stale = [entry.id for entry in catalogue if entry.id and entry.id not in known]
    found += [Problem(str(text), "obsolete", ()) for text in [*stale, *catalogue.obsolete]]
    return found


def update(locale: str, template: Catalog | None = None, path: Path | None = None) -> None:
    """Merge the code's messages into a catalogue; translations of unchanged messages stay."""
    path = path or po_path(locale)
    catalogue = _read(locale, path)
    # A guessed translation is worse than a missing one: it looks finished.
    catalogue.update(template or extract(), no_fuzzy_matching=True, update_creation_date=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        write_po(
            stream,
            catalogue,
            width=100,
            sort_by_file=True,
            ignore_obsolete=True,
            include_lineno=False,
        )


def fields(text: str) -> set[tuple[str, str]]:
    """The ``{name:kind}`` fields of a sentence as (name, kind) pairs."""
    return {
        (name, kind or "")
        for _literal, name, kind, _conversion in string.Formatter().parse(text)
        if name is not None
    }


def po_path(locale: str) -> Path:
    """Where a catalogue is."""
    return LOCALE_DIR / locale / "LC_MESSAGES" / "messages.po"


def _read(locale: str, path: Path | None) -> Catalog:
    path = path or po_path(locale)
    if not path.exists():
        return Catalog(
            locale=locale,
            header_comment="# Texts of the reports; updated by python -m include.reports.catalog.",
            project="ParcelSeal",
            version="1",
            msgid_bugs_address="-",
            last_translator="ParcelSeal",
            language_team="ParcelSeal",
            creation_date=_WRITTEN,
            revision_date=_WRITTEN,
            charset="utf-8",
            fuzzy=False,
        )
    with path.open("rb") as stream:
        return read_po(stream, locale=locale)


def main(arguments: list[str] | None = None) -> int:
    """Update the catalogues, or check them; returns 1 when something is left to translate."""
    parser = argparse.ArgumentParser(prog="python -m include.reports.catalog", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing")
    check = parser.parse_args(arguments).check
    template = extract()
    left = []
    for locale in LOCALES:
        if locale == "en":
            continue
        if not check:
            update(locale, template)
        left += problems(locale, template)
    for problem in left:
        sys.stderr.write(f"{problem}\n")
    return 1 if left else 0


if __name__ == "__main__":
    raise SystemExit(main())
