"""Build the form for a reviewer in both languages, with a masked sample of the batch's rows.

PostgreSQL masks the values, so that no complete personal value leaves the database. The form is
never stored in XCom, logs or evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.sql import SQL, Composable, Literal

from include.approvals.required_action import (
    HOSTILE,
    LANGUAGES,
    MAX_TEXT_LENGTH,
    format_accounts,
    in_both_languages,
    markdown_table,
)
from include.intake.checks import FAIL, Verdict
from include.intake.incoming import Incoming
from include.messages import Message, _
from include.policy.datamap import MappedField
from include.policy.intake import Mask
from include.quarantine.keys import KeyNames, identifies_person
from include.quarantine.register import key_of
from include.reports.i18n import Translator

# Code letters and sample sizes of GB/T 2828.1-2012 (ISO 2859-1:1999), tables 1 and 2-A. Only the
# sizes are used: the rules check every row, the sample is for display, and no acceptance number is
# claimed.
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
_MASK = "＊＊＊＊"  # full-width asterisk, which Markdown does not interpret
_MAX_SHOWN = 40  # characters of a value that is not personal


@dataclass(frozen=True)
class MaskedRows:
    """The masked sample of a batch's rows that a reviewer sees.

    Attributes:
        columns: names of the columns, key columns first.
        rows: texts of the cells of each row, for a Markdown table. They contain no complete
            personal values.
        total: number of rows of the batch.
    """

    columns: list[str]
    rows: list[list[str]]
    total: int


def sample_size(rows: int, level: str) -> int:
    """Return how many rows of a batch a reviewer sees (GB/T 2828.1-2012, tables 1 and 2-A).

    Args:
        rows: number of rows of the batch.
        level: inspection level, such as ``S-4``.
    """
    lot_index = sum(rows > most for most in _LOTS)
    return min(rows, _SIZES[_LETTERS[level][lot_index]])


def masked_rows(
    connection: psycopg.Connection[Any],
    incoming: Incoming,
    batch: str,
    sha256: str,
    rows: int,
    names: KeyNames | None = None,
) -> MaskedRows:
    """Return the masked sample of a batch. The same content always gives the same sample.

    The rows are sorted by a SHA-256 of the batch's hash and the row's primary key. The sample
    consists of the first rows in this order. Nobody can therefore influence which rows are shown,
    and the choice can be repeated later.

    Args:
        connection: connection on which `unit_of_work` has opened a transaction.
        incoming: incoming table and its rule of intake.yaml.
        batch: name of the batch.
        sha256: SHA-256 of the batch's content.
        rows: number of rows of the batch.
        names: object that converts a primary key to the pseudonym that the quarantine register
            uses. A primary key that identifies a person is shown as a pseudonym, or completely
            masked if ``names`` is None.
    """
    rule = incoming.rule
    key = SQL(", ").join(incoming.column(name) for name in incoming.key)
    personal = identifies_person(incoming.collection, incoming.key)
    # A personal key is replaced by a pseudonym below; as a sampled field it is masked
    key_columns = () if personal else incoming.key
    fields_shown = [
        *key_columns,
        *(field for field in rule.sample.fields if field not in key_columns),
    ]
    raw_keys = [SQL("{}::text").format(incoming.column(name)) for name in incoming.key if personal]
    query = incoming.sql(
        "SELECT {values} FROM {table} AS i WHERE {waits} "
        "ORDER BY sha256(convert_to({sha256} || ROW({key})::text, 'UTF8')), {key} LIMIT {size}",
        values=SQL(", ").join(
            [
                *raw_keys,
                *(_masked_column(incoming, name, key=name in key_columns) for name in fields_shown),
            ]
        ),
        waits=incoming.pending(batch),
        sha256=Literal(sha256),
        key=key,
        size=Literal(sample_size(rows, rule.sample.level)),
    )
    sample = [list(row) for row in connection.execute(query)]
    if not personal:
        return MaskedRows(fields_shown, sample, rows)
    named = [[_name(row[: len(raw_keys)], names), *row[len(raw_keys) :]] for row in sample]
    return MaskedRows([" + ".join(incoming.key), *fields_shown], named, rows)


def _name(key: list[str], names: KeyNames | None) -> str:
    return _MASK if names is None else key_of(names.of(key))[0]


def _masked_column(incoming: Incoming, name: str, *, key: bool) -> Composable:
    field = incoming.collection.fields[name]
    value = SQL("left(regexp_replace(left({}::text, {}), {}, '·', 'g'), {})").format(
        incoming.column(name), Literal(MAX_TEXT_LENGTH), Literal(HOSTILE), Literal(MAX_TEXT_LENGTH)
    )
    if key or not field.is_personal:
        shown: Composable = SQL("left({}, {})").format(value, Literal(_MAX_SHOWN))
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
    """Return the mask that the policy pack defines for a field's data categories.

    If several masks fit, the mask for the most specific data category is used. If no mask fits, the
    result is None, and the form does not show the value.
    """
    fitting = [
        mask
        for mask in masks
        for category in field.categories
        if category == mask.category or category.startswith(f"{mask.category}.")
    ]
    return max(fitting, key=lambda mask: len(mask.category), default=None)


_MOST_NAMES = 10  # number of reviewers that the page names; further reviewers are only counted


@dataclass(frozen=True)
class BatchFacts:
    """The facts about a batch that the review form shows.

    Attributes:
        batch: name of the batch.
        rows: number of rows that wait for review.
        oldest: earliest time of entry.
        newest: latest time of entry.
        due: deadline of the review.
        overdue: whether the deadline has passed.
        enterers: user ids of the people who entered the rows.
        reviewers: user ids of the people who may review the batch.
        sha256: SHA-256 of the batch's content.
        promotable_rows: number of rows that can become formal records; None if they were not
            counted.
        verdicts: result of each condition of intake.yaml and each expectation.
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
    promotable_rows: int | None
    verdicts: Sequence[Verdict]


