"""The form of workpapers: what the writer and the reader of a workbook have to agree on.

The words here are part of the file's format and stand in no catalogue: a better translation must
not make a workbook unreadable that was issued before it. Who changes one changes `FORMAT` too.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from enum import StrEnum

from include.reports.i18n import visible
from include.workbooks.words import plain, same

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
FIXED = (NUMBER, STAGE, ORDINAL, ITEM, STRATUM)
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
        """Whether the item does not meet the attribute: whatever is neither met nor beside it."""
        return self not in (Answer.MET, Answer.NOT_APPLICABLE)


_WORDS = {
    Answer.MET: ("符合", "Yes"),
    Answer.DEVIATES: ("不符合", "No"),
    Answer.NOT_APPLICABLE: ("不适用", "N/A"),
    Answer.NOT_FOUND: ("找不到", "Not found"),
}
WORDS = {answer: " ".join(halves) for answer, halves in _WORDS.items()}
"""The words of the drop-down list, by answer."""


_ANSWERS = {
    same(said): answer
    for answer, (chinese, english) in _WORDS.items()
    for said in (chinese, english, f"{chinese}{english}")
} | {"": Answer.MISSING}


def answer_of(text: str) -> Answer | None:
    """Return the answer that a cell's text means; None when it is none of the words.

    Case, blanks and full-width characters do not count, and one half alone will do.
    """
    return _ANSWERS.get(same(text))


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
