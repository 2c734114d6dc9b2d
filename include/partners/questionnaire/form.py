"""The form of a questionnaire: what the writer and the reader of a workbook have to agree on.

The words here are part of the file's format and stand in no catalogue: a better translation must
not make a workbook unreadable that was issued before it. Who changes one changes `FORMAT` too.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from typing import Any

from pydantic import TypeAdapter

from include.partners.score import Answer, Asked
from include.policy.rates import parse_rate
from include.workbooks.style import both
from include.workbooks.words import plain, same

FORMAT = "parcelseal.questionnaire/1"
INSTRUCTIONS = "填写说明 Instructions"
QUESTIONS = "问卷 Questionnaire"
SUB_PROCESSORS = "分包方 Sub-processors"
ISSUE = "签发 Issue"
"""The very hidden sheet that says which questionnaire the workbook is."""

NUMBER, ID, QUESTION, SOURCE = "序号 No.", "编号 Id", "问题 Question", "依据 Source"
ANSWER, NOTE = "答案 Answer", "备注 Note"
HEADS = (NUMBER, ID, QUESTION, SOURCE, ANSWER, NOTE)
HEADER_ROW = 4

ANSWERED_BY, ANSWERED_ON = "填写人 Answered by", "填写日期 Answered on"

ANY_SUB_PROCESSORS = "是否有分包方 Are there sub-processors?"
ANY_ROW, SUB_HEADER_ROW = 3, 5
NAME, COUNTRY, WHAT_FOR = (
    "名称 Name",
    "国家或地区 Country or region",
    "处理内容 What they process",
)
SUB_HEADS = (NUMBER, NAME, COUNTRY, WHAT_FOR)
MOST_SUB_PROCESSORS = 40

LONGEST_NOTE, LONGEST_NAME = 1_000, 200  # characters
SUB_LONGEST = (LONGEST_NAME, LONGEST_NAME, LONGEST_NOTE)  # of name, country, what they process

_WORDS = {
    Answer.YES: ("是", "Yes"),
    Answer.NO: ("否", "No"),
    Answer.NOT_APPLICABLE: ("不适用", "N/A"),
}
WORDS = {answer: " ".join(halves) for answer, halves in _WORDS.items()}
"""The words of the drop-down list, by answer."""

_ANSWERS = {
    same(said): answer
    for answer, (chinese, english) in _WORDS.items()
    for said in (chinese, english, f"{chinese}{english}")
}


def answer_of(text: str) -> Answer | None:
    """Return the answer that a cell's text means; None when it is none of the words."""
    return _ANSWERS.get(same(text))


@dataclass(frozen=True)
class Issued:
    """A questionnaire as it was issued to one partner.

    A workbook comes back to the same words or is refused: they are texts of the policy pack, with
    their translations.

    Attributes:
        review: number of the review that it belongs to.
        partner: number of the partner.
        name: of the company.
        tier: of the partner.
        pass_mark: share of the answered weight from which it passes, exact.
        issued_at: moment of issue.
        timezone: IANA name in which moments are shown.
        asked: the questions.
        sub_processors: whether they are asked for.
    """

    review: int
    partner: str
    name: str
    tier: int
    pass_mark: str
    issued_at: datetime
    timezone: str
    asked: tuple[Asked, ...]
    sub_processors: bool

    @property
    def mark(self) -> Fraction:
        """The pass mark as a fraction."""
        return parse_rate(self.pass_mark)

    @property
    def sheets(self) -> tuple[str, ...]:
        """The names of its sheets, in their order."""
        more = (SUB_PROCESSORS,) if self.sub_processors else ()
        return (INSTRUCTIONS, QUESTIONS, *more, ISSUE)

    @property
    def sha256(self) -> str:
        """Hex digest of what was issued: of every word and weight."""
        content = json.dumps(to_json(self), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(content.encode()).hexdigest()

    @property
    def stated(self) -> tuple[tuple[str, str], ...]:
        """What the hidden sheet says, by name."""
        return (
            ("format", FORMAT),
            ("partner", plain(self.partner)),
            ("review", str(self.review)),
            ("issued_sha256", self.sha256),
        )


def question_text(one: Asked) -> str:
    """A question as it stands in its cell, in both languages."""
    return plain(both(one.text))


def source_text(one: Asked) -> str:
    """Its source, likewise."""
    return plain(both(one.basis))


_ISSUED = TypeAdapter(Issued)


def to_json(issued: Issued) -> Any:
    """What was issued as plain JSON."""
    return _ISSUED.dump_python(issued, mode="json")


def from_json(content: Any) -> Issued:
    """What was issued, from its JSON."""
    return _ISSUED.validate_python(content)
