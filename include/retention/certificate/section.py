"""The section of a certificate of deletion about one database."""

from __future__ import annotations

from collections.abc import Sequence

from include.approvals.reasons import reason_text
from include.messages import Message, _, listed
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
from include.retention.certificate.database_run import (
    HOLD_KINDS,
    REQUEST_STATES,
    DatabaseRun,
    basis_text,
    disposition_text,
    reasons_for_staying,
    retention_text,
)
from include.retention.planning.approval import describe_limit
from include.retention.planning.counting import MOST_HOLDS
from include.retention.planning.plan import (
    ON_LEGAL_HOLD,
    REFERENCED,
    SUSPENDED,
    PlannedClass,
    file_name,
    rule_digest,
)
from include.retention.results import ApprovalResult, EffectiveHold, LedgerEntries, PlanResult

NOTHING = "—"


def deletion_record(case: DatabaseRun, plan: PlanResult) -> Table:
    """Return the table that states who approved and executed the disposition, when, and how.

    Args:
        case: results of the run in one database.
        plan: result of the planning step.
    """
    verification = case.verification
    entered = verification.ledger if verification else None
    rows: list[tuple[Message, Cell]] = [
        (_("Expired as of"), plan.as_of),
        (_("Triggered by"), plan.started_by or _("schedule or command line")),
        (_("Approved by"), _approved_by_text(case.approval, plan)),
        (
            _("Legal holds checked"),
            _(
                "legal holds on records: {count}; checked again in each transaction",
                count=plan.holds_that_counted,
            ),
        ),
        (_("Start of the disposition"), (entered.begun or NOTHING) if entered else None),
        (_("End of the disposition"), (entered.ended or NOTHING) if entered else None),
        (_("Verified at"), verification.verified_at if verification else None),
        (
            _("Records with a broken foreign key"),
            sum(orphans.records for orphans in verification.orphans) if verification else None,
        ),
    ]
    return text_table(_("Record of the disposition"), (_("Item"), _("In this run")), rows)


def technical_record(case: DatabaseRun) -> Table:
    """Return the table of technical facts about the disposition, for engineers.

    Args:
        case: results of the run in one database.
    """
    done, verification = case.execution, case.verification
    entered = verification.ledger if verification else None
    rows: list[tuple[Message, Cell]] = [
        (
            _("Executed by"),
            _("database user {user}", user=done.executed_as or "?") if done else None,
        ),
        (
            _("Identification of records in the erasure ledger"),
            _hmac_text(entered) if entered else None,
        ),
        (_("Batches in the erasure ledger"), _batches_text(entered) if entered else None),
        (_("Longest transaction"), _seconds(done.longest_transaction_ms) if done else None),
    ]
    caption = _("For engineers: technical record of the disposition")
    return text_table(caption, (_("Item"), _("In this run")), rows)


def _approved_by_text(answer: ApprovalResult | None, plan: PlanResult) -> Message | str:
    if answer and answer.is_approved:
        return decided_by_text(answer)
    return _("not approved") if plan.tripped else _("no approval required")


def decided_by_text(answer: ApprovalResult) -> Message | str:
    """Return the name of the person who decided on an approval request, as text.

    A name that is given on the command line does not prove who decided. The text therefore states
    whether the decision was entered there.

    Args:
        answer: result of the approval step.
    """
    name = answer.decided_by or NOTHING
    if answer.is_from_command_line:
        return _("decision entered on the command line in the name of {person}", person=name)
    return name


def _hmac_text(entered: LedgerEntries) -> Message | str:
    if not entered.key_ids:
        return NOTHING
    return _(
        "HMAC-SHA-256 of the primary key, key {ids}",
        ids=listed(entered.key_ids),
    )


def _batches_text(entered: LedgerEntries) -> Message | str:
    if not entered.batches:
        return NOTHING
    return _(
        "{count}, with numbers from {first} to {last}",
        count=entered.batches,
        first=entered.first,
        last=entered.last,
    )


def _seconds(milliseconds: int) -> Message:
    return _("{time:duration}", time=milliseconds / 1000)


