"""What a second person is asked about a plan: counts by class, why it waits, its hash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from include.approvals.question import (
    LANGUAGES,
    Question,
    harmless,
    in_both,
    markdown_table,
    names,
)
from include.messages import Message, _
from include.policy.retention import RetentionRule
from include.reports.i18n import Translator
from include.retention.planning.approvers import People
from include.retention.planning.breaker import Tripped
from include.retention.planning.plan import Plan

MOST_NAMES = 10  # of those who may answer; the others are counted


def question(
    plan: Plan,
    title: str,
    rules: Mapping[str, RetentionRule],
    tripped: Sequence[Tripped],
    people: People,
    timezone: str,
    content: str,
) -> Question:
    """Make the page of a question.

    Args:
        plan: what is asked about.
        title: of the database.
        rules: record classes by name.
        tripped: why it waits.
        people: who may answer, and who may not.
        timezone: of times that people read.
        content: of the request for approval.
    """
    count = sum(one.planned for one in tripped)
    subject = in_both(
        _(
            "{database}: {count} records wait for your approval to be erased",
            database=harmless(title),
            count=count,
        )
    )
    parts = []
    for language, name in LANGUAGES.items():
        words = Translator(language, timezone)
        parts.append(f"### {name}")
        parts.append("\n".join(f"- {words.text(one)}" for one in _facts(plan, people)))
        parts.append(_table(plan, rules, tripped, words))
    return Question(subject, "\n\n".join(parts) + "\n", list(people.approvers), content)


def why(tripped: Tripped) -> Message:
    """Say which limit a class is beyond."""
    allowed, recent = tripped.allowed, tripped.recent
    if recent and tripped.cause == "records":
        return _(
            "more than {count} records, with {recent} of the last day", count=allowed, recent=recent
        )
    if recent:
        return _(
            "more than its share of the class, {count} records, with {recent} of the last day",
            count=allowed,
            recent=recent,
        )
    match tripped.cause:
        case "records":
            return _("more than {count} records in one run", count=allowed)
        case "percent":
            return _("more than its share of the class, {count} records", count=allowed)
        case _:
            return _("more than its last runs suggest, {count} records", count=allowed)


def _facts(plan: Plan, people: People) -> list[Message]:
    shown = names(people.approvers[:MOST_NAMES])
    more = len(people.approvers[MOST_NAMES:])
    return [
        _("What is over at {at} goes; nothing else.", at=plan.as_of),
        _("Only {people} and {more} more may answer", people=shown, more=more)
        if more
        else _("Only {people} may answer", people=shown),
        _("Your decision is bound to this plan: SHA-256 {sha256}", sha256=plan.sha256),
        _(
            "Approve: what the table names is erased for good, unless a hold is put on it before. "
            "Backups keep it until they expire."
        ),
        _(
            "Reject: these classes stay as they are, and the next run asks again. A reason is "
            "required; write no customer's data into it."
        ),
    ]


def _table(
    plan: Plan,
    rules: Mapping[str, RetentionRule],
    tripped: Sequence[Tripped],
    words: Translator,
) -> str:
    head = [
        _("Record class"),
        _("Expired"),
        _("Held"),
        _("Suspended"),
        _("To delete"),
        _("To mask"),
        _("Partitions"),
        _("Why it waits"),
    ]
    waits = {one.name: words.text(why(one)) for one in tripped}
    rows = []
    for one in plan.classes:
        if one.name not in waits:
            continue
        title = rules[one.name].message
        rows.append(
            [
                harmless(title if isinstance(title, str) else words.text(title)),
                words.value(one.expired + one.requested),
                words.value(one.held),
                words.value(one.suspended),
                words.value(one.to_delete),
                words.value(one.to_mask),
                words.value(one.to_drop_partitions),
                waits[one.name],
            ]
        )
    return markdown_table([words.text(one) for one in head], rows)
