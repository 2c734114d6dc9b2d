"""Load the security reviews of partners, and find sub-processors outside of China."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, tzinfo
from fractions import Fraction
from typing import Any

from sqlalchemy import Connection, select

from include.messages import Message, listed
from include.partners import questionnaire
from include.partners.questionnaire import IssuedQuestionnaire, SubmittedAnswer, SubProcessor
from include.partners.rules import Answer, Score, compute_score
from include.partners.tables import partner_answer, partner_review, partner_sub_processor
from include.policy.rates import parse_rate
from include.workbooks.forms import normalize_text

_MAX_COUNTRIES = 5  # maximum number of countries in a text
_CHINA = frozenset(
    map(
        normalize_text,
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


def outside_china(sub_processors: Iterable[SubProcessor]) -> list[SubProcessor]:
    """Return those sub-processors that are outside of China.

    A country name that this function cannot recognize counts as outside. Hong Kong, Macao and
    Taiwan count as outside: under article 38 of the Personal Information Protection Law
    (2021-11-01), providing information there is a cross-border transfer.
    """
    return [
        company
        for company in sub_processors
        if normalize_text(company.country).replace("’", "'") not in _CHINA
    ]


def country_list(sub_processors: Iterable[SubProcessor]) -> Message:
    """Return the countries or regions of sub-processors as display text.

    Each country is listed once. If there are more than five countries, the first five are listed,
    followed by an ellipsis.
    """
    spellings: dict[str, str] = {}
    for company in sub_processors:
        spellings.setdefault(normalize_text(company.country), company.country)
    names = list(spellings.values())
    more = ["…"] if len(names) > _MAX_COUNTRIES else []
    return listed([*names[:_MAX_COUNTRIES], *more])


@dataclass(frozen=True)
class Review:
    """A security review of a partner, from its opening to its decision.

    Attributes:
        id: number of the review.
        partner: number of the partner.
        opened_at: time at which the review was opened.
        opened_by: person who opened the review.
        because: reason for which the review was reopened; empty for a periodic review.
        reopened_at: time at which the review was reopened; None for a periodic review.
        issued: the questionnaire; None if it was not issued yet.
        returned_at: time at which the newest questionnaire file was returned; None if no file was
            returned yet.
        returned_by: person who handed in the newest file.
        answered_on: day on which the partner answered, as stated in the newest file.
        file_sha256: SHA-256 (hex) of the newest file.
        replaced: digest, person and time of earlier files, oldest first. A file is in this list if
            a later file replaced it, or if its answers were discarded.
        decided_at: time of the decision; None while the review is open.
        decided_by: person who decided on the review.
        passed: whether the review passed; None while the review is open.
        share: score of the answers, from 0 to 1, as stored with the decision; None while the review
            is open, or if the answers have no score.
        reason: reason for the decision.
        answers: answers by id of the question.
        sub_processors: companies that process customer information for the partner, as the partner
            stated.
    """

    id: int
    partner: str
    opened_at: datetime
    opened_by: str
    because: str = ""
    reopened_at: datetime | None = None
    issued: IssuedQuestionnaire | None = None
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
    answers: Mapping[str, SubmittedAnswer] = field(default_factory=dict)
    sub_processors: tuple[SubProcessor, ...] = ()

    @property
    def is_open(self) -> bool:
        """Return whether the review is not decided yet."""
        return self.decided_at is None

    @property
    def score(self) -> Score | None:
        """Return the score of the answers, or None if no answers were returned."""
        if self.issued is None or self.returned_at is None:
            return None
        answers = {name: answer.answer for name, answer in self.answers.items()}
        return compute_score(self.issued.asked, answers, self.issued.pass_share)

    @property
    def handed_in_by(self) -> Iterable[str]:
        """Return the people who handed in files with the partner's answers in this review."""
        last = [self.returned_by] if self.returned_by else []
        return [*last, *(file["by"] for file in self.replaced)]


@dataclass(frozen=True)
class ReviewHistory:
    """The newest security reviews of a partner, which decide whether its review is in force.

    Attributes:
        open: review that is not decided yet; None if every review is decided.
        last: review that was decided last; None if no review was decided.
        passed: latest review that passed; None if no review passed.
    """

    open: Review | None = None
    last: Review | None = None
    passed: Review | None = None

    def failed_on(self, zone: tzinfo) -> date | None:
        """Return the day on which the newest decided review failed.

        The result is None if the newest decided review passed, or if no review was decided.

        Args:
            zone: timezone in which the day is determined.
        """
        last = self.last
        if last is None or last.passed or last.decided_at is None:
            return None
        return last.decided_at.astimezone(zone).date()

    def passed_on(self, zone: tzinfo) -> date | None:
        """Return the day of the decision on the latest review that passed.

        The result is None if no review passed.

        Args:
            zone: timezone in which the day is determined.
        """
        if self.passed is None or self.passed.decided_at is None:
            return None
        return self.passed.decided_at.astimezone(zone).date()

    def reopened_on(self, zone: tzinfo) -> date | None:
        """Return the day on which the open review was reopened.

        The result is None if no review is open, or if the open review is a periodic one.

        Args:
            zone: timezone in which the day is determined.
        """
        if self.open is None or self.open.reopened_at is None:
            return None
        return self.open.reopened_at.astimezone(zone).date()