def rules_table(case: DatabaseRun) -> Table | Paragraph:
    """Return the table of the retention schedule that the run applied.

    If the retention schedule changed after the plan was made, return a paragraph that states this.

    Args:
        case: results of the run in one database.
    """
    planned = {planned.name: planned.rule_sha256 for planned in case.classes}
    if planned != {rule.record_class: rule_digest(rule) for rule in case.rules}:
        return Paragraph(
            text=_(
                "The retention schedule changed after the plan was made, so the applied "
                "schedule is not shown here. The hashes in the erasure ledger identify the "
                "rules that were applied."
            )
        )
    return table_of(
        _("Applied retention schedule"),
        case.rules,
        [
            (_("Record class"), "text", lambda rule: rule.message),
            (
                _("Retention period"),
                "text",
                lambda rule: retention_text(rule, case.collection(rule.collection)),
            ),
            (_("Source"), "text", basis_text),
            (
                _("Disposition"),
                "text",
                lambda rule: disposition_text(rule, case.collection(rule.collection)),
            ),
        ],
    )


def hash_table(case: DatabaseRun) -> Table:
    """Return the table with the SHA-256 of the definition of each record class in the plan."""
    return table_of(
        _(
            "For engineers: SHA-256 of the definition of each record class; the erasure ledger "
            "records it with every batch"
        ),
        case.classes,
        [
            (_("Record class"), "code", lambda planned: planned.name),
            (_("SHA-256"), "code", lambda planned: planned.rule_sha256),
        ],
    )


def plan_check(case: DatabaseRun, plan: PlanResult) -> Code:
    """Return a shell command with which readers verify that the bundle contains the approved plan.

    Args:
        case: results of the run in one database.
        plan: result of the planning step.
    """
    line = f"{plan.sha256}  {file_name(case.database.name)}"
    return Code(
        caption=_(
            "For engineers: run this command in the folder of the evidence bundle to verify that "
            "the plan in the bundle is the approved plan"
        ),
        lines=[f"echo '{line}' | sha256sum --check"],
    )


MOST_BARS = 8  # record classes in a chart, with two bars each
MOST_NAMES = 5  # names of owners in a list; the others are only counted
_KINDS = {
    "trigger": _("trigger"),
    "rule": _("rule"),
    "publication": _("publication: subscribers delete or change their copies as well"),
}


def database_section(case: DatabaseRun) -> Section:
    """Return the section of the certificate of deletion about one database."""
    heading = _("Database {name}", name=case.database.title)
    if not case.rules and not case.classes:
        text = _(
            "The policy pack has no record class of this database, so its records never expire."
        )
        return Section(heading=heading, blocks=[Paragraph(text=text)])
    if (plan := case.plan) is None:
        text = _("The run has no plan: no record was disposed of.")
        return Section(heading=heading, blocks=[Paragraph(text=text)])
    return Section(
        heading=heading,
        blocks=[
            _due_table(case),
            _done_table(case),
            *_chart(case),
            TrendChart(
                caption=_(
                    "Records disposed of in {name} by the last runs", name=case.database.title
                ),
                points=[TrendPoint(at=past.at, value=past.done) for past in case.trend],
            ),
            *_holds_table(case, plan),
            _staying_table(case),
            *_reactions(case, plan),
            *_approval(case, plan),
            *_requests(case),
            *_backups(case),
            deletion_record(case, plan),
            rules_table(case),
            technical_record(case),
            hash_table(case),
            plan_check(case, plan),
        ],
    )


def _due_table(case: DatabaseRun) -> Table:
    return table_of(
        _("Expired records when the plan was made"),
        case.classes,
        [
            (_("Record class"), "text", lambda planned: case.title(planned.name)),
            (_("Period not started"), "number", lambda planned: planned.not_started),
            (_("Expired"), "number", lambda planned: planned.expired),
            (_("Erasure requested"), "number", lambda planned: planned.requested),
            (ON_LEGAL_HOLD, "number", lambda planned: planned.held),
            (SUSPENDED, "number", lambda planned: planned.suspended),
            (REFERENCED, "number", lambda planned: planned.referenced),
            (
                _("Start date of a statutory period missing"),
                "number",
                lambda planned: planned.minimum_not_started,
            ),
            (_("Planned"), "number", lambda planned: planned.planned),
        ],
    )


