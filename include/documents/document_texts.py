"""Return the texts and values of an official document in one language, and find blank entries.

The function `is_blank` defines which entries are blank.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable

from include.documents.model import Document, Entry, EntryValue, Form, Section, width_in_em
from include.messages import Message, _
from include.reports.html import MAX_ROWS, View
from include.reports.i18n import LOCALES, Translator, visible
from include.reports.model import Table

MAX_UNBROKEN = 600  # characters; a longer value may continue on the next page
_NO_ROWS = _("This table has no entries.")
_NOT_STATED = _("not stated")
_LEFT_BLANK = _("MISSING: fill in this field")
_DIGITS = "〇一二三四五六七八九"


class DocumentTexts:
    """Returns the texts and values of documents in one language, with times in one timezone.

    Args:
        locale: ``en`` or ``zh_CN``. The texts come from the translation catalogue of this locale.
        timezone: IANA name of the timezone in which times are shown, with their offset from UTC.

    Raises:
        ValueError: the locale has no translation catalogue.
    """

    def __init__(self, locale: str, timezone: str) -> None:
        self.translator = Translator(locale, timezone)
        self.chinese = locale == "zh_CN"
        self._view = View(self.translator)

    def text(self, message: Message) -> str:
        r"""Return a message as text in the language of the documents.

        Each line end becomes a line feed. Every other control character is replaced by an escape
        such as ``\u202e``.
        """
        return visible(self.translator.text(_map_strings(message, _line_feeds)))

    def letterhead(self, document: Document) -> list[str]:
        """Return lines of text for the start of a document: its reference, policy and date.

        The lines of a reference and a policy are left out if the document does not state them.
        """
        stated: list[tuple[Message, Message | str]] = []
        if document.reference:
            stated.append((_("Reference"), document.reference))
        if document.policy:
            stated.append((_("Policy and version"), document.policy))
        moment = self.translator.datetime(document.dated)
        return [
            self.text(_("{subject}: {message}", subject=label, message=value))
            for label, value in [*stated, (_("Date of this document"), moment)]
        ]

    def opening(self, addressee: Message) -> str:
        """Return the salutation of a document, with the colon that the document's language uses.

        Args:
            addressee: salutation without the colon.
        """
        return self.text(_("{addressee}:", addressee=addressee))

    def lines(self, entry: Entry) -> list[str]:
        """Return the value of an entry as lines of text.

        The list is empty if the value is blank.
        """
        if is_blank(entry.value):
            return []
        if isinstance(entry.value, tuple):
            return [self.text(item) for item in entry.value if not is_blank(item)]
        if isinstance(entry.value, Message):
            return [self.text(entry.value)]
        value = _line_feeds(entry.value) if isinstance(entry.value, str) else entry.value
        return [visible(self.translator.quantity(value, entry.unit))]

    def absent(self, entry: Entry) -> str:
        """Return the text that a document shows in place of a blank value.

        For a required entry, the text asks the reader to fill in the value. For another entry, it
        says that nothing was stated.

        Args:
            entry: the entry with the blank value.
        """
        return self.translator.text(_LEFT_BLANK if entry.required else _NOT_STATED)

    def heading(self, section: Section, number: int | None) -> str:
        """Return the heading of a section, numbered in the style of the document's language.

        Args:
            section: the section. If it has no heading, an empty text is returned.
            number: number of the section; None for a heading without a number.
        """
        if section.heading is None:
            return ""
        text = self.text(section.heading)
        if number is None:
            return text
        return f"{_chinese_number(number)}、{text}" if self.chinese else f"{number}. {text}"

    def grid(self, table: Table) -> list[list[str]]:
        """Return the texts of the cells of a table, row by row.

        The first row has the column headers. If the table has no rows, a second row states this.
        """
        heading = [self.text(column.label) for column in table.columns]
        if not table.rows:
            return [heading, [self.text(_NO_ROWS), *[""] * (len(heading) - 1)]]
        kinds = [column.kind for column in table.columns]
        return [heading] + [
            [visible(self._view.shown(cell, kind)) for cell, kind in zip(row, kinds, strict=True)]
            for row in table.rows[:MAX_ROWS]
        ]

    def numeric_columns(self, table: Table) -> list[bool]:
        """Return one boolean for each column of a table: whether its type is numeric.

        The caller aligns numeric columns to the right.
        """
        return [self._view.numeric(column.kind) for column in table.columns]

    def omitted_rows_note(self, table: Table) -> str:
        """Return a note which says that only the first rows of a long table are shown.

        The note is empty if all rows are shown.
        """
        if (total := len(table.rows)) <= MAX_ROWS:
            return ""
        note = _(
            "Only the first {shown} of {total} rows are shown here.", shown=MAX_ROWS, total=total
        )
        return self.text(note)

    def margin(self, text: str, width: float) -> str:
        """Return a text as a single line that fits the header or footer of a page.

        A text that is too wide is cut and ends with an ellipsis.

        Args:
            text: the text.
            width: maximum width in em.
        """
        line, used = " ".join(text.split()), 0.0
        for index, character in enumerate(line):
            used += width_in_em(character)
            if used > width:
                return f"{line[:index]}…"
        return line


def section_numbers(document: Document) -> list[int | None]:
    """Return the number of each section of a document, counted from 1.

    A section without a heading is not counted, and its number is None. If only one section has a
    heading, the number of this section is None as well.
    """
    has_heading = [section.heading is not None for section in document.sections]
    if sum(has_heading) < 2:
        return [None] * len(has_heading)
    return [
        sum(has_heading[: index + 1]) if is_headed else None
        for index, is_headed in enumerate(has_heading)
    ]


def is_blank(value: EntryValue) -> bool:
    """Return whether a value is blank.

    None and NaN are blank. A text is blank if it contains no letter and no digit. A message is
    blank if its English text or its Chinese text is blank. A list is blank if all its items are
    blank.

    Args:
        value: value of an entry in a document.
    """
    if value is None or (isinstance(value, float) and value != value):
        return True
    if isinstance(value, tuple):
        return all(is_blank(item) for item in value)
    if isinstance(value, Message):
        visible_message = _map_strings(value, _without_control_characters)
        return not all(_has_words(Translator(locale).text(visible_message)) for locale in LOCALES)
    return isinstance(value, str) and not _has_words(value)


def _has_words(text: str) -> bool:
    return any(unicodedata.category(character)[0] in "LN" for character in text)


def _map_strings(message: Message, change: Callable[[str], str]) -> Message:
    """Return a copy of a message, with a function applied to each of its string values.

    The function is also applied to the string values of nested messages.
    """
    values = {
        name: change(value)
        if isinstance(value, str)
        else _map_strings(value, change)
        if isinstance(value, Message)
        else value
        for name, value in message.values.items()
    }
    return message.model_copy(update={"values": values})


def _line_feeds(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _without_control_characters(text: str) -> str:
    r"""Return a text without its control characters.

    The function `visible` replaces each control character by an escape such as ``\u202e``. With
    these escapes, a text that has only control characters would not be blank.
    """
    return "".join(character for character in text if unicodedata.category(character)[0] != "C")


def _chinese_number(number: int) -> str:
    """Return the number of a heading in Chinese numerals, in the style of GB/T 9704-2012, 7.3.3.

    A number above 99 is returned in Arabic digits.
    """
    tens, units = divmod(number, 10)
    if tens > 9:
        return str(number)
    tens_text = f"{_DIGITS[tens] if tens > 1 else ''}十" if tens else ""
    return tens_text + (_DIGITS[units] if units or not tens else "")


def missing_entries(document: Document) -> list[Message]:
    """Return the labels of the blank required entries of a document, in reading order.

    `is_blank` defines which values are blank. Examples are None, white space, a dash, and the ``…``
    of a redacted number.
    """
    return [
        entry.label
        for section in document.sections
        for block in section.blocks
        if isinstance(block, Form)
        for entry in block.entries
        if entry.required and is_blank(entry.value)
    ]
