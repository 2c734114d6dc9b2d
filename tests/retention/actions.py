"""Events before, during and after a run, from which tests generate random sequences."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Insert:
    """The insertion of a record.

    Attributes:
        table: index of the table.
        age: index of the record's age in the list of ages.
        who: index of the data subject.
        parent: index of the referenced record.
        open: whether the record has an open claim.
        close: whether the referenced record also refers to this record, so that both form a cycle.
    """

    table: int
    age: int
    who: int
    parent: int
    open: bool = False
    close: bool = False


@dataclass(frozen=True)
class Touch:
    """A change of a record by the application: of its start date, and of its open claim."""

    which: int
    age: int
    open: bool


@dataclass(frozen=True)
class Hold:
    """The placing of a legal hold on a data subject, a record class or the database."""

    kind: int
    value: int


@dataclass(frozen=True)
class Release:
    """The release of a legal hold."""

    which: int


@dataclass(frozen=True)
class Request:
    """An erasure request of a data subject."""

    who: int


@dataclass(frozen=True)
class Rotate:
    """A rotation of the HMAC key of the erasure ledger."""


@dataclass(frozen=True)
class Plan:
    """The planning step of a new run."""


Event = Insert | Touch | Hold | Release | Request


@dataclass(frozen=True)
class Execute:
    """The execution step of the newest run, with a kill or another event in the middle.

    Attributes:
        stage: stage at which the kill or event happens, one of `STAGES`.
        number: how often the execution reaches the stage until the kill or event happens.
        commit: whether the kill happens during COMMIT, for the stage ``confirmed``.
        kill: whether the execution is killed.
        meanwhile: event after the commit of a batch or after the last batch of a record class.
    """

    stage: str = "settled"
    number: int = 10**6
    kill: bool = False
    commit: bool = False
    meanwhile: Event | None = None


Action = Event | Rotate | Plan | Execute