def _done_table(case: DatabaseRun) -> Table:
    def erased(planned: PlannedClass, *, masked: bool) -> int | None:
        number = case.erased(planned)
        return number if number is None or (planned.action == "mask") is masked else 0

    def unexplained(planned: PlannedClass) -> int | None:
        if left := case.left(planned.name):
            return left.unexplained
        return 0 if planned.action == "keep" and case.verification else None

    dropped = case.execution.partitions if case.execution else None
    return table_of(
        _(
            "Number of disposed records according to the erasure ledger. Separate queries "
            "counted the records that remain without a stated reason"
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
            (_("Not disposed of"), "number", case.planned_but_not_erased),
            (_("Remaining without a stated reason"), "number", unexplained),
        ],
    )


def _chart(case: DatabaseRun) -> list[BarChart]:
    due = [planned for planned in case.classes if planned.expired or planned.requested]
    bars = []
    for planned in sorted(due, key=lambda planned: -(planned.expired + planned.requested))[
        :MOST_BARS
    ]:
        left = case.left(planned.name)
        bars += [
            Bar(label=case.title(planned.name), value=planned.expired + planned.requested),
            Bar(
                label=_("of these, disposed of"),
                value=case.erased(planned),
                status=must_be_zero(left.unexplained if left else None),
            ),
        ]
    if not bars:
        return []
    return [
        BarChart(
            caption=_("Expired records by record class, and how many of them were disposed of")
            if len(due) <= MOST_BARS
            else _(
                "Expired records, and how many of them were disposed of: the {shown} largest "
                "of {total} record classes",
                shown=MOST_BARS,
                total=len(due),
            ),
            category=_("Record class"),
            unit="rows",
            bars=bars,
        )
    ]


def _holds_table(case: DatabaseRun, plan: PlanResult) -> list[Table]:
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
        further = _(
            "further legal holds are in force; only the first {limit} are counted separately",
            limit=MOST_HOLDS,
        )
        rows.append((NOTHING, None, further, NOTHING, NOTHING))
    return [
        table_of(
            _(
                "Expired records on legal hold when the plan was made. A record may be under "
                "several holds. Only the register of legal holds states the subject of a hold"
            ),
            rows,
            [
                (_("Legal hold"), "code", lambda row: row[0]),
                (_("Kind"), "text", lambda row: HOLD_KINDS[row[1].kind] if row[1] else NOTHING),
                (_("Reason"), "text", lambda row: row[2]),
                (_("Owner"), "text", lambda row: row[1].owner if row[1] else NOTHING),
                (_("Review date"), "text", lambda row: row[1].review_on if row[1] else NOTHING),
                (_("Record class"), "text", lambda row: row[3]),
                (_("Records"), "number", lambda row: row[4]),
            ],
        )
    ]


def _staying_table(case: DatabaseRun) -> Table:
    return table_of(
        _(
            "Records that remain for reasons other than a legal hold; a record may have several "
            "reasons"
        ),
        reasons_for_staying(case),
        [
            (_("Record class"), "text", lambda row: row[0]),
            (_("Reason why the records remain"), "text", lambda row: row[1]),
            (_("Records"), "number", lambda row: row[2]),
        ],
    )


