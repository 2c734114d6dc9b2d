"""The section of the certificate about an application's triggers, rules and publications."""

from __future__ import annotations

from include.messages import Message, _
from include.reports.model import Block, Paragraph, table_of
from include.retention.report_case import Case
from include.retention.report_record import NOTHING
from include.retention.results import PlanResult

_KINDS = {
    "trigger": _("trigger"),
    "rule": _("rule"),
    "publication": _("publication: subscribers delete or change their copies too"),
}


def reactions(case: Case, plan: PlanResult) -> list[Block]:
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
