"""The faults of a returned workbook, each with its sheet, its cell and a corrective action."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from include.messages import Message, _
from include.reports.i18n import Translator, visible
from include.services.errors import UsageError


@dataclass(frozen=True)
class Fault:
    """A reason for which a returned workbook is refused.

    Attributes:
        sheet: name of the sheet; empty if the fault concerns the whole file.
        cell: name of the cell, such as ``F7``; empty if the fault concerns the whole sheet.
        message: description of the fault.
        action: corrective action.
    """

    sheet: str
    cell: str
    message: Message
    action: Message

    @property
    def as_message(self) -> Message:
        """Return sheet, cell, fault and corrective action as one message."""
        if self.cell:
            return _(
                "Sheet {sheet}, cell {cell}: {message} {action}",
                sheet=self.sheet,
                cell=self.cell,
                message=self.message,
                action=self.action,
            )
        if self.sheet:
            return _(
                "Sheet {sheet}: {message} {action}",
                sheet=self.sheet,
                message=self.message,
                action=self.action,
            )
        return _("{message} {action}", message=self.message, action=self.action)


@dataclass(frozen=True)
class WorkbookRemark:
    """A remark on a returned workbook that does not lead to its refusal.

    Attributes:
        sheet: name of the sheet.
        cells: names of the cells, such as ``F5:F9, G12``; empty if the remark concerns the whole
            sheet.
        message: text of the remark, including the cells.
    """

    sheet: str
    cells: str
    message: Message


class WorkbookRefused(UsageError):
    """Raised if a returned workbook is refused.

    Attributes:
        name: name of the file.
        faults: all faults of the workbook.
    """

    def __init__(self, name: str, faults: Sequence[Fault]) -> None:
        self.name = name
        self.faults = tuple(faults)
        english = Translator("en")
        count = "a fault" if len(faults) == 1 else f"{len(faults)} faults"
        lines = [f"- {english.text(fault.as_message)}" for fault in faults]
        super().__init__("\n".join([f"The workbook {visible(name)} has {count}:", *lines]))
