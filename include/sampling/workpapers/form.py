"""The form of workpapers, shared by the writer and the reader of a workbook.

The words here are part of the file's format and stand in no catalogue: a better translation must
not make a workbook unreadable that was issued before it. Who changes one changes `FORMAT` too.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from enum import StrEnum

from include.messages import _
from include.reports.i18n import visible
from include.workbooks.forms import Choice, Choices, Column, Field, Note, RowFaults, plain, same

FORMAT = "parcelseal.workpapers/2"
INSTRUCTIONS = "填写说明 Instructions"
DRAW = "抽样 Draw"
"""The very hidden sheet that says which draw the workbook belongs to."""

NUMBER = "序号 No."
STAGE = "阶段 Stage"
ORDINAL = "抽样框序位 Place in frame"
ITEM = "样本项 Item"
STRATUM = "层 Stratum"
NOTE = "备注 Note"
LOCKED = (
    Column(NUMBER, 7, returns="anyhow"),
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
MOST_ITEMS = 5_000  # of all populations: far above any sample size of attributes sampling
MOST_ATTRIBUTES = 40  # of one population

_LONGEST_KEY = 1_000  # characters of a key in its cell; Excel takes 32,767 and shows fewer
_LONGEST_NAME = 31  # UTF-16 units of a sheet's name in Excel
_NOT_IN_NAMES = re.compile(r"[\[\]:*?/\\\x00-\x1f\x7f\ufffe\uffff\ud800-\udfff]")


class Answer(StrEnum):
    """What testing one item against one attribute came to.

    Attributes:
        MET: the item meets the attribute.
        DEVIATES: it does not: a deviation.
        NOT_APPLICABLE: the attribute does not apply to the item.
        NOT_FOUND: the record or its proof was not found.
        MISSING: nobody answered.
    """

    MET = "met"
    DEVIATES = "deviates"
    NOT_APPLICABLE = "not_applicable"
    NOT_FOUND = "not_found"
    MISSING = "missing"

    @property
    def deviates(self) -> bool:
        """Whether the answer counts as a deviation: every answer but met and not applicable."""
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
    lambda count, most: _(
        "The note has {count} characters; {most} are taken.", count=count, most=most
    ),
    _("Shorten it; name where the rest can be found."),
)

PERFORMER = Field(PERFORMED_BY, _("Nobody is named who did the work."), _("Write who did it."))
DAY = Field(
    PERFORMED_ON,
    _("The day is not given."),
    _("Write the day on which the work was done, such as 2026-10-09."),
    early=lambda day, issued: _(
        "{day} is before the workpapers were issued ({issued}).", day=day, issued=issued
    ),
)
REVIEWER = Field(
    REVIEWED_BY, _("Nobody is named who reviewed the work."), _("Have somebody review it.")
)

ITEM_FAULTS = RowFaults(
    strange=_("The row is of no item of this draw: added, or its number was changed."),
    restore=_("Remove the row, or give it back the number with which it was issued."),
    twice=lambda key: _("Item number {number} is there twice.", number=key),
    missing=lambda key: _("The row of item number {number} is missing.", number=key),
    changed=lambda key, head: _(
        "{head} of item number {number} was changed.", number=key, head=head
    ),
)
ISSUED = _("Fill in the workbook that was issued for this draw.")


def answer_of(text: str) -> Answer | None:
    """Return the answer that a cell's text means; None when it is none of the words."""
    return CHOICES.meaning(text) if same(text) else Answer.MISSING


def shown(key: str) -> str:
    """Write an item's key for its cell; a very long one ends in its length and SHA-256."""
    text = plain(key)
    if len(text) <= _LONGEST_KEY:
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()
    return f"{text[: _LONGEST_KEY - 100]}… ({len(text)}, SHA-256 {digest})"


def sheet_names(populations: Iterable[str]) -> dict[str, str]:
    r"""Name the sheet of each population: valid for Excel whatever the id, and unique.

    Excel's rules: 1 to 31 characters, none of ``[]:*?/\``, no apostrophe at either end, not
    "History", and no two alike but for case.
    """
    names: dict[str, str] = {}
    taken = {_alike(one) for one in (INSTRUCTIONS, DRAW, "History")}
    for population in populations:
        base = _NOT_IN_NAMES.sub("_", visible(population)).strip().strip("'").strip() or "_"
        name, count = _cut(base, ""), 1
        while _alike(name) in taken:
            count += 1
            name = _cut(base, f" ~{count}")
        taken.add(_alike(name))
        names[population] = name
    return names


def _alike(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _cut(base: str, suffix: str) -> str:
    end = len(base)
    while len(f"{base[:end]}{suffix}".encode("utf-16-le")) > 2 * _LONGEST_NAME:
        end -= 1
    name = base[:end] if suffix else re.sub(r"[\s']+\Z", "", base[:end])
    return f"{name or '_'}{suffix}"