NO_REVIEWS = ReviewHistory()


def load_reviews(conn: Connection, partner: str | None = None) -> list[Review]:
    """Return security reviews of partners with their answers, oldest first.

    Args:
        conn: connection to the state database.
        partner: number of the partner whose reviews are loaded; None for the reviews of all
            partners.
    """
    query = select(partner_review).order_by(partner_review.c.id)
    if partner is not None:
        query = query.where(partner_review.c.partner == partner)
    rows = [dict(row) for row in conn.execute(query).mappings()]
    return _with_answers(conn, rows)


def load_histories(conn: Connection, partner: str | None = None) -> dict[str, ReviewHistory]:
    """Return the review history of each partner that has reviews, by partner number.

    Args:
        conn: connection to the state database.
        partner: number of the only partner to load; None for all partners.
    """
    histories: dict[str, ReviewHistory] = {}
    for review in load_reviews(conn, partner):
        before = histories.get(review.partner, NO_REVIEWS)
        if review.is_open:
            histories[review.partner] = ReviewHistory(review, before.last, before.passed)
        else:
            histories[review.partner] = ReviewHistory(
                before.open, review, review if review.passed else before.passed
            )
    return histories


def lock_open_review(conn: Connection, partner: str) -> Review | None:
    """Return a partner's open review, or None if the partner has none.

    The review stays locked until the transaction ends.
    """
    query = (
        select(partner_review)
        .where(partner_review.c.partner == partner, partner_review.c.decided_at.is_(None))
        .with_for_update()
    )
    rows = [dict(row) for row in conn.execute(query).mappings()]
    reviews = _with_answers(conn, rows)
    return reviews[0] if reviews else None


def load_review(conn: Connection, number: int) -> Review:
    """Return the security review with the given number.

    Raises:
        sqlalchemy.exc.NoResultFound: no review has this number.
    """
    query = select(partner_review).where(partner_review.c.id == number)
    return _with_answers(conn, [dict(conn.execute(query).mappings().one())])[0]


def _with_answers(conn: Connection, rows: list[dict[str, Any]]) -> list[Review]:
    numbers = [row["id"] for row in rows]
    answers: dict[int, dict[str, SubmittedAnswer]] = {}
    sub_processors: dict[int, list[SubProcessor]] = {}
    if numbers:
        table = partner_answer.c
        query = select(partner_answer).where(table.review_id.in_(numbers)).order_by(table.question)
        for row in conn.execute(query):
            answer = SubmittedAnswer(Answer(row.answer), row.note)
            answers.setdefault(row.review_id, {})[row.question] = answer
        columns = partner_sub_processor.c
        query = (
            select(partner_sub_processor)
            .where(columns.review_id.in_(numbers))
            .order_by(columns.position)
        )
        for row in conn.execute(query):
            company = SubProcessor(row.name, row.country, row.purpose)
            sub_processors.setdefault(row.review_id, []).append(company)
    return [
        _review(row, answers.get(row["id"], {}), tuple(sub_processors.get(row["id"], ())))
        for row in rows
    ]


def _review(
    row: Mapping[str, Any],
    answers: Mapping[str, SubmittedAnswer],
    sub_processors: tuple[SubProcessor, ...],
) -> Review:
    fields = {name: row[name] for name in _SAME_NAME_COLUMNS if row[name] is not None}
    return Review(
        **fields,
        because=row["reopened_because"] or "",
        issued=questionnaire.from_json(row["issued"]) if row["issued"] else None,
        replaced=tuple(row["replaced"]),
        share=parse_rate(row["score"]) if row["score"] else None,
        answers=answers,
        sub_processors=sub_processors,
    )


_SAME_NAME_COLUMNS = (  # columns that have the same names as attributes of Review
    "id", "partner", "opened_at", "opened_by", "reopened_at", "returned_at", "returned_by",
    "answered_on", "file_sha256", "decided_at", "decided_by", "passed", "reason",
)  # fmt: skip
