"""Report the records that a check examined, and the changes that an incremental check misses."""

from __future__ import annotations

from collections.abc import Sequence

from include.messages import Message, _, verbatim
from include.quality.collection import CheckedCollection, Scope
from include.reports.model import Block, Code, Paragraph, Steps


def of_rows(collections: Sequence[CheckedCollection]) -> Message:
    """Return the number of records of all collections."""
    count = sum(collection.rows or 0 for collection in collections)
    if unknown := [collection.collection for collection in collections if collection.rows is None]:
        names = ", ".join(unknown)
        return _("of {count}; these were not counted: {names}", count=count, names=names)
    if all(collection.whole for collection in collections):
        return _("of {count}", count=count)
    return _("of {count} by the last full check", count=count)


def examined(collection: CheckedCollection) -> Message:
    """Return how many records were examined. Runs of earlier versions recorded less."""
    name, rows, looked = collection.collection, collection.rows, collection.looked_at
    if rows is None or (collection.whole and rows and not looked):
        return _("{collection}: it was not examined", collection=name)
    if collection.whole and collection.whole_because is None:
        return _("{collection}: all {rows} records", collection=name, rows=rows)
    if collection.whole:
        return _(
            "{collection}: all {rows} records, because {reason}",
            collection=name,
            rows=rows,
            reason=collection.whole_because,
        )
    return _(
        "{collection}: incremental check of {looked} changed records, of {rows} by the last full "
        "check",
        collection=name,
        looked=looked,
        rows=rows,
    )


def not_seen(collection: CheckedCollection) -> list[Block]:
    """Return the changes that an incremental check cannot see; nothing after a full check."""
    incremental = collection.incremental
    if incremental is None:
        return []
    column, since = incremental.column, incremental.since
    items = [
        _("records that were changed or loaded without a new value in the change column"),
        _(
            "records that were loaded late, with a value below {since} in that column",
            since=verbatim(since),
        ),
        _("records of a partition that was emptied and loaded again, or attached"),
        _("records that were deleted: their entries stay in the quarantine register"),
        _("that a primary key changed: the entry of the old key stays in the quarantine register"),
        _(
            "changes in other collections, such as a consent that was withdrawn, unless the record "
            "itself changed too"
        ),
        _("records that break an expectation because time went on, such as an overdue review"),
    ]
    if any(rule.examined is Scope.LAST_FULL for rule in collection.rules):
        items.append(
            _(
                "new breaches of expectations that compare records with each other or count them: "
                "their figures are those of the last full check"
            )
        )
    if not incremental.sees_open_transactions:
        items.append(_late(incremental.margin))
    elif not incremental.has_timezone:
        items.append(
            _(
                "records whose transaction was open for longer than the margin for late arrivals "
                "({margin}), if the application writes the column in another timezone than the "
                "server's or UTC",
                margin=verbatim(incremental.margin),
            )
        )
    return [
        Paragraph(
            text=_(
                "This check of {collection} was incremental: it examined changed records. The last "
                "full check was on {full}; the next one is due on {due}. Until then no check sees:",
                collection=collection.collection,
                full=incremental.full_at.date(),
                due=incremental.full_due.date(),
            )
        ),
        Steps(items=items),
        Code(
            lines=[f"{column} >= {since}", f"{column} IS NULL"],
            caption=_("For engineers: the records that were examined"),
        ),
    ]


def _late(margin: str) -> Message:
    if margin.isdecimal():  # the column holds numbers, of which no transaction's start is known
        return _(
            "records that were committed after the last check and whose number is more than "
            "{margin} below the greatest one that it read",
            margin=verbatim(margin),
        )
    return _(
        "records whose transaction was open for longer than the margin for late arrivals "
        "({margin}): the database does not show open transactions to this check",
        margin=verbatim(margin),
    )
