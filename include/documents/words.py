"""The texts of a document in one language, and the entries that are still blank."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

from include.documents.model import Document, Entry, EntryValue, Form, Section, em
from include.messages import Message, _
from include.reports.html import MAX_ROWS, View
from include.reports.i18n import LOCALES, Translator, visible
from include.reports.model import Table

LONG = 600  # characters of a value that may go on on the next page
_NO_ROWS = _("No rows.")
_NOT_STATED = _("not stated")
_LEFT_BLANK = _("MISSING - this has to be filled in")
_DIGITS = "〇一二三四五六七八九"


class Words:
    """Texts and values in one language and timezone.

    Args:
        locale: ``en`` or ``zh_CN``.
        timezone: IANA name; moments are shown in it, with the offset.

    Raises:
        ValueError: there is no catalogue for the locale.
    """

    def __init__(self, locale: str, timezone: str) -> None:
        self.translator = Translator(locale, timezone)
        self.chinese = locale == "zh_CN"
        self._view = View(self.translator)

    def text(self, message: Message) -> str:
        """A text; every line ends with a line feed, and controls are shown as code points."""
        return visible(self.translator.text(_each(message, _line_feeds)))

    def letterhead(self, document: Document) -> list[str]:
        """Number and day of a document, with what they are."""
        stated = [(_("Reference"), document.reference)] if document.reference else []
        moment = self.translator.datetime(document.dated)
        return [
            self.text(_("{subject}: {message}", subject=label, message=value))
            for label, value in [*stated, (_("Date of this document"), moment)]
        ]

    def opening(self, addressee: Message) -> str:
        """The addressee with the language's colon."""
        return self.text(_("{addressee}:", addressee=addressee))

    def lines(self, entry: Entry) -> list[str]:
        """Return the lines beside a label; empty if the value is blank."""
        if blank(entry.value):
            return []
        if isinstance(entry.value, tuple):
            return [self.text(item) for item in entry.value if not blank(item)]
        if isinstance(entry.value, Message):
            return [self.text(entry.value)]
        value = _line_feeds(entry.value) if isinstance(entry.value, str) else entry.value
        return [visible(self.translator.quantity(value, entry.unit))]

    def absent(self, entry: Entry) -> str:
        """Return the text that replaces a blank value."""
        return self.translator.text(_LEFT_BLANK if entry.required else _NOT_STATED)

    def heading(self, section: Section, number: int | None) -> str:
        """A section's heading, with its number as it is written in the language."""
        if section.heading is None:
            return ""
        text = self.text(section.heading)
        if number is None:
            return text
        return f"{_chinese(number)}、{text}" if self.chinese else f"{number}. {text}"

    def grid(self, table: Table) -> list[list[str]]:
        """The cells of a table, the heading first; a table without rows says so."""
        heading = [self.text(column.label) for column in table.columns]
        if not table.rows:
            return [heading, [self.text(_NO_ROWS), *[""] * (len(heading) - 1)]]
        kinds = [column.kind for column in table.columns]
        return [heading] + [
            [visible(self._view.shown(cell, kind)) for cell, kind in zip(row, kinds, strict=True)]
            for row in table.rows[:MAX_ROWS]
        ]

    def ends(self, table: Table) -> list[bool]:
        """Which columns are figures, which end below each other."""
        return [self._view.numeric(column.kind) for column in table.columns]

    def cut(self, table: Table) -> str:
        """How much of a long table is left out; empty when it is all there."""
        if (total := len(table.rows)) <= MAX_ROWS:
            return ""
        cut = _(
            "Only the first {shown} of {total} rows are shown here.", shown=MAX_ROWS, total=total
        )
        return self.text(cut)

    def margin(self, text: str, width: float) -> str:
        """A text in one line, cut to fit the margin of a page.

        Args:
            text: which.
            width: in em.
        """
        line, used = " ".join(text.split()), 0.0
        for at, one in enumerate(line):
            used += em(one)
            if used > width:
                return f"{line[:at]}…"
        return line


def numbers(document: Document) -> list[int | None]:
    """The number of each section; None where it has no heading, or is the only one that has."""
    headed = [section.heading is not None for section in document.sections]
    if sum(headed) < 2:
        return [None] * len(headed)
    return [sum(headed[: at + 1]) if one else None for at, one in enumerate(headed)]


def blank(value: EntryValue) -> bool:
    """Return whether a value says nothing: no letter and no digit, in one of the languages."""
    if value is None or (isinstance(value, float) and value != value):
        return True
    if isinstance(value, tuple):
        return all(blank(item) for item in value)
    if isinstance(value, Message):
        said = _each(value, _seen)
        return not all(_says_something(Translator(locale).text(said)) for locale in LOCALES)
    return isinstance(value, str) and not _says_something(value)


def _says_something(text: str) -> bool:
    return any(unicodedata.category(character)[0] in "LN" for character in text)


def _each(message: Message, change: Callable[[str], str]) -> Message:
    """The message after a change of every string that is put into it."""
    values = {
        name: change(value)
        if isinstance(value, str)
        else _each(value, change)
        if isinstance(value, Message)
        else value
        for name, value in message.values.items()
    }
    return message.model_copy(update={"values": values})


def _line_feeds(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _seen(text: str) -> str:
    """A string without what nobody sees, which `visible` would spell out."""
    return "".join(character for character in text if unicodedata.category(character)[0] != "C")


def _chinese(number: int) -> str:
    """A whole number up to 99 as it stands before a heading (GB/T 9704-2012 7.3.3)."""
    tens, ones = divmod(number, 10)
    if tens > 9:
        return str(number)
    before = f"{_DIGITS[tens] if tens > 1 else ''}十" if tens else ""
    return before + (_DIGITS[ones] if ones or not tens else "")


def missing(document: Document) -> list[Message]:
    """Labels of the required fields that say nothing, in reading order.

    A value says nothing when it is None, empty, or has neither letter nor digit in one of the
    languages: white space, a dash, or the ``…`` that is left of a blotted number.
    """
    return [
        entry.label
        for section in document.sections
        for block in section.blocks
        if isinstance(block, Form)
        for entry in block.entries
        if entry.required and blank(entry.value)
    ]
