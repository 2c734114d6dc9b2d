"""Describe the layout of a workbook that people fill in.

An *issue* of a workbook is one file that was created for people to fill in, such as the
questionnaire for one review of a partner. A hidden sheet (`Binding`) identifies the issue.

`include.workbooks.drawing` draws the workbook from the description, and
`include.workbooks.returned` uses the same description to read the returned workbook. Labels of
cells are constants and not messages of the translation catalogue, because a changed translation
must not make issued workbooks unreadable. A changed layout gets a new format name.

Texts that are written into cells are escaped, so that every spreadsheet program keeps them
unchanged. Texts of returned cells are normalized before they are compared.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from typing import Generic, Literal, TypeVar

from include.messages import Message
from include.reports.i18n import Translator, visible

# `\u0041` is our escape of a character that a cell cannot hold, `_x0041_` that of the file format
# (ECMA-376-1:2016, 22.9.2.19): programs would convert both.
_ESCAPES = re.compile(r"\\(?=u[0-9a-fA-F]{4})|[xX](?=[0-9a-fA-F]{4}_)")


def normalize_text(text: str) -> str:
    """Normalize a text for comparison: casefold it, remove white space and invisible characters.

    Full-width characters become normal characters.
    """
    normalized = unicodedata.normalize("NFKC", text).casefold()
    return "".join(
        character
        for character in normalized
        if not character.isspace() and unicodedata.category(character) not in ("Cf", "Cc")
    )


def escape_text(text: str) -> str:
    r"""Escape a text so that every program shows and returns the same characters.

    Control characters, carriage returns, surrogates and direction marks become escapes such as
    ``\u0001``. Two different texts never have the same result. Line feeds and tabs are kept.
    """
    return visible(_ESCAPES.sub(lambda match: f"\\u{ord(match.group()):04x}", text))


def in_languages(message: Message) -> tuple[str, ...]:
    """Return a message in Chinese and English, or only once if both texts are equal."""
    return tuple(dict.fromkeys(Translator(locale).text(message) for locale in ("zh_CN", "en")))


def in_two_lines(message: Message) -> str:
    """Return a message in Chinese and English, each in a separate line."""
    return "\n".join(in_languages(message))


def in_one_line(message: Message) -> str:
    """Return a message in Chinese and English in one line, separated by a slash."""
    return " / ".join(in_languages(message))


ANSWER_TITLE = "答案 Answer"
AnswerT = TypeVar("AnswerT", bound=StrEnum, covariant=True)


class Choices(Generic[AnswerT]):
    """The words in the drop-down list of a cell.

    Args:
        words: Chinese and English word for each answer, in the order of the list.
    """

    def __init__(self, words: Mapping[AnswerT, tuple[str, str]]) -> None:
        self.words = {answer: " ".join(halves) for answer, halves in words.items()}
        self._meanings = {
            normalize_text(text): answer
            for answer, (chinese, english) in words.items()
            for text in (chinese, english, chinese + english)
        }

    def meaning(self, text: str) -> AnswerT | None:
        """Return the answer that the text of a cell means, or None if it means no answer.

        Case, spaces and full-width characters are ignored. The text may be the Chinese word, the
        English word or both.
        """
        return self._meanings.get(normalize_text(text))


@dataclass(frozen=True)
class Choice(Generic[AnswerT]):
    """An input cell with a drop-down list of answers.

    Attributes:
        choices: words of the answers.
        offered: answers that the list offers; empty if it offers all answers.
        required: whether a blank cell is a fault.
        not_offered: message for an answer that the list does not offer; required if `offered` is
            not empty.
    """

    choices: Choices[AnswerT]
    offered: tuple[AnswerT, ...] = ()
    required: bool = False
    not_offered: Message | None = None

    @property
    def words(self) -> list[str]:
        """Return the words that the list offers."""
        offered = self.offered or self.choices.words
        return [self.choices.words[answer] for answer in offered]


@dataclass(frozen=True)
class Note:
    """An input cell for free text.

    Attributes:
        max_length: maximum number of characters.
        too_long_message: function that returns the message for a text that is too long. Its
            arguments are the length of the text and `max_length`.
        shorten_action: corrective action for a text that is too long.
        private: whether a text with a mobile number or an ID number is refused. If this is True,
            each text is also converted to a single line.
    """

    max_length: int
    too_long_message: Callable[[int, int], Message]
    shorten_action: Message
    private: bool = False


Entry = Choice[StrEnum] | Note


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        head: header of the column.
        width: width in characters.
        entry: type of input in the cells; None for a locked column.
        question: text above the header; may be empty.
        returned: how a returned cell of a locked column is compared with the issued cell: exactly,
            normalized, or not at all.
    """

    head: str
    width: int
    entry: Entry | None = None
    question: str = ""
    returned: Literal["exact", "normalized", "ignored"] = "exact"


