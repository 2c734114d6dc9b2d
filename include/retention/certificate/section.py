"""The section of a certificate about one database, and its record of deletion."""

from __future__ import annotations

from collections.abc import Sequence

from include.messages import Message, _
from include.reports.model import (
    Bar,
    BarChart,
    Block,
    Cell,
    Code,
    Paragraph,
    Section,
    Table,
    TrendChart,
    TrendPoint,
    must_be_zero,
    table_of,
    text_table,
)
from include.retention.certificate.case import HOLDS, REQUESTS, Case, action, basis, kept, staying
from include.retention.planning.approval import why
from include.retention.planning.counting import MOST_HOLDS
from include.retention.planning.plan import PlannedClass, file_name, rule_digest
from include.retention.results import ApprovalResult, EffectiveHold, LedgerEntries, PlanResult

NOTHING = "—"


def record(case: Case, plan: PlanResult) -> Table:
    """Return the record of deletion as a table."""
    done, proof = case.execution, case.proof
    entered = proof.ledger if proof else None
    rows: list[tuple[Message, Cell]] = [
        (_("What was over at"), plan.as_of),
        (_("Begun by"), plan.started_by or _("the schedule, or a command")),
        (_("Approved by"), _approver(case.approval, plan)),
        (_("Erased by"), _("database user {user}", user=done.executed_as or "?") if done else None),
        (
            _("Holds that were asked"),
            _(
                "{count} on records; asked anew inside of each transaction",
                count=plan.holds_that_counted,
            ),
        ),
        (_("Named in the ledger by"), _named(entered) if entered else None),
        (_("Ledger's batches"), _batches(entered) if entered else None),
        (_("Erased from"), (entered.begun or NOTHING) if entered else None),
        (_("Erased until"), (entered.ended or NOTHING) if entered else None),
        (_("Longest transaction"), _seconds(done.longest_transaction_ms) if done else None),
        (_("Counted afterwards"), proof.verified_at if proof else None),
        (
            _("Records whose foreign key leads nowhere"),
            sum(orphans.records for orphans in proof.orphans) if proof else None,
        ),
    ]
    return text_table(_("Record of deletion"), (_("What"), _("In this run")), rows)


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
            (_("Kept for"), "text", kept),
            (_("Source"), "text", basis),
            (_("Then"), "text", action),
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


MOST_BARS = 8  # classes in a chart, two bars each; the tables have them all
MOST_NAMES = 5  # owners who are named; the others are counted
_KINDS = {
    "trigger": _("trigger"),
    "rule": _("rule"),
    "publication": _("publication: subscribers delete or change their copies too"),
}


def section(case: Case) -> Section:
    """Return the section about one database."""
    heading = _("Database {name}", name=case.database.title)
    if not case.rules and not case.classes:
        text = _("The policy pack has no record class of it: nothing expires there.")
        return Section(heading=heading, blocks=[Paragraph(text=text)])
    if (plan := case.plan) is None:
        text = _("There is no plan: nothing was erased in this run.")
        return Section(heading=heading, blocks=[Paragraph(text=text)])
    return Section(
        heading=heading,
        blocks=[
            _due(case),
            _done(case),
            *_chart(case),
            TrendChart(
                caption=_("Records erased in {name} by the last runs", name=case.database.title),
                points=[TrendPoint(at=past.at, value=past.done) for past in case.trend],
            ),
            *_holds(case, plan),
            _stays(case),
            *_reactions(case, plan),
            *_approval(case, plan),
            *_requests(case),
            *_backups(case),
            record(case, plan),
            rules(case),
            hashes(case),
            check(case, plan),
        ],
    )


def _due(case: Case) -> Table:
    return table_of(
        _("What was over when the plan was made, in records"),
        case.classes,
        [
            (_("Record class"), "text", lambda planned: case.title(planned.name)),
            (_("Clock not started"), "number", lambda planned: planned.not_started),
            (_("Expired"), "number", lambda planned: planned.expired),
            (_("Asked for"), "number", lambda planned: planned.requested),
            (_("Held"), "number", lambda planned: planned.held),
            (_("Suspended"), "number", lambda planned: planned.suspended),
            (
                _("Kept by others"),
                "number",
                lambda planned: planned.kept_by_reference + planned.kept_longer,
            ),
            (
                _("Legal period without a date"),
                "number",
                lambda planned: planned.minimum_not_started,
            ),
            (_("Planned"), "number", lambda planned: planned.planned),
        ],
    )


