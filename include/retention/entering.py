"""A batch of the ledger that is written while the other database erases."""

from __future__ import annotations

from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING

from include.retention.classes import RecordClass

if TYPE_CHECKING:
    from include.retention.work import Key, Work


@dataclass(frozen=True)
class Entering:
    """A batch that is being written to the ledger, on a thread of its own."""

    work: Work
    one: RecordClass
    keys: list[Key]
    transaction: str
    written: Future[int]

    def commit(self, gone: list[Key]) -> int:
        """Commit the ledger's transaction, with the records that went and no others.

        Returns:
            The batch's id in the ledger.
        """
        entered = self.written.result()
        if len(gone) == len(self.keys) and set(gone) == set(self.keys):
            self.work.written()
            return entered
        self.work.ledger.rollback()
        return self.work.intend(self.one, gone, self.transaction)

    def end(self) -> None:
        """Take back what was not committed; the thread is at its end then."""
        wait([self.written])
        self.work.ledger.rollback()
