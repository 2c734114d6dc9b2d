"""Which records a check examined, and what an incremental check cannot see."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from include.messages import Message, _, verbatim
from include.reports.model import Block, Code, Paragraph, Steps


def of_rows(collections: Sequence[dict[str, Any]]) -> Message:
    """Return the number of records of all collections."""
    count = sum(one["rows"] or 0 for one in collections)
    if unknown := [one["collection"] for one in collections if one["rows"] is None]:
        names = ", ".join(unknown)
        return _("of {count}; these were not counted: {names}", count=count, names=names)
    if all(one["whole"] for one in collections):
        return _("of {count}", count=count)
    return _("of {count} by the last full check", count=count)


def examined(one: dict[str, Any]) -> Message:
    """Return what was examined; a run that began under an earlier version recorded less of it."""
    name, rows, looked = one["collection"], one["rows"], one["looked_at"]
    if rows is None or (one["whole"] and rows and not looked):
        return _("{collection}: it was not looked at", collection=name)
    if one["whole"] and one.get("whole_because") is None:
        return _("{collection}: all {rows} records", collection=name, rows=rows)
    if one["whole"]:
        because = Message.model_validate(one["whole_because"])
        return _(
            "{collection}: all {rows} records, because {reason}",
            collection=name,
            rows=rows,
            reason=because,
        )
    return _(
        "{collection}: incremental check of {looked} changed records, of {rows} by the last full "
        "check",
        collection=name,
        looked=looked,
        rows=rows,
    )


def not_seen(one: dict[str, Any]) -> list[Block]:
    """Return what an incremental check of a collection cannot see; nothing after a full check."""
    told = one.get("incremental")
    if not told:
        return []
    items = [
        _("records that were changed or loaded without a new value in the column of changes"),
        _("records that were deleted: their entries stay in the quarantine register"),
        _(
            "changes in other collections, such as a consent that was withdrawn, unless the record "
            "itself changed too"
        ),
        _("records that break an expectation because time went on, such as an overdue review"),
    ]
    if any(rule.get("examined") == "last_full" for rule in one["rules"]):
        items.append(
            _(
                "new breaches of expectations that compare records with each other or count them: "
                "their figures are those of the last full check"
            )
        )
    if not told["sees_open_transactions"]:
        items.append(
            _(
                "records whose transaction was open for longer than the margin for late arrivals "
                "({margin}): the database does not show open transactions to this check",
                margin=verbatim(told["margin"]),
            )
        )
    column, since = told["column"], told["since"]
    return [
        Paragraph(
            text=_(
                "This check of {collection} was incremental: it examined changed records. The last "
                "full check was on {full}; the next one is due on {due}. Until then no check sees:",
                collection=one["collection"],
                full=datetime.fromisoformat(told["full_at"]).date(),
                due=datetime.fromisoformat(told["full_due"]).date(),
            )
        ),
        Steps(items=items),
        Code(
            lines=[f"{column} >= {since}", f"{column} IS NULL"],
            caption=_("For engineers: the records that were examined"),
        ),
    ]
