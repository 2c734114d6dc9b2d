"""Update the translation catalogues from the code: ``python -m include.reports.catalog``.

The command extracts every ``_("...")`` from the templates and from the code in include/, dags/ and
plugins/. It merges these messages into the ``.po`` files and keeps existing translations. With
``--check`` it changes no file and lists the problems of the catalogues.
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
_WRITTEN = datetime(2026, 1, 1, tzinfo=UTC)  # constant: a changing date would add noise to git
_KINDS = {"", "bytes", "duration", "percent"}


@dataclass(frozen=True)
class Problem:
    """A faulty entry of a translation catalogue.

    Attributes:
        text: source text of the message.
        reason: description of the fault.
        files: source files that use the message; empty if no file uses the message.
    """

    text: str
    reason: str
    files: tuple[str, ...]

    def __str__(self) -> str:
        return f"{', '.join(self.files) or 'catalogue'}: {self.reason}: {self.text!r}"


def extract(root: Path = ROOT) -> Catalog:
    """Collect the translatable messages of the code and the templates below a directory.

    Args:
        root: folder of the repository.
    """
    template = Catalog(project="ParcelSeal", charset="utf-8")
    for folder in FOLDERS:
        if (root / folder).is_dir():
            messages = extract_from_dir(
                root / folder, _METHODS, keywords={"_": None}, strip_comment_tags=True
            )
            for file, _line, message, _comments, _context in messages:
                template.add(message, locations=[(f"{folder}/{Path(file).as_posix()}", 0)])
    return template


def problems(
    locale: str, template: Catalog | None = None, path: Path | None = None
) -> list[Problem]:
    """Return the faulty entries of a translation catalogue.

    An entry is faulty if it is missing, untranslated, fuzzy or obsolete. It is also faulty if the
    ``{...}`` fields of the translation differ from those of the source text, or if a field has an
    unknown format.

    Args:
        locale: locale of the catalogue, such as ``zh_CN``.
        template: messages of the code; if it is None, they are extracted from the code.
        path: ``.po`` file; None for the file of the locale.
    """
    template = template or extract()
    catalogue = _read(locale, path)
    faulty = []
    for message in template:
        text = str(message.id)
        if not text:
            continue
        files = tuple(sorted({file for file, _line in message.locations}))
        entry = catalogue.get(text)
        if entry is None or not entry.string:
            faulty.append(Problem(text, "not translated", files))
        elif entry.fuzzy:
            faulty.append(Problem(text, "marked fuzzy", files))
        elif fields(text) != fields(str(entry.string)):
            faulty.append(Problem(text, f"other fields in {entry.string!r}", files))
        if unknown := {kind for _name, kind in fields(text)} - _KINDS:
            faulty.append(Problem(text, f"unknown format {sorted(unknown)}", files))
    source_ids = {message.id for message in template}
    stale = [entry.id for entry in catalogue if entry.id and entry.id not in source_ids]
    faulty += [Problem(str(text), "obsolete", ()) for text in [*stale, *catalogue.obsolete]]
    return faulty


def update(locale: str, template: Catalog | None = None, path: Path | None = None) -> None:
    """Merge the messages of the code into a translation catalogue.

    Translations of unchanged messages are kept. A new message stays without a translation; the
    translation of a similar message is not used.

    Args:
        locale: locale of the catalogue, such as ``zh_CN``.
        template: messages of the code; if it is None, they are extracted from the code.
        path: ``.po`` file; None for the file of the locale.
    """
    path = path or po_path(locale)
    catalogue = _read(locale, path)
    # A guessed translation looks finished and would be overlooked, unlike a missing translation.
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
    """Return the ``{name:kind}`` fields of a message as pairs of name and kind.

    The kind is empty for a field without a format.
    """
    return {
        (name, kind or "")
        for _literal, name, kind, _conversion in string.Formatter().parse(text)
        if name is not None
    }


def po_path(locale: str) -> Path:
    """Return the path of the ``.po`` file of a locale."""
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
    """Update or check the translation catalogues. Return 1 if problems remain, else 0."""
    parser = argparse.ArgumentParser(prog="python -m include.reports.catalog", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing")
    check = parser.parse_args(arguments).check
    template = extract()
    remaining = []
    for locale in LOCALES:
        if locale == "en":
            continue
        if not check:
            update(locale, template)
        remaining += problems(locale, template)
    for problem in remaining:
        sys.stderr.write(f"{problem}\n")
    return 1 if remaining else 0


if __name__ == "__main__":
    raise SystemExit(main())
