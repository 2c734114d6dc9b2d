"""The layout and the fixed texts of workbooks with workpapers, for writing and reading them.

The fixed texts are part of the file format. They are not in the message catalogue, because a better
translation must not make workbooks unreadable that were already issued. If the fixed texts are
changed, `FORMAT` must be changed, too.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from enum import StrEnum

from include.messages import _
from include.reports.i18n import visible
from include.workbooks.forms import (
    Choice,
    Choices,
    Column,
    Field,
    Note,
    RowFaults,
    escape_text,
    normalize_text,
)

FORMAT = "parcelseal.workpapers/2"
INSTRUCTIONS = "填写说明 Instructions"
DRAW = "抽样 Draw"
"""The very hidden sheet that names the workbook's draw."""

NUMBER = "序号 No."
STAGE = "阶段 Stage"
ORDINAL = "抽样框序位 Place in frame"
ITEM = "样本项 Item"
STRATUM = "层 Stratum"
NOTE = "备注 Note"
LOCKED = (
    Column(NUMBER, 7, returned="ignored"),
    Column(STAGE, 8),
    Column(ORDINAL, 13),
    Column(ITEM, 38),
    Column(STRATUM, 16),
)
FIXED = tuple(column.head for column in LOCKED)
CRITERION = "依据 Source:"
QUESTION_ROW, HEADER_ROW = 4, 5

PERFORMED_BY = "执行人 Performed by"
PERFORMED_ON = "执行日期 Performed on"
REVIEWED_BY = "复核人 Reviewed by"

LONGEST_NOTE = 2_000  # characters
MOST_ITEMS = 5_000  # of all populations; far above any sample size of attribute sampling
MOST_ATTRIBUTES = 40  # of one population

_LONGEST_KEY = 1_000  # characters of a key in its cell; Excel accepts 32,767 but displays fewer
_LONGEST_NAME = 31  # UTF-16 units of a sheet's name in Excel
_NOT_IN_NAMES = re.compile(r"[\[\]:*?/\\\x00-\x1f\x7f\ufffe\uffff\ud800-\udfff]")


class Answer(StrEnum):
    """The auditor's answer to the question whether a sample item meets an attribute.

    Attributes:
        MET: the item meets the attribute.
        DEVIATES: the item does not meet the attribute, which is a deviation.
        NOT_APPLICABLE: the attribute does not apply to the item.
        NOT_FOUND: the record or its proof was not found.
        MISSING: the answer is missing.
    """

    MET = "met"
    DEVIATES = "deviates"
    NOT_APPLICABLE = "not_applicable"
    NOT_FOUND = "not_found"
    MISSING = "missing"

    @property
    def deviates(self) -> bool:
        """Whether the answer counts as a deviation.

        All answers except ``MET`` and ``NOT_APPLICABLE`` count as deviations.
        """
        return self not in (Answer.MET, Answer.NOT_APPLICABLE)


CHOICES = Choices(
    {
        Answer.MET: ("符合", "Yes"),
        Answer.DEVIATES: ("不符合", "No"),
        Answer.NOT_APPLICABLE: ("不适用", "N/A"),
        Answer.NOT_FOUND: ("找不到", "Not found"),
    }
)
WORDS = CHOICES.words
ANSWER_ENTRY = Choice(CHOICES)
NOTE_ENTRY = Note(
    LONGEST_NOTE,
    lambda count, limit: _(
        "The note has {count} characters; the limit is {limit}.", count=count, limit=limit
    ),
    _("Shorten the note, and state in it where the remaining text can be found."),
)

PERFORMER = Field(
    PERFORMED_BY,
    _("The name of the person who did the work is missing."),
    _("Enter the name of the person who did the work."),
)
DAY = Field(
    PERFORMED_ON,
    _("The date is missing."),
    _("Enter the date on which the work was done, such as 2026-10-09."),
    early_message=lambda day, issued: _(
        "The date {day} is earlier than the issue date of the workpapers, {issued}.",
        day=day,
        issued=issued,
    ),
)
REVIEWER = Field(
    REVIEWED_BY,
    _("The name of the reviewer is missing."),
    _("Have another person review the work."),
)

ITEM_FAULTS = RowFaults(
    unknown=_("The row belongs to no item of this draw: it was added, or its number was changed."),
    restore=_("Remove the row, or restore its original number."),
    duplicate=lambda key: _("Item number {number} occurs twice.", number=key),
    missing=lambda key: _("The row of item number {number} is missing.", number=key),
    changed=lambda key, head: _(
        "The cell “{head}” of item number {number} was changed.", number=key, head=head
    ),
)
ISSUED = _("Fill in the workbook that was issued for this draw.")


def answer_of(text: str) -> Answer | None:
    """Return the answer that a cell's text means; None if the text is not a possible answer.

    An empty text means `Answer.MISSING`.
    """
    return CHOICES.meaning(text) if normalize_text(text) else Answer.MISSING


def cell_text(key: str) -> str:
    """Return the text for the cell that shows an item's id.

    A very long id is cut, and its length and SHA-256 are appended.
    """
    text = escape_text(key)
    if len(text) <= _LONGEST_KEY:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{text[: _LONGEST_KEY - 100]}… ({len(text)}, SHA-256 {digest})"


def sheet_names(populations: Iterable[str]) -> dict[str, str]:
    r"""Return a sheet name for each population: population id -> unique name that Excel accepts.

    Excel's rules: 1 to 31 characters, none of ``[]:*?/\``, no apostrophe at the start or end, not
    "History", and unique regardless of upper and lower case.
    """
    names: dict[str, str] = {}
    taken = {_fold(reserved) for reserved in (INSTRUCTIONS, DRAW, "History")}
    for population in populations:
        base = _NOT_IN_NAMES.sub("_", visible(population)).strip().strip("'").strip() or "_"
        name, count = _cut(base, ""), 1
        while _fold(name) in taken:
            count += 1
            name = _cut(base, f" ~{count}")
        taken.add(_fold(name))
        names[population] = name
    return names


def _fold(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _cut(base: str, suffix: str) -> str:
    end = len(base)
    while len(f"{base[:end]}{suffix}".encode("utf-16-le")) > 2 * _LONGEST_NAME:
        end -= 1
    name = base[:end] if suffix else re.sub(r"[\s']+\Z", "", base[:end])
    return f"{name or '_'}{suffix}"
