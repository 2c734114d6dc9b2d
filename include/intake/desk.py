"""What the steps of a review work with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from sqlalchemy import Engine

from include.erasure.ledger import ErasureKeys
from include.intake.checks import Checker, Key
from include.intake.names import Incoming
from include.quarantine.keys import KeyNames
from include.services.clock import Clock
from include.services.database import DatabaseAddress

Quarantine = Callable[[str, str, Sequence[Key]], None]
"""Keep the keys of rows that break a rule: batch, rule, keys. Has to be safe to repeat."""


def _nowhere(batch: str, rule: str, keys: Sequence[Key]) -> None:
    del batch, rule, keys


@dataclass(frozen=True)
class Desk:
    """One incoming table and the services of a run.

    Attributes:
        incoming: the table.
        reader: its database, as one who reads.
        writer: its database, as one who may let records in.
        state: the state database.
        clock: the time.
        dag_id: of the run.
        run_id: of the run.
        checkers: rules for its rows.
        quarantine: is given the keys of rows that are set aside, before they are.
        timezone: of times that people read.
        keys: of the names of rows whose primary key tells who a person is; without them such rows
            have no name for people.
    """

    incoming: Incoming
    reader: DatabaseAddress
    writer: DatabaseAddress
    state: Engine
    clock: Clock
    dag_id: str
    run_id: str
    checkers: Sequence[Checker] = ()
    quarantine: Quarantine = field(default=_nowhere)
    timezone: str = "Asia/Shanghai"
    keys: ErasureKeys | None = None

    @property
    def names(self) -> KeyNames | None:
        """The names of incoming rows for people and the register; None without keys."""
        incoming = self.incoming
        if self.keys is None:
            return None
        return KeyNames(self.keys, incoming.database.name, incoming.collection, incoming.key)
