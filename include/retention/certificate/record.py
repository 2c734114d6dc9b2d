"""The record of deletion in a certificate: people, rules, plan and ledger."""

from __future__ import annotations

from include.messages import Message, _
from include.reports.model import Cell, Code, Column, Paragraph, Table, table_of
from include.retention.certificate import words
from include.retention.certificate.case import Case
from include.retention.planning.plan import file_name, rule_digest
from include.retention.results import ApprovalResult, LedgerEntries, PlanResult

NOTHING = "—"


def record(case: Case, plan: PlanResult) -> Table:
    """Return the record of deletion as a table."""
    done, proof = case.execution, case.proof
    entered = proof.ledger if proof else None
    rows: list[list[Cell]] = [
        [_("What was over at"), plan.as_of],
        [_("Begun by"), plan.started_by or _("the schedule, or a command")],
        [_("Approved by"), _approver(case.approval, plan)],
        [_("Erased by"), _("database user {user}", user=done.executed_as or "?")]
        if done
        else [_("Erased by"), None],
        [
            _("Holds that were asked"),
            _(
                "{count} on records; asked anew inside of each transaction",
                count=plan.holds_that_counted,
            ),
        ],
        [_("Named in the ledger by"), _named(entered) if entered else None],
        [_("Ledger's batches"), _batches(entered) if entered else None],
        [_("Erased from"), (entered.begun or NOTHING) if entered else None],
        [_("Erased until"), (entered.ended or NOTHING) if entered else None],
        [_("Longest transaction"), _seconds(done.longest_transaction_ms) if done else None],
        [_("Counted afterwards"), proof.verified_at if proof else None],
        [
            _("Records whose foreign key leads nowhere"),
            sum(orphans.records for orphans in proof.orphans) if proof else None,
        ],
    ]
    return Table(
        caption=_("Record of deletion"),
        columns=[Column(label=_("What")), Column(label=_("In this run"))],
        rows=rows,
    )


def _approver(answer: ApprovalResult | None, plan: PlanResult) -> Message | str:
    if answer and answer.is_approved:
        return decider(answer)
    return _("nobody") if plan.tripped else _("nobody had to")


def decider(answer: ApprovalResult) -> Message | str:
    """Return who decided; the name in an answer of the command line proves no person."""
    name = answer.decided_by or NOTHING
    if answer.is_from_command_line:
        return _("answered for {person} on the command line", person=name)
    return name


def _named(entered: LedgerEntries) -> Message | str:
    if not entered.key_ids:
        return NOTHING
    return _("HMAC-SHA-256 of the primary key, key {ids}", ids=", ".join(entered.key_ids))


def _batches(entered: LedgerEntries) -> Message | str:
    if not entered.batches:
        return NOTHING
    return _(
        "{count}, between the numbers {first} and {last}",
        count=entered.batches,
        first=entered.first,
        last=entered.last,
    )


def _seconds(milliseconds: int) -> Message:
    return _("{time:duration}", time=milliseconds / 1000)


def rules(case: Case) -> Table | Paragraph:
    """Return the schedule in words, unless the pack changed since the plan."""
    planned = {planned.name: planned.rule_sha256 for planned in case.classes}
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
    """Return the hash of each rule."""
    return table_of(
        _("SHA-256 of each rule; the ledger names it beside every batch"),
        case.classes,
        [
            (_("Rule"), "code", lambda planned: planned.name),
            (_("SHA-256"), "code", lambda planned: planned.rule_sha256),
        ],
    )


def check(case: Case, plan: PlanResult) -> Code:
    """Return the command that checks the plan's file."""
    line = f"{plan.sha256}  {file_name(case.database.name)}"
    return Code(
        caption=_("To check in the bundle's folder that its plan is the one that was approved"),
        lines=[f"echo '{line}' | sha256sum --check"],
    )