def _done(case: Case) -> Table:
    def erased(planned: PlannedClass, *, masked: bool) -> int | None:
        number = case.erased(planned)
        return number if number is None or (planned.action == "mask") is masked else 0

    def unexplained(planned: PlannedClass) -> int | None:
        if left := case.left(planned.name):
            return left.unexplained
        return 0 if planned.action == "keep" and case.proof else None

    dropped = case.execution.partitions if case.execution else None
    return table_of(
        _(
            "What was done, by the erasure ledger; left without a ground: counted afterwards by "
            "queries of its own"
        ),
        case.classes,
        [
            (_("Record class"), "text", lambda planned: case.title(planned.name)),
            (_("Planned"), "number", lambda planned: planned.planned),
            (_("Deleted"), "number", lambda planned: erased(planned, masked=False)),
            (_("Masked"), "number", lambda planned: erased(planned, masked=True)),
            (
                _("Partitions dropped"),
                "number",
                lambda planned: None if dropped is None else dropped.get(planned.name, 0),
            ),
            (_("Not reached"), "number", case.not_reached),
            (_("Left without a ground"), "number", unexplained),
        ],
    )


def _chart(case: Case) -> list[BarChart]:
    due = [planned for planned in case.classes if planned.expired or planned.requested]
    bars = []
    for planned in sorted(due, key=lambda it: -(it.expired + it.requested))[:MOST_BARS]:
        left = case.left(planned.name)
        bars += [
            Bar(label=case.title(planned.name), value=planned.expired + planned.requested),
            Bar(
                label=_("of these erased"),
                value=case.erased(planned),
                status=must_be_zero(left.unexplained if left else None),
            ),
        ]
    if not bars:
        return []
    return [
        BarChart(
            caption=_("What was over, by record class, and what of it was erased")
            if len(due) <= MOST_BARS
            else _(
                "What was over, and what of it was erased: the {shown} largest of {all} record "
                "classes",
                shown=MOST_BARS,
                all=len(due),
            ),
            category=_("Record class"),
            unit="rows",
            bars=bars,
        )
    ]


def _holds(case: Case, plan: PlanResult) -> list[Table]:
    by_number = {hold.hold: hold for hold in plan.holds}
    rows: list[tuple[str, EffectiveHold | None, Cell, Cell, Cell]] = []
    for planned in plan.classes:
        for held in planned.held_by:
            hold = by_number.get(held.hold)
            reason = hold.reason if hold else NOTHING
            rows.append((str(held.hold), hold, reason, case.title(planned.name), held.records))
    if not rows and not any(planned.held for planned in plan.classes):
        return []
    if plan.holds_that_counted > MOST_HOLDS:
        further = _("further holds keep too; the first {most} are counted apart", most=MOST_HOLDS)
        rows.append((NOTHING, None, further, NOTHING, NOTHING))
    return [
        table_of(
            _(
                "What legal holds keep although it is over, when the plan was made; a record may "
                "be under several. What a hold is on stands in the registry alone: `hold list`"
            ),
            rows,
            [
                (_("Hold"), "code", lambda row: row[0]),
                (_("Kind"), "text", lambda row: HOLDS[row[1].kind] if row[1] else NOTHING),
                (_("Why"), "text", lambda row: row[2]),
                (_("Owner"), "text", lambda row: row[1].owner if row[1] else NOTHING),
                (_("Review"), "text", lambda row: row[1].review_on if row[1] else NOTHING),
                (_("Record class"), "text", lambda row: row[3]),
                (_("Records"), "number", lambda row: row[4]),
            ],
        )
    ]


def _stays(case: Case) -> Table:
    return table_of(
        _("What else stays and why; a record may be kept by several things"),
        staying(case),
        [
            (_("Record class"), "text", lambda row: row[0]),
            (_("Why it stays"), "text", lambda row: row[1]),
            (_("Records"), "number", lambda row: row[2]),
        ],
    )


