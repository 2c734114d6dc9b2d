"""Reviews of partners in the state database, their results, and sub-processors abroad."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, tzinfo
from fractions import Fraction
from typing import Any

from sqlalchemy import Connection, select

from include.partners import questionnaire
from include.partners.questionnaire import Given, Issued, SubProcessor
from include.partners.rules import Answer, Score, score
from include.partners.tables import partner_answer, partner_review, partner_sub_processor
from include.policy.rates import parse_rate
from include.workbooks.forms import same

_MOST = 5  # countries that are named
_CHINA = frozenset(
    map(
        same,
        (
            "China",
            "Mainland China",
            "People's Republic of China",
            "PRC",
            "P.R.C.",
            "P.R. China",
            "CN",
            "CHN",
            "中国",
            "中国大陆",
            "中国内地",
            "中华人民共和国",
        ),
    )
)


def abroad(named: Iterable[SubProcessor]) -> list[SubProcessor]:
    """Return the companies outside of China; an unrecognised country counts as outside.

    Hong Kong, Macao and Taiwan are told too: to give information there is to provide it outside of
    the territory in the sense of the Personal Information Protection Law (2021-11-01) 38.
    """
    return [company for company in named if same(company.country).replace("’", "'") not in _CHINA]


def countries(named: Iterable[SubProcessor]) -> str:
    """Return the first of their countries or regions, each once, as they were written."""
    found: dict[str, str] = {}
    for company in named:
        found.setdefault(same(company.country), company.country)
    names = list(found.values())
    return ", ".join(names[:_MOST]) + (", …" if len(names) > _MOST else "")


@dataclass(frozen=True)
class Review:
    """One review of a partner.

    Attributes:
        id: its number.
        partner: number of the partner.
        opened_at: when.
        opened_by: who opened it.
        because: why it was opened again; empty where its turn came.
        reopened_at: when it was opened again; None where its turn came.
        issued: the questionnaire; None before one was issued.
        returned_at: when it came back last; None while it is out.
        returned_by: who handed it in last.
        answered_on: day on which the partner answered.
        file_sha256: hex digest of the file.
        replaced: files that were handed in before, oldest first: digest, who and when.
        decided_at: when it was decided on; None while it is open.
        decided_by: who decided.
        passed: what it came to; None while it is open.
        share: the score; None where nothing was answered.
        reason: of the decision.
        answers: by id of the question.
        sub_processors: that the partner named.
    """

    id: int
    partner: str
    opened_at: datetime
    opened_by: str
    because: str = ""
    reopened_at: datetime | None = None
    issued: Issued | None = None
    returned_at: datetime | None = None
    returned_by: str = ""
    answered_on: date | None = None
    file_sha256: str = ""
    replaced: tuple[Mapping[str, str], ...] = ()
    decided_at: datetime | None = None
    decided_by: str = ""
    passed: bool | None = None
    share: Fraction | None = None
    reason: str = ""
    answers: Mapping[str, Given] = field(default_factory=dict)
    sub_processors: tuple[SubProcessor, ...] = ()

    @property
    def is_open(self) -> bool:
        """Whether it was not decided on."""
        return self.decided_at is None

    @property
    def score(self) -> Score | None:
        """The score of its answers; None while there are none."""
        if self.issued is None or self.returned_at is None:
            return None
        given = {name: one.answer for name, one in self.answers.items()}
        return score(self.issued.asked, given, self.issued.mark)

    @property
    def handed_in_by(self) -> Iterable[str]:
        """Everybody who handed in a file of it."""
        last = [self.returned_by] if self.returned_by else []
        return [*last, *(file["by"] for file in self.replaced)]


@dataclass(frozen=True)
class Known:
    """The reviews of one partner, and what they amount to.

    Attributes:
        open: the one that is open; None where none is.
        last: the one that was decided on last; None where none was.
        passed: the one that passed last, likewise.
    """

    open: Review | None = None
    last: Review | None = None
    passed: Review | None = None

    def failed_on(self, zone: tzinfo) -> date | None:
        """The day since which the last decision is that it failed; None where it is not."""
        last = self.last
        if last is None or last.passed or last.decided_at is None:
            return None
        return last.decided_at.astimezone(zone).date()

    def passed_on(self, zone: tzinfo) -> date | None:
        """The day on which one passed last; None where none did."""
        if self.passed is None or self.passed.decided_at is None:
            return None
        return self.passed.decided_at.astimezone(zone).date()

    def reopened_on(self, zone: tzinfo) -> date | None:
        """The day since which the open one is one that was opened again; None where it is not."""
        if self.open is None or self.open.reopened_at is None:
            return None
        return self.open.reopened_at.astimezone(zone).date()


NOTHING = Known()


def history(conn: Connection, partner: str | None = None) -> list[Review]:
    """Reviews with their answers, the oldest first; of one partner, where one is named."""
    query = select(partner_review).order_by(partner_review.c.id)
    if partner is not None:
        query = query.where(partner_review.c.partner == partner)
    rows = [dict(row) for row in conn.execute(query).mappings()]
    return _with_answers(conn, rows)


def known(conn: Connection, partner: str | None = None) -> dict[str, Known]:
    """Return the reviews by partner; of one partner, if it is named."""
    found: dict[str, Known] = {}
    for review in history(conn, partner):
        before = found.get(review.partner, NOTHING)
        if review.is_open:
            found[review.partner] = Known(review, before.last, before.passed)
        else:
            found[review.partner] = Known(
                before.open, review, review if review.passed else before.passed
            )
    return found


def open_one(conn: Connection, partner: str) -> Review | None:
    """The open review of a partner, locked to the end of the transaction."""
    query = (
        select(partner_review)
        .where(partner_review.c.partner == partner, partner_review.c.decided_at.is_(None))
        .with_for_update()
    )
    rows = [dict(row) for row in conn.execute(query).mappings()]
    found = _with_answers(conn, rows)
    return found[0] if found else None


def one(conn: Connection, number: int) -> Review:
    """The review of that number, which has to be there."""
    query = select(partner_review).where(partner_review.c.id == number)
    return _with_answers(conn, [dict(conn.execute(query).mappings().one())])[0]


def _with_answers(conn: Connection, rows: list[dict[str, Any]]) -> list[Review]:
    numbers = [row["id"] for row in rows]
    answers: dict[int, dict[str, Given]] = {}
    others: dict[int, list[SubProcessor]] = {}
    if numbers:
        table = partner_answer.c
        query = select(partner_answer).where(table.review_id.in_(numbers)).order_by(table.question)
        for row in conn.execute(query):
            given = Given(Answer(row.answer), row.note)
            answers.setdefault(row.review_id, {})[row.question] = given
        sub = partner_sub_processor.c
        query = select(partner_sub_processor).where(sub.review_id.in_(numbers)).order_by(sub.place)
        for row in conn.execute(query):
            named = SubProcessor(row.name, row.country, row.what_for)
            others.setdefault(row.review_id, []).append(named)
    return [
        _review(row, answers.get(row["id"], {}), tuple(others.get(row["id"], ()))) for row in rows
    ]


def _review(
    row: Mapping[str, Any], answers: Mapping[str, Given], others: tuple[SubProcessor, ...]
) -> Review:
    fields = {name: row[name] for name in _PLAIN if row[name] is not None}
    return Review(
        **fields,
        because=row["reopened_because"] or "",
        issued=questionnaire.from_json(row["issued"]) if row["issued"] else None,
        replaced=tuple(row["replaced"]),
        share=parse_rate(row["score"]) if row["score"] else None,
        answers=answers,
        sub_processors=others,
    )


_PLAIN = (  # columns that a review has under the same name
    "id", "partner", "opened_at", "opened_by", "reopened_at", "returned_at", "returned_by",
    "answered_on", "file_sha256", "decided_at", "decided_by", "passed", "reason",
)  # fmt: skip
