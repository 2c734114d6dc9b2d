"""The form of a workbook that people fill in, declared once for its writer and its reader.

`include.workbooks.drawing` draws a form; `include.workbooks.returned` reads it back. Labels are
part of a form's format and stand in no catalogue: a better translation must not make a workbook
unreadable that was issued before it. A change of a form changes its format's name too.

Texts of cells are written so that they come back, and compared by what people mean.
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

# `\u0041` is how a character is written that cannot stand in a cell, `_x0041_` is how the file
# format itself does it (ECMA-376-1:2016, 22.9.2.19): programs turn both into something else.
_ESCAPES = re.compile(r"\\(?=u[0-9a-fA-F]{4})|[xX](?=[0-9a-fA-F]{4}_)")


def same(text: str) -> str:
    """Reduce a text to what people mean by it: no blanks, full width or case."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    return "".join(
        character
        for character in plain
        if not character.isspace() and unicodedata.category(character) not in ("Cf", "Cc")
    )


def plain(text: str) -> str:
    r"""Write a text so that every program shows, and gives back, the same characters.

    Controls, carriage returns, surrogates and direction marks become ``\u0001``; two different
    texts never become the same. Line feeds and tabs stay.
    """
    return visible(_ESCAPES.sub(lambda found: f"\\u{ord(found.group()):04x}", text))


def each(message: Message) -> tuple[str, ...]:
    """Return a message in Chinese and English; once when both are the same."""
    return tuple(dict.fromkeys(Translator(locale).text(message) for locale in ("zh_CN", "en")))


def both(message: Message) -> str:
    """Return a message in Chinese and English, a line each."""
    return "\n".join(each(message))


def beside(message: Message) -> str:
    """Return a message in Chinese and English, in one line."""
    return " / ".join(each(message))


ANSWER_TITLE = "答案 Answer"
AnswerT = TypeVar("AnswerT", bound=StrEnum, covariant=True)


class Choices(Generic[AnswerT]):
    """The words of a drop-down list.

    Args:
        words: Chinese and English by answer, in the order of the list.
    """

    def __init__(self, words: Mapping[AnswerT, tuple[str, str]]) -> None:
        self.words = {answer: " ".join(halves) for answer, halves in words.items()}
        self._meanings = {
            same(text): answer
            for answer, (chinese, english) in words.items()
            for text in (chinese, english, chinese + english)
        }

    def meaning(self, text: str) -> AnswerT | None:
        """Return the answer that a cell's text means; None when it is none of the words.

        Case, blanks and full-width characters do not count, and one half alone will do.
        """
        return self._meanings.get(same(text))


@dataclass(frozen=True)
class Choice(Generic[AnswerT]):
    """A cell in which an answer is chosen from a list.

    Attributes:
        choices: the words.
        offered: the answers of the list; empty for all of them.
        required: whether a blank cell is a fault.
        not_offered: the fault of an answer that this list does not offer; needed with ``offered``.
    """

    choices: Choices[AnswerT]
    offered: tuple[AnswerT, ...] = ()
    required: bool = False
    not_offered: Message | None = None

    @property
    def words(self) -> list[str]:
        """The words of the list."""
        offered = self.offered or self.choices.words
        return [self.choices.words[answer] for answer in offered]


@dataclass(frozen=True)
class Note:
    """A cell for free text.

    Attributes:
        most: characters that are taken.
        too_long: the fault of a longer text, of its length and ``most``.
        shorten: what to do about it.
        private: whether the text is one line, and refused where it holds a number of a person.
    """

    most: int
    too_long: Callable[[int, int], Message]
    shorten: Message
    private: bool = False


Entry = Choice[StrEnum] | Note


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        head: its label.
        width: in characters.
        entry: what its cells take; None for a locked column.
        question: stands over the head; empty for none.
        returns: how a locked cell must come back: as it is, the same to a reader, or in any way.
    """

    head: str
    width: int
    entry: Entry | None = None
    question: str = ""
    returns: Literal["exactly", "same", "anyhow"] = "exactly"


@dataclass(frozen=True)
class Line:
    """A row of a table.

    Attributes:
        values: of the locked columns, in their order.
        entries: by head, what the row takes instead of what its column takes.
    """

    values: tuple[int | str, ...]
    entries: Mapping[str, Entry] = field(default_factory=dict)


@dataclass(frozen=True)
class RowFaults:
    """The faults of rows that are not those of the table.

    Attributes:
        strange: a row of no key of the table.
        restore: what to do about it.
        twice: of a key that a second row has.
        missing: of a key that no row has.
        changed: of the key and the head of a locked cell that differs.
    """

    strange: Message
    restore: Message
    twice: Callable[[int | str], Message]
    missing: Callable[[int | str], Message]
    changed: Callable[[int | str, str], Message]


@dataclass(frozen=True)
class Table:
    """A table of a sheet.

    Attributes:
        header_row: of the heads.
        columns: from left to right.
        lines: from top to bottom.
        key: head of the locked column that names a row; empty where rows are free to fill in.
        faults: of its rows; needed with a key.
        arranged: whether people may move columns, and filter.
        frozen: columns that stay when the sheet is scrolled.
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
        """The locked columns."""
        return [column for column in self.columns if column.entry is None]

    @property
    def is_numbered(self) -> bool:
        """Whether a number names a row."""
        return bool(self.lines) and isinstance(self.key_of(self.lines[0]), int)

    def key_of(self, line: Line) -> int | str:
        """The value that names a row."""
        heads = [column.head for column in self.locked]
        return line.values[heads.index(self.key)]


@dataclass(frozen=True)
class Field:
    """A row of the first sheet that is filled in: its label, and a cell beside it.

    Attributes:
        label: in both languages.
        blank: the fault of a blank cell.
        action: what to do about it.
        early: of a day: the fault of one before the day of issue, of both.
    """

    label: str
    blank: Message
    action: Message
    early: Callable[[date, date], Message] | None = None


@dataclass(frozen=True)
class Cover:
    """The first sheet: facts, fields to fill in, and instructions.

    Attributes:
        title: of the workbook.
        facts: names and values of what was issued.
        fields: to be filled in.
        steps: how to fill the workbook in.
        legend: what its words mean.
    """

    title: Message
    facts: Sequence[tuple[Message, str]]
    fields: Sequence[Field]
    steps: Sequence[Message]
    legend: Sequence[tuple[str, Message]] = ()


@dataclass(frozen=True)
class Binding:
    """The very hidden sheet that says what a workbook was issued for.

    Attributes:
        sheet: its name.
        facts: names and values to which a workbook comes back; the first is its format.
        strange: by name, the fault of another value, of that and the due one.
        action: what to do about it.
        notes: further names and values.
    """

    sheet: str
    facts: tuple[tuple[str, str], ...]
    strange: Mapping[str, Callable[[str, str], Message]]
    action: Message
    notes: tuple[tuple[str, str], ...] = ()