def _reactions(case: Case, plan: PlanResult) -> list[Block]:
    """Return the triggers, rules and publications that react to a plan, and inserted rows."""
    blocks: list[Block] = []
    if plan.reactions:
        blocks.append(
            table_of(
                _(
                    "Triggers, rules and publications of the database that react to deletions and "
                    "masks. A transaction in which they delete or change other mapped records is "
                    "rolled back"
                ),
                plan.reactions,
                [
                    (_("Table"), "code", lambda reaction: reaction.table),
                    (_("Kind"), "text", lambda reaction: _KINDS[reaction.kind]),
                    (_("Object name"), "code", lambda reaction: reaction.name),
                    (_("Function"), "code", lambda reaction: reaction.function or NOTHING),
                ],
            )
        )
    if done := case.execution:
        inserted = [_inserted(table, rows) for table, rows in done.inserted.items()]
        updated = [_updated(table, rows) for table, rows in done.updated.items()]
        blocks += [Paragraph(text=text) for text in (*inserted, *updated)]
    return blocks


def _inserted(table: str, rows: int) -> Message:
    return _(
        "While records were erased, triggers or rules inserted {count} records into {table}. If "
        "these are copies of erased records, they need a record class of their own.",
        count=rows,
        table=table,
    )


def _updated(table: str, rows: int) -> Message:
    return _(
        "While records were erased, triggers or rules updated records of {table} {count} times, "
        "which the retention schedule allows.",
        count=rows,
        table=table,
    )


def _approval(case: Case, plan: PlanResult) -> list[Block]:
    if not plan.tripped:
        text = _("No record class was beyond its limits: the plan needed no second person.")
        return [Paragraph(text=text)]
    waited = table_of(
        _("Why a second person was needed"),
        plan.tripped,
        [
            (_("Record class"), "text", lambda trip: case.title(trip.name)),
            (_("Planned"), "number", lambda trip: trip.planned),
            (_("Beyond its limit"), "text", why),
        ],
    )
    if plan.request is None:
        return [waited, Paragraph(text=_("Nobody was asked, since nobody may approve."))]
    answer = case.approval or ApprovalResult(asked=True)
    decided = table_of(
        _("The approval, bound to the plan with the SHA-256 {sha256}", sha256=plan.sha256),
        [answer],
        [
            (_("Asked"), "text", lambda _answer: plan.asked_at),
            (_("Owners of the schedule"), "code", lambda _answer: _some(plan.asked_for)),
            (_("Decision"), "text", _decision),
            (_("Decided by"), "text", decider),
            (_("Decided"), "datetime", lambda answer: answer.decided_at or NOTHING),
            (_("Reason"), "text", lambda answer: answer.reason or NOTHING),
        ],
    )
    return [waited, decided]


def _decision(answer: ApprovalResult) -> Message:
    if answer.reason is not None:
        return _("approved") if answer.is_approved else _("rejected")
    if answer.decided_by:
        return _("an answer that does not count")
    return _("none")


def _requests(case: Case) -> list[Table]:
    if not case.proof or not case.proof.requests:
        return []
    return [
        table_of(
            _("Requests of data subjects, by their file number"),
            case.proof.requests,
            [
                (_("Request"), "code", lambda request: str(request.request)),
                (_("Reference"), "text", lambda request: request.reference),
                (_("Received"), "text", lambda request: request.received_on),
                (_("Due"), "text", lambda request: request.due_on),
                (_("Records left"), "number", lambda request: request.left),
                (_("State"), "text", lambda request: REQUESTS[request.state]),
            ],
        )
    ]


def _backups(case: Case) -> list[Block]:
    if not case.proof:
        return []
    copies = case.proof.copies
    if copies is None:
        text = _(
            "The off-site store could not be read: nobody can say here which backups still hold "
            "what was erased."
        )
        return [Paragraph(text=text)]
    if not copies:
        text = _("No restore point is left that holds what was erased from this database.")
        return [Paragraph(text=text)]
    return [
        table_of(
            _(
                "Backups from before the last erasure, or too near to it to tell: they hold what "
                "was erased, in this run or before, and whoever restores one erases it again by "
                "the ledger"
            ),
            copies,
            [
                (_("Restore point"), "code", lambda point: point.id),
                (_("Taken"), "datetime", lambda point: point.taken_at),
                (_("Expires"), "datetime", lambda point: point.expires_at),
                (_("Held beyond that"), "text", lambda point: point.held),
            ],
        )
    ]


def _some(names: Sequence[str]) -> str:
    more = f" +{len(names) - MOST_NAMES}" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more if names else NOTHING
