"""The faults of a returned workbook, all at once, each with sheet, cell and remedy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from include.messages import Message, _
from include.reports.i18n import Translator, visible
from include.services.errors import UsageError


@dataclass(frozen=True)
class Fault:
    """A fault for which a workbook is refused.

    Attributes:
        sheet: its name; empty for the file itself.
        cell: ``F7``; empty for the whole sheet.
        message: what is wrong.
        action: what to do about it.
    """

    sheet: str
    cell: str
    message: Message
    action: Message

    @property
    def said(self) -> Message:
        """Place, fault and remedy as one text."""
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
class Remark:
    """A remark about a workbook that does not refuse it.

    Attributes:
        sheet: its name.
        cells: which, ``F5:F9, G12``; empty where no cell is meant.
        message: what is remarkable; holds the places too.
    """

    sheet: str
    cells: str
    message: Message


class WorkbookRefused(UsageError):
    """A returned workbook cannot be taken for the one that was issued.

    Attributes:
        name: of the file.
        faults: all of them.
    """

    def __init__(self, name: str, faults: Sequence[Fault]) -> None:
        self.name = name
        self.faults = tuple(faults)
        english = Translator("en")
        count = "a fault" if len(faults) == 1 else f"{len(faults)} faults"
        lines = [f"- {english.text(fault.said)}" for fault in faults]
        super().__init__("\n".join([f"The workbook {visible(name)} has {count}:", *lines]))
