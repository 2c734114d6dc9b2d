"""The model of an official document, independent of language and file format.

A workflow builds a `Document`, and `include.documents.render.render_forms` creates its files. The
company submits these files, so the document contains only statements that people made. Entries
without a statement are blank, and `include.documents.document_texts.missing_entries` lists them.
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
    """A labelled value in a document.

    Attributes:
        label: label of the value, such as "Possible harm".
        value: the value: a text (``verbatim`` for a text that a person typed), a time with a
            timezone, a number, a list of texts, or None if nobody made a statement.
        unit: unit of a number, such as ``people``, ``records`` or ``seconds``
            (`include.reports.i18n.Translator.quantity`).
        required: whether the value must be filled in before the document is submitted.

    Raises:
        ValueError: the value is a time without a timezone.
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
    """A block of a document that lists labelled values in reading order."""

    kind: Literal["form"] = "form"
    entries: tuple[Entry, ...]


Block = Annotated[Form | Paragraph | Table | Steps, Field(discriminator="kind")]


class Section(StrictModel):
    """A section of a document.

    The headings of the sections are numbered if the document has at least two headings.
    """

    heading: Message | None = None
    blocks: tuple[Block, ...]


class Document(StrictModel):
    """An official document, independent of language and file format.

    Attributes:
        title: title, such as "Report on a security incident".
        dated: date and time of the document. It is not the time at which files are created, because
            a repeated task has to create the same bytes.
        subtitle: subtitle, such as "First report".
        reference: reference number that the sender gave the document; empty if the sender gave no
            number.
        addressee: salutation without a colon, such as "To the Postal Administration of Zhejiang" or
            "Dear customer". In Chinese it is the name of the authority, or 尊敬的客户.
        sender: name of the company.
        sender_address: postal address of the company.
        policy: name and version of the policy that the document refers to.
        sections: sections of the document.
        signature: entries at the end of the document, such as name and date. For a blank value, the
            document leaves space for handwriting.
        footer: note in small type at the end of the document, such as the name of the person or
            office that keeps the original.
        warning: warning on every page, such as "DRILL - not a real incident".
    """

    title: Message
    dated: AwareDatetime
    subtitle: Message | None = None
    reference: str = ""
    addressee: Message | None = None
    sender: Message | None = None
    sender_address: Message | None = None
    policy: Message | None = None
    sections: tuple[Section, ...] = ()
    signature: tuple[Entry, ...] = ()
    footer: Message | None = None
    warning: Message | None = None


PAGE_WIDTH_EM = 44.0  # em of a table's font between the page margins
_CELL_PADDING_EM = 1.4  # em of a cell, left and right together
_MIN_WIDTH_EM = 3.0
_MAX_MEASURED = 200  # characters; a longer text does not make a column wider


def width_in_em(text: str) -> float:
    """Return the estimated width of a text in em.

    A Chinese character is 1 em wide, any other character 0.55 em.
    """
    return sum(1.0 if east_asian_width(character) in "WF" else 0.55 for character in text)


def column_shares(rows: Sequence[Sequence[str]]) -> list[float]:
    """Return the width of each column of a table as a fraction of the width of the table.

    Each column is as wide as its longest text if the table is wide enough. Otherwise, the narrow
    columns are as wide as their longest text, and the wide columns share the remaining width
    equally.

    Args:
        rows: texts of the cells, row by row. The first row has the column headers.
    """
    natural_widths = [
        max(_MIN_WIDTH_EM, *(width_in_em(cell[:_MAX_MEASURED]) for cell in column))
        + _CELL_PADDING_EM
        for column in zip(*rows, strict=True)
    ]
    widths, room = [0.0] * len(natural_widths), PAGE_WIDTH_EM
    for columns_done, index in enumerate(
        sorted(range(len(natural_widths)), key=natural_widths.__getitem__)
    ):
        widths[index] = min(natural_widths[index], room / (len(natural_widths) - columns_done))
        room -= widths[index]
    return [width / sum(widths) for width in widths]