@dataclass(frozen=True)
class Line:
    """A row of a table.

    Attributes:
        values: values of the locked columns, from left to right.
        entries: types of input for cells whose type differs from the type of their column, by
            header of the column.
    """

    values: tuple[int | str, ...]
    entries: Mapping[str, Entry] = field(default_factory=dict)


@dataclass(frozen=True)
class RowFaults:
    """Messages for rows that differ from the issued table.

    Attributes:
        unknown: message for a row whose key is not in the issued table.
        restore: corrective action for a row whose key is not in the issued table.
        duplicate: function that returns the message for a key that several rows have.
        missing: function that returns the message for a key that no row has.
        changed: function that returns the message for a changed locked cell. Its arguments are the
            key of the row and the header of the column.
    """

    unknown: Message
    restore: Message
    duplicate: Callable[[int | str], Message]
    missing: Callable[[int | str], Message]
    changed: Callable[[int | str, str], Message]


@dataclass(frozen=True)
class Table:
    """A table of a sheet.

    Attributes:
        header_row: number of the row with the column headers.
        columns: columns from left to right.
        lines: rows from top to bottom.
        key: header of the locked column that identifies a row; empty if people may fill in any row.
        faults: messages for rows that differ from the issued table; required if `key` is not empty.
        arranged: whether people may move columns and filter rows.
        frozen: number of columns on the left that stay visible when the sheet is scrolled.
    """

    header_row: int
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    key: str = ""
    faults: RowFaults | None = None
    arranged: bool = False
    frozen: int = 0

    @property
    def locked(self) -> list[Column]:
        """Return the columns that people cannot edit."""
        return [column for column in self.columns if column.entry is None]

    @property
    def is_numbered(self) -> bool:
        """Return whether the keys of the rows are numbers."""
        return bool(self.lines) and isinstance(self.key_of(self.lines[0]), int)

    def key_of(self, line: Line) -> int | str:
        """Return the key that identifies a row."""
        heads = [column.head for column in self.locked]
        return line.values[heads.index(self.key)]


@dataclass(frozen=True)
class Field:
    """A labelled input cell on the first sheet of a workbook.

    Attributes:
        label: label in both languages.
        blank_message: message for a blank cell.
        action: corrective action for a blank or invalid cell.
        early_message: function that returns the message for a date before the date of issue. Its
            arguments are the entered date and the date of issue. None if the cell is for text.
    """

    label: str
    blank_message: Message
    action: Message
    early_message: Callable[[date, date], Message] | None = None


@dataclass(frozen=True)
class Cover:
    """The first sheet of a workbook: facts, input cells and instructions.

    Attributes:
        title: title of the workbook.
        facts: names and values of facts about the issued workbook.
        fields: input cells.
        steps: instructions to fill in the workbook.
        legend: words that the workbook uses, with their meaning.
    """

    title: Message
    facts: Sequence[tuple[Message, str]]
    fields: Sequence[Field]
    steps: Sequence[Message]
    legend: Sequence[tuple[str, Message]] = ()


@dataclass(frozen=True)
class Binding:
    """The hidden sheet that identifies the issue of a workbook.

    The docstring of this module defines *issue*. Excel offers no menu item that shows the sheet.

    Attributes:
        sheet: name of the sheet.
        facts: names and values that a returned workbook must have. The first value is the format
            name of the layout.
        wrong: for each name, the function that returns the message for a wrong value. Its arguments
            are the wrong value and the expected value.
        action: corrective action for a workbook of another issue.
        notes: further names and values, which are not compared.
    """

    sheet: str
    facts: tuple[tuple[str, str], ...]
    wrong: Mapping[str, Callable[[str, str], Message]]
    action: Message
    notes: tuple[tuple[str, str], ...] = ()
