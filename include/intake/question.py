"""The question to a reviewer, in both languages, with masked rows of the batch.

Masking happens inside PostgreSQL, so that no whole value leaves it.

The page holds counts and the masked sample. It is made where it is shown and goes nowhere else:
not into XCom, not into a log, not into the evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Literal

from include.approvals.question import HOSTILE, LANGUAGES, LONGEST, in_both, markdown_table, names
from include.intake.checks import FAIL, Verdict
from include.intake.names import Incoming
from include.messages import Message, _
from include.policy.datamap import MappedField
from include.policy.intake import Mask
from include.quarantine.keys import KeyNames, tells_a_person
from include.quarantine.register import key_of
from include.reports.i18n import Translator

# Code letters and sample sizes of GB/T 2828.1-2012 (ISO 2859-1:1999), tables 1 and 2-A. Only the
# sizes are taken from it: every row is checked by the rules, the sample is for the reviewer's eye,
# and no acceptance number is claimed for it.
_SIZES = dict(
    zip("ABCDEFGHJKLMNPQ", (2, 3, 5, 8, 13, 20, 32, 50, 80, 125, 200, 315, 500, 800, 1250),
        strict=True)
)  # fmt: skip
_LOTS = (8, 15, 25, 50, 90, 150, 280, 500, 1200, 3200, 10_000, 35_000, 150_000, 500_000)
_LETTERS = {
    "S-1": "AAAABBBBCCCCDDD",
    "S-2": "AAABBBCCCDDDEEE",
    "S-3": "AABBCCDDEEFFGGH",
    "S-4": "AABCCDEEFGGHJJK",
    "I": "AABCCDEFGHJKLMN",
    "II": "ABCDEFGHJKLMNPQ",
}
_MASK = "＊＊＊＊"  # full width: nothing to Markdown
_SHOWN = 40  # characters of a value that is nobody's


@dataclass(frozen=True)
class MaskedRows:
    """The masked rows of a batch that a reviewer sees.

    Attributes:
        columns: names, the key first.
        rows: texts fit for a Markdown table; never a whole personal value.
        of: rows of the batch.
    """

    columns: list[str]
    rows: list[list[str]]
    of: int


def sample_size(rows: int, level: str) -> int:
    """Return how many rows of a batch are shown.

    Args:
        rows: of the batch.
        level: inspection level, ``S-4``.
    """
    place = sum(rows > most for most in _LOTS)
    return min(rows, _SIZES[_LETTERS[level][place]])


def masked_rows(
    connection: psycopg.Connection[Any],
    incoming: Incoming,
    batch: str,
    sha256: str,
    rows: int,
    names: KeyNames | None = None,
) -> MaskedRows:
    """Draw the sample of a batch; the same batch content always shows the same rows.

    Rows are ordered by the SHA-256 of the batch's hash and the row's key, and the first are taken:
    nobody chooses them, and whoever has the batch can draw them again.

    Args:
        connection: inside of `unit_of_work`.
        incoming: the table.
        batch: its name.
        sha256: of the batch's content.
        rows: of the batch.
        names: of rows whose key tells who a person is, as in the quarantine register; without them
            the key is hidden whole.
    """
    rule = incoming.rule
    key = SQL(", ").join(incoming.column(name) for name in incoming.key)
    personal = tells_a_person(incoming.collection, incoming.key)
    # A personal key is named below, and is a field like any other: masked, where it is shown at all
    plain = () if personal else incoming.key
    shown = [*plain, *(field for field in rule.sample.fields if field not in plain)]
    raw = [SQL("{}::text").format(incoming.column(name)) for name in incoming.key if personal]
    query = incoming.sql(
        "SELECT {values} FROM {table} AS i WHERE {waits} "
        "ORDER BY sha256(convert_to({sha256} || ROW({key})::text, 'UTF8')), {key} LIMIT {size}",
        values=SQL(", ").join(
            [*raw, *(_shown(incoming, name, key=name in plain) for name in shown)]
        ),
        waits=incoming.pending(batch),
        sha256=Literal(sha256),
        key=key,
        size=Literal(sample_size(rows, rule.sample.level)),
    )
    found = [list(row) for row in connection.execute(query)]
    if not personal:
        return MaskedRows(shown, found, rows)
    named = [[_name(row[: len(raw)], names), *row[len(raw) :]] for row in found]
    return MaskedRows([" + ".join(incoming.key), *shown], named, rows)


def _name(key: list[str], names: KeyNames | None) -> str:
    return _MASK if names is None else key_of(names.of(key))[0]


def _shown(incoming: Incoming, name: str, *, key: bool) -> Composable:
    field = incoming.collection.fields[name]
    value = SQL("left(regexp_replace(left({}::text, {}), {}, '·', 'g'), {})").format(
        incoming.column(name), Literal(LONGEST), Literal(HOSTILE), Literal(LONGEST)
    )
    if key or not field.is_personal:
        shown: Composable = SQL("left({}, {})").format(value, Literal(_SHOWN))
    else:
        shown = _masked(value, _mask(field, incoming.rule.sample.masks))
    return SQL("CASE WHEN {} IS NULL THEN '—' ELSE {} END").format(incoming.column(name), shown)


def _masked(value: Composable, mask: Mask | None) -> Composable:
    if mask is None:
        return Literal(_MASK)
    if not mask.hidden:
        return SQL("left({}, {})").format(value, Literal(mask.first))
    return SQL(
        "CASE WHEN length({value}) - {seen} < {hidden} THEN {mask} "
        "ELSE left({value}, {first}) || {mask} || right({value}, {last}) END"
    ).format(
        value=value,
        seen=Literal(mask.first + mask.last),
        hidden=Literal(mask.hidden),
        mask=Literal(_MASK),
        first=Literal(mask.first),
        last=Literal(mask.last),
    )


def _mask(field: MappedField, masks: tuple[Mask, ...]) -> Mask | None:
    """The mask of the field's most exact category; None hides all."""
    fitting = [
        mask
        for mask in masks
        for category in field.categories
        if category == mask.category or category.startswith(f"{mask.category}.")
    ]
    return max(fitting, key=lambda one: len(one.category), default=None)


_MOST_NAMES = 10  # of those who may answer; the others are counted


@dataclass(frozen=True)
class Facts:
    """The facts about a batch when the question is asked.

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
        lines = [words.text(fact) for fact in _facts(facts)]
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
    broken = [verdict for verdict in verdicts if verdict.broken or verdict.broken is None]
    if not broken:
        return words.text(_("No record breaks a rule ({count} rules).", count=len(verdicts)))
    head = [_("Rule"), _("Records that break it"), _("Consequence")]
    rows = [
        [
            words.text(verdict.title),
            words.value(verdict.broken),
            words.text(_("set aside") if verdict.severity == FAIL else _("for your attention")),
        ]
        for verdict in broken
    ]
    return markdown_table([words.text(title) for title in head], rows)


def _sample_note(sample: MaskedRows) -> Message:
    return _(
        "{shown} of {rows} records, drawn by hash (size by GB/T 2828.1-2012).",
        shown=len(sample.rows),
        rows=sample.of,
    )


def _table(sample: MaskedRows) -> str:
    return markdown_table(sample.columns, sample.rows)