def page_subject(facts: BatchFacts, timezone: str) -> str:
    """Return the headline of the review form, with the deadline of the review.

    Args:
        facts: the facts about the batch.
        timezone: IANA name of the timezone in which the deadline is shown.
    """
    values = {"batch": facts.batch, "rows": facts.rows, "due": facts.due}
    headline = (
        _("Batch {batch}: {rows} records wait for review, OVERDUE since {due}", **values)
        if facts.overdue
        else _("Batch {batch}: {rows} records wait for review, due {due}", **values)
    )
    return in_both_languages(headline, timezone)


def page_body(facts: BatchFacts, sample: MaskedRows, timezone: str) -> str:
    """Return the review form as Markdown.

    In each language, it shows the facts about the batch. For each condition and expectation, it
    shows the number of rows that break it. The masked sample follows at the end.

    Args:
        facts: the facts about the batch.
        sample: the masked sample.
        timezone: IANA name of the timezone in which times are shown.
    """
    parts = []
    notes = []
    for language, name in LANGUAGES.items():
        words = Translator(language, timezone)
        lines = [words.text(fact) for fact in _facts(facts)]
        parts.append(f"### {name}")
        parts.append("\n".join(f"- {line}" for line in lines))
        parts.append(_rules(facts.verdicts, words))
        notes.append(words.text(_sample_note(sample)))
    heading = in_both_languages(_("Masked sample"))
    parts += [f"### {heading}", *notes, _table(sample)]
    return "\n\n".join(parts) + "\n"


def _facts(facts: BatchFacts) -> list[Message]:
    due = (
        _("To be reviewed by {due}: **overdue**", due=facts.due)
        if facts.overdue
        else _("To be reviewed by {due}", due=facts.due)
    )
    clean = (
        []
        if facts.promotable_rows is None
        else [
            _(
                "{clean} of {rows} records meet all rules for acceptance",
                clean=facts.promotable_rows,
                rows=facts.rows,
            )
        ]
    )
    return [
        _(
            "{rows} records, entered by {people}",
            rows=facts.rows,
            people=format_accounts(facts.enterers),
        ),
        _("Entered from {oldest} to {newest}", oldest=facts.oldest, newest=facts.newest),
        due,
        *clean,
        _who_may_answer(facts.reviewers),
        _("Your decision is valid only for this content: SHA-256 {sha256}", sha256=facts.sha256),
        _(
            "Approve: records that meet the rules become formal records; the others are "
            "quarantined."
        ),
        _(
            "Reject: no record of the batch becomes a formal record. Give a reason without "
            "customer data."
        ),
    ]


def _who_may_answer(reviewers: Sequence[str]) -> Message:
    """Return a line of the review form that names the people who may review the batch.

    The line is needed because Airflow does not name these people when it refuses the answer of
    another person.
    """
    names_shown = format_accounts(reviewers[:_MOST_NAMES])
    if more := len(reviewers[_MOST_NAMES:]):
        return _("Only {people} and {more} more people may decide", people=names_shown, more=more)
    return _("Only {people} may decide", people=names_shown)


def _rules(verdicts: Sequence[Verdict], words: Translator) -> str:
    broken = [verdict for verdict in verdicts if verdict.broken or verdict.broken is None]
    if not broken:
        return words.text(_("All records meet the {count} rules.", count=len(verdicts)))
    head = [_("Rule"), _("Records that break the rule"), _("Consequence")]
    rows = [
        [
            words.text(verdict.title),
            words.value(verdict.broken),
            words.text(
                _("quarantined") if verdict.severity == FAIL else _("accepted; needs attention")
            ),
        ]
        for verdict in broken
    ]
    return markdown_table([words.text(title) for title in head], rows)


def _sample_note(sample: MaskedRows) -> Message:
    return _(
        "{shown} of {rows} records, selected by their hash; the sample size follows GB/T "
        "2828.1—2012.",
        shown=len(sample.rows),
        rows=sample.total,
    )


def _table(sample: MaskedRows) -> str:
    return markdown_table(sample.columns, sample.rows)
