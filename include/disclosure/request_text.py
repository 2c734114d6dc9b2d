"""Describe requests in words, for forms, compliance pages and reports."""

from __future__ import annotations

from collections.abc import Sequence

from include.disclosure.content import Filter, PlannedColumn, RequestContent
from include.disclosure.requests import UseRequest
from include.disclosure.rules import USE, FilterKind
from include.disclosure.use_form import FORMS
from include.messages import Message, _, listed, verbatim
from include.policy import PolicyPack
from include.policy.datamap import MappedCollection


def describe_request(pack: PolicyPack, request: UseRequest) -> list[tuple[Message, Message]]:
    """Return label and value of each item of a request, for forms, pages and reports.

    Technical names replace the titles of an old request that the policy pack no longer maps.
    """
    content, plan = request.content, request.plan
    collection = _collection(pack, content)

    def title(column: str) -> Message:
        return verbatim(column) if collection is None else collection.field_title(column)

    shown = [column for column in plan.columns if column.name not in content.unmasked]
    unmasked = [column for column in plan.columns if column.name in content.unmasked]

    def titles(columns: Sequence[PlannedColumn]) -> Message:
        return (
            listed([_with_mask(title(column.name), column) for column in columns])
            if columns
            else _("none")
        )

    minors = _("not counted") if plan.minors is None else verbatim(str(plan.minors))
    return [
        (_("Requester"), verbatim(content.requester)),
        (_("Purpose"), purpose_title(pack, content.purpose)),
        (_("Case reference"), verbatim(content.case)),
        (_("Kind of records"), collection.title if collection else verbatim(content.collection)),
        (_("Fields"), titles(shown)),
        (_("Fields without masking"), titles(unmasked)),
        (
            _("Selection"),
            listed(
                [_describe_filter(entry, content, title(entry.column)) for entry in content.filters]
            ),
        ),
        (_("Number of records"), _number(plan.records)),
        (_("Number of people"), _number(plan.people)),
        (_("Records about people under 18"), minors),
        (_("Records left out because of an erasure request"), _number(plan.excluded)),
        (_("Keys that match no record"), _number(plan.unknown_keys)),
        (_("Days"), _number(content.days)),
        (_("Form of the delivery"), FORMS[content.form]),
    ]


def _with_mask(title: Message, column: PlannedColumn) -> Message:
    """Return the name of a column, with its mask if its values are not shown as they are."""
    match column.mask:
        case "show":
            return title
        case "erase":
            return _("{field} (left empty)", field=title)
        case _:
            return _("{field} (masked)", field=title)


def purpose_title(pack: PolicyPack, purpose_id: str) -> Message:
    """Return the name of a purpose, or its id if use.yaml no longer has the purpose."""
    rules = pack.section(USE)
    purpose = rules.purpose(purpose_id) if rules else None
    return purpose.message if purpose else verbatim(purpose_id)


def _collection(pack: PolicyPack, content: RequestContent) -> MappedCollection | None:
    """Return the collection of a request; None if the policy pack no longer maps it."""
    database = pack.databases.get(content.database)
    if database is None or database.is_faulty:
        return None
    return database.collections.get(content.collection)


def _number(value: int) -> Message:
    return Message(text="{number}", values={"number": value})


def _describe_filter(entry: Filter, content: RequestContent, title: Message) -> Message:
    if entry.kind is FilterKind.KEY:
        return _("{field}: {count} keys", field=title, count=content.keys)
    if entry.kind is FilterKind.CODE:
        return _("{field}: {codes}", field=title, codes=", ".join(entry.values))
    if not entry.end:
        return _("{field}: from {start}", field=title, start=entry.start)
    if not entry.start:
        return _("{field}: to {end}", field=title, end=entry.end)
    return _("{field}: {start} to {end}", field=title, start=entry.start, end=entry.end)
