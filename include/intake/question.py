"""What the reviewer is asked, as Markdown, in both languages.

The page holds counts and the masked sample. It is made where it is shown and goes nowhere else:
not into XCom, not into a log, not into the evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from include.approvals.question import LANGUAGES, in_both, markdown_table, names
from include.intake.checks import FAIL, Verdict
from include.intake.sample import MaskedRows
from include.messages import Message, _
from include.reports.i18n import Translator

_MOST_NAMES = 10  # of those who may answer; the others are counted


@dataclass(frozen=True)
class Facts:
    """What is known of a batch when the question is asked.

    Attributes:
        batch: its name.
        rows: pending ones.
        oldest: when the first was entered.
        newest: when the last was.
        due: until when they should be reviewed.
        overdue: whether that has passed.
        enterers: user ids of those who entered them.
        reviewers: user ids of those who may answer.
        sha256: of the batch.
        clean: rows that break no rule which keeps them out; None when they were not counted.
        verdicts: by rule.
    """

    batch: str
    rows: int
    oldest: datetime
    newest: datetime
    due: datetime
    overdue: bool
    enterers: Sequence[str]
    reviewers: Sequence[str]
    sha256: str
    clean: int | None
    verdicts: Sequence[Verdict]


def subject(facts: Facts, timezone: str) -> str:
    """Return the headline of a question: in lists of questions it says by when and how late."""
    values = {"batch": facts.batch, "rows": facts.rows, "due": facts.due}
    headline = (
        _("Batch {batch}: {rows} records wait for review, OVERDUE since {due}", **values)
        if facts.overdue
        else _("Batch {batch}: {rows} records wait for review, by {due}", **values)
    )
    return in_both(headline, timezone)


def body(facts: Facts, sample: MaskedRows, timezone: str) -> str:
    """Return the page: counts and failures by rule in each language, then the masked sample."""
    parts = []
    notes = []
    for language, name in LANGUAGES.items():
        words = Translator(language, timezone)
        lines = [words.text(one) for one in _facts(facts)]
        parts.append(f"### {name}")
        parts.append("\n".join(f"- {line}" for line in lines))
        parts.append(_rules(facts.verdicts, words))
        notes.append(words.text(_sample_note(sample)))
    heading = in_both(_("Masked sample"))
    parts += [f"### {heading}", *notes, _table(sample)]
    return "\n\n".join(parts) + "\n"


def _facts(facts: Facts) -> list[Message]:
    due = (
        _("To be reviewed by {due}: **overdue**", due=facts.due)
        if facts.overdue
        else _("To be reviewed by {due}", due=facts.due)
    )
    clean = (
        []
        if facts.clean is None
        else [
            _(
                "{clean} of {rows} records break no rule that keeps them out",
                clean=facts.clean,
                rows=facts.rows,
            )
        ]
    )
    return [
        _("{rows} records, entered by {people}", rows=facts.rows, people=names(facts.enterers)),
        _("Entered from {oldest} to {newest}", oldest=facts.oldest, newest=facts.newest),
        due,
        *clean,
        _answerers(facts.reviewers),
        _("Your decision is bound to this content: SHA-256 {sha256}", sha256=facts.sha256),
        _("Approve: records that break no rule become formal ones; the others are set aside."),
        _("Reject: none becomes formal. A reason is required; write no customer's data into it."),
    ]


def _answerers(reviewers: Sequence[str]) -> Message:
    """Whoever else answers is told by Airflow that it is refused, and not who may."""
    named = names(reviewers[:_MOST_NAMES])
    if more := len(reviewers[_MOST_NAMES:]):
        return _("Only {people} and {more} more may answer", people=named, more=more)
    return _("Only {people} may answer", people=named)


def _rules(verdicts: Sequence[Verdict], words: Translator) -> str:
    broken = [one for one in verdicts if one.broken or one.broken is None]
    if not broken:
        return words.text(_("No record breaks a rule ({count} rules).", count=len(verdicts)))
    head = [_("Rule"), _("Records that break it"), _("Consequence")]
    rows = [
        [
            words.text(one.title),
            words.value(one.broken),
            words.text(_("set aside") if one.severity == FAIL else _("for your attention")),
        ]
        for one in broken
    ]
    return markdown_table([words.text(one) for one in head], rows)


def _sample_note(sample: MaskedRows) -> Message:
    return _(
        "{shown} of {rows} records, drawn by hash (size by GB/T 2828.1-2012).",
        shown=len(sample.rows),
        rows=sample.of,
    )


def _table(sample: MaskedRows) -> str:
    return markdown_table(sample.columns, sample.rows)
