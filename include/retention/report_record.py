"""Who erased by which rule and plan: the record of deletion in a certificate."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from include.approvals.reasons import COMMAND_LINE
from include.approvals.registry import APPROVE
from include.messages import Message, _
from include.reports.model import Cell, Code, Column, Paragraph, Table, table_of
from include.retention import report_words as words
from include.retention.plan import file_name, rule_digest
from include.retention.report_case import Case

NOTHING = "—"


def record(case: Case) -> Table:
    """The fields of a record of deletion: who, by which plan, named how, counted when."""
    plan, done, proof = case.plan, case.execution, case.proof
    entered = proof.get("ledger", {})
    orphans = proof.get("orphans")
    rows: list[list[Cell]] = [
        [_("What was over at"), moment(plan["as_of"])],
        [_("Begun by"), plan.get("started_by") or _("the schedule, or a command")],
        [_("Approved by"), _approver(case)],
        [_("Erased by"), _("database user {user}", user=done.get("executed_as") or "?")]
        if done
        else [_("Erased by"), None],
        [_("Holds that were asked"), _held(plan)],
        [_("Named in the ledger by"), _named(entered)],
        [_("Ledger's batches"), _batches(entered)],
        [_("Erased from"), moment(entered.get("begun")) or _nothing(entered)],
        [_("Erased until"), moment(entered.get("ended")) or _nothing(entered)],
        [_("Longest transaction"), _milliseconds(done.get("longest_transaction_ms"))],
        [_("Counted afterwards"), moment(proof.get("verified_at"))],
        [
            _("Records whose foreign key leads nowhere"),
            None if orphans is None else sum(one["records"] for one in orphans),
        ],
    ]
    return Table(
        caption=_("Record of deletion"),
        columns=[Column(label=_("What")), Column(label=_("In this run"))],
        rows=rows,
    )


def _approver(case: Case) -> Message | str:
    if case.approval.get("decision") == APPROVE and "reason" in case.approval:
        return decider(case.approval)
    return _("nobody") if case.plan.get("tripped") else _("nobody had to")


def decider(answer: Mapping[str, Any]) -> Message | str:
    """Who decided; an answer of the command line is nobody's own, whatever name it carries."""
    name = answer.get("decided_by") or NOTHING
    if on_command_line(answer):
        return _("answered for {person} on the command line", person=name)
    return str(name)


def on_command_line(answer: Mapping[str, Any]) -> bool:
    """Whether an answer was given by `--answer`, which its reason begins with."""
    return str(answer.get("reason") or "").startswith(COMMAND_LINE)


def _held(plan: Any) -> Message | None:
    count = plan.get("holds_that_counted")
    return (
        None
        if count is None
        else _("{count} on records; asked anew inside of each transaction", count=count)
    )


def _named(entered: Any) -> Message | str | None:
    if not entered:
        return None
    if not entered["key_ids"]:
        return NOTHING
    return _("HMAC-SHA-256 of the primary key, key {ids}", ids=", ".join(entered["key_ids"]))


def _batches(entered: Any) -> Message | str | None:
    if not entered:
        return None
    if not entered["batches"]:
        return NOTHING
    return _(
        "{count}, between the numbers {first} and {last}",
        count=entered["batches"],
        first=entered["first"],
        last=entered["last"],
    )


def _nothing(entered: Any) -> str | None:
    return NOTHING if entered else None


def _milliseconds(count: int | None) -> Message | None:
    return None if count is None else _("{time:duration}", time=count / 1000)


def rules(case: Case) -> Table | Paragraph:
    """The schedule in words; what was applied is not known when the pack changed since."""
    planned = {one.name: one.rule_sha256 for one in case.classes}
    if planned != {rule.record_class: rule_digest(rule) for rule in case.rules}:
        return Paragraph(
            text=_(
                "retention.yaml changed after the plan was made: the schedule that was applied is "
                "not printed here. The hashes say which rules it had."
            )
        )
    return table_of(
        _("The schedule that was applied (retention.yaml)"),
        case.rules,
        [
            (_("Record class"), "text", lambda rule: rule.message),
            (_("Kept for"), "text", words.kept),
            (_("Source"), "text", words.basis),
            (_("Then"), "text", words.action),
        ],
    )


def hashes(case: Case) -> Table:
    """What each rule was, by its hash."""
    return table_of(
        _("SHA-256 of each rule; the ledger names it beside every batch"),
        case.classes,
        [
            (_("Rule"), "code", lambda planned: planned.name),
            (_("SHA-256"), "code", lambda planned: planned.rule_sha256),
        ],
    )


def check(case: Case) -> Code:
    """How anybody checks the plan's file."""
    line = f"{case.plan['sha256']}  {file_name(case.database.name)}"
    return Code(
        caption=_("To check in the bundle's folder that its plan is the one that was approved"),
        lines=[f"echo '{line}' | sha256sum --check"],
    )


def moment(text: Any) -> datetime | None:
    """A moment that went through JSON; None where there is none."""
    return datetime.fromisoformat(text) if isinstance(text, str) else None
