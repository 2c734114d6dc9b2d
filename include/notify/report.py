"""What a report says of messages, from the record of the step that sent them."""

from __future__ import annotations

from typing import Any

from include.evidence.model import StepRecord
from include.messages import _
from include.notify.notice import explained
from include.reports.model import Block, Cell, Column, Paragraph, Section, Table


def messages(record: StepRecord) -> Section:
    """The section "Messages": what was sent, what waits, what did not arrive, what may have.

    Args:
        record: of the step `send`; where that did not finish, the section says so.
    """
    data = record.data
    if "messages" not in data:
        text = _("The step that sends did not finish; what was sent is told by the next run.")
        return Section(heading=_HEADING, blocks=[Paragraph(text=text)])
    blocks: list[Block] = [
        Paragraph(
            text=_(
                "Messages sent since the run began, those of other workflows in the same digests "
                "included: {messages}. Notices that wait for their time: {waiting}; that are due "
                "and wait for another try: {deferred}.",
                messages=data["messages"],
                waiting=data["waiting"],
                deferred=data["deferred"],
            )
        )
    ]
    if data["kinds"]:
        blocks.append(
            Table(
                caption=_("Sent"),
                columns=[
                    Column(label=_("Kind"), kind="code"),
                    Column(label=_("Notices"), kind="number"),
                    Column(label=_("Recipients"), kind="number"),
                ],
                rows=[list(row) for row in data["kinds"]],
            )
        )
    for name, caption in _UNSENT.items():
        if rows := data[name]:
            blocks.append(_unsent(caption, rows))
            if (count := data[f"{name}_count"]) > len(rows):
                more = _("And {count} more: ./parcelseal notices list.", count=count - len(rows))
                blocks.append(Paragraph(text=more))
    return Section(heading=_HEADING, blocks=blocks)


_HEADING = _("Messages")
_UNSENT = {
    "undeliverable": _("Could not be delivered"),
    "in_doubt": _("May have arrived or not"),
}


def _unsent(caption: Any, rows: list[list[str]]) -> Table:
    cells: list[list[Cell]] = [
        [recipient, kind, explained(cause)] for kind, recipient, cause in rows
    ]
    return Table(
        caption=caption,
        columns=[
            Column(label=_("Recipient"), kind="code"),
            Column(label=_("Kind"), kind="code"),
            Column(label=_("Cause")),
        ],
        rows=cells,
    )