def _reactions(case: DatabaseRun, plan: PlanResult) -> list[Block]:
    """Return the blocks about triggers, rules and publications that act on deletion and masking.

    The blocks are a table of these database objects, and paragraphs about the rows that triggers
    and rules inserted or updated.

    Args:
        case: results of the run in one database.
        plan: result of the planning step.
    """
    blocks: list[Block] = []
    if plan.reactions:
        blocks.append(
            table_of(
                _(
                    "Triggers, rules and publications of the database that act on deletion and "
                    "masking. A transaction in which they delete or change other mapped "
                    "records is rolled back"
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
        inserted = [_inserted_text(table, rows) for table, rows in done.inserted.items()]
        updated = [_updated_text(table, rows) for table, rows in done.updated.items()]
        blocks += [Paragraph(text=text) for text in (*inserted, *updated)]
    return blocks


def _inserted_text(table: str, rows: int) -> Message:
    return _(
        "During the disposition, triggers or rules inserted {count} records into {table}. If "
        "these are copies of deleted or masked records, they need a record class of their own.",
        count=rows,
        table=table,
    )


def _updated_text(table: str, rows: int) -> Message:
    return _(
        "During the disposition, triggers or rules updated records of {table} {count} times, "
        "which the retention schedule allows.",
        count=rows,
        table=table,
    )


def _approval(case: DatabaseRun, plan: PlanResult) -> list[Block]:
    if not plan.tripped:
        text = _("No record class exceeded its limit, so the plan required no approval.")
        return [Paragraph(text=text)]
    waited = table_of(
        _("Record classes that required an approval"),
        plan.tripped,
        [
            (_("Record class"), "text", lambda trip: case.title(trip.name)),
            (_("Planned"), "number", lambda trip: trip.planned),
            (_("Limit exceeded"), "text", describe_limit),
        ],
    )
    if plan.request is None:
        return [
            waited,
            Paragraph(
                text=_("The approval was not requested, because no person is entitled to approve.")
            ),
        ]
    answer = case.approval or ApprovalResult(asked=True)
    decided = table_of(
        _("Approval of the disposition plan with the SHA-256 {sha256}", sha256=plan.sha256),
        [answer],
        [
            (_("Requested on"), "text", lambda _answer: plan.asked_at),
            (
                _("Owners of the retention schedule"),
                "text",
                lambda _answer: _list_names(plan.asked_for),
            ),
            (_("Decision"), "text", _decision_text),
            (_("Decided by"), "text", decided_by_text),
            (_("Decided"), "datetime", lambda answer: answer.decided_at or NOTHING),
            (_("Reason"), "text", lambda answer: reason_text(answer.reason or NOTHING)),
        ],
    )
    return [waited, decided]


def _decision_text(answer: ApprovalResult) -> Message:
    if answer.reason is not None:
        return _("approved") if answer.is_approved else _("rejected")
    if answer.decided_by:
        return _("invalid decision")
    return _("none")


def _requests(case: DatabaseRun) -> list[Table]:
    if not case.verification or not case.verification.requests:
        return []
    return [
        table_of(
            _("Erasure requests, by reference"),
            case.verification.requests,
            [
                (_("Request"), "code", lambda request: str(request.request)),
                (_("Reference"), "text", lambda request: request.reference),
                (_("Received"), "text", lambda request: request.received_on),
                (_("Due"), "text", lambda request: request.due_on),
                (_("Remaining records"), "number", lambda request: request.left),
                (_("State"), "text", lambda request: REQUEST_STATES[request.state]),
            ],
        )
    ]


def _backups(case: DatabaseRun) -> list[Block]:
    if not case.verification:
        return []
    copies = case.verification.copies
    if copies is None:
        text = _(
            "The off-site store could not be read, so this report cannot state which backups "
            "still contain deleted records."
        )
        return [Paragraph(text=text)]
    if not copies:
        text = _("No restore point contains records that were deleted from this database.")
        return [Paragraph(text=text)]
    return [
        table_of(
            _(
                "Backups that contain deleted records, or may contain them: they were taken "
                "before the last deletion, or at nearly the same time. After a restore, these "
                "records are deleted again according to the erasure ledger"
            ),
            copies,
            [
                (_("Restore point"), "code", lambda point: point.id),
                (_("Taken"), "datetime", lambda point: point.taken_at),
                (_("Expires"), "datetime", lambda point: point.expires_at),
                (_("Extended by a legal hold"), "text", lambda point: point.held),
            ],
        )
    ]


def _list_names(names: Sequence[str]) -> Message | str:
    if len(names) <= MOST_NAMES:
        return listed(names) if names else NOTHING
    return _(
        "{names} and others, {count} people in total",
        names=listed(names[:MOST_NAMES]),
        count=len(names),
    )
