"""An official document before it has a language or a file format.

A workflow builds one `Document`; `include.documents.render.render_forms` makes its files. A company
hands it in or sends it, so it contains only what people stated. An entry without a statement is
blank, and `include.documents.words.missing` lists the blank entries.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal
from unicodedata import east_asian_width

from pydantic import AwareDatetime, Field, model_validator

from include.frozen import StrictModel
from include.messages import Message, Value
from include.reports.model import Paragraph, Steps, Table

EntryValue = Message | Value | tuple[Message, ...] | None


class Entry(StrictModel):
    """One line of a form.

    Attributes:
        label: what is asked for, "Possible harm".
        value: a text (``verbatim`` for a person's words, with line feeds), a moment with its
            timezone, a number, several texts as a list, or None when nothing was stated.
        unit: of a number: ``people``, ``records``, ``seconds`` ...; see
            `include.reports.i18n.Translator.quantity`.
        required: the document may not go out while the value is blank.

    Raises:
        ValueError: a moment without timezone.
    """

    label: Message
    value: EntryValue = None
    unit: str = ""
    required: bool = True

    @model_validator(mode="after")
    def _moments_have_a_timezone(self) -> Entry:
        if isinstance(self.value, datetime) and self.value.tzinfo is None:
            raise ValueError(f"the moment beside {self.label.text!r} has no timezone")
        return self


class Form(StrictModel):
    """Labels and what stands beside them, in reading order."""

    kind: Literal["form"] = "form"
    entries: tuple[Entry, ...]


Block = Annotated[Form | Paragraph | Table | Steps, Field(discriminator="kind")]


class Section(StrictModel):
    """A part of the document; headings are numbered where there are two or more of them."""

    heading: Message | None = None
    blocks: tuple[Block, ...]


class Document(StrictModel):
    """A whole document in no language yet.

    Attributes:
        title: what it is, "Report on a security incident".
        dated: of which moment it is. Not when the file is made: what a task makes again has to be
            the same, byte by byte.
        subtitle: which of several, "First report".
        reference: the sender's number of it.
        addressee: how it opens, without a colon: "To the Postal Administration of Zhejiang",
            "Dear customer"; in Chinese the authority's name, 尊敬的客户.
        sender: the company.
        sections: what it says.
        signature: lines at the end, such as name and day; without a value there is room to sign.
        footer: a small note below everything, such as who keeps the original.
        marked: a warning that stands on every page, "DRILL - not a real incident".
    """

    title: Message
    dated: AwareDatetime
    subtitle: Message | None = None
    reference: str = ""
    addressee: Message | None = None
    sender: Message | None = None
    sections: tuple[Section, ...] = ()
    signature: tuple[Entry, ...] = ()
    footer: Message | None = None
    marked: Message | None = None


PAPER = 44.0  # em between the margins of the page, in the font of a table
_PADDING = 1.4  # em of a cell, left and right together
_NARROWEST = 3.0
_MOST = 200  # characters of a cell that are looked at: more does not make it wider


def em(text: str) -> float:
    """The length of a text in em: a Chinese sign is one, others about half."""
    return sum(1.0 if east_asian_width(character) in "WF" else 0.55 for character in text)


def shares(rows: Sequence[Sequence[str]]) -> list[float]:
    """The share of each column in the width of a table, together 1.

    Columns of figures and short words keep their length; long texts divide what is left.

    Args:
        rows: cells as they are shown, the heading first.
    """
    wanted = [
        max(_NARROWEST, *(em(cell[:_MOST]) for cell in column)) + _PADDING
        for column in zip(*rows, strict=True)
    ]
    widths, room = [0.0] * len(wanted), PAPER
    for done, at in enumerate(sorted(range(len(wanted)), key=wanted.__getitem__)):
        widths[at] = min(wanted[at], room / (len(wanted) - done))
        room -= widths[at]
    return [width / sum(widths) for width in widths]
