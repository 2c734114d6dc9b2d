"""What may happen around a run, as values that a test draws and strings together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Insert:
    """A new record; ``parent`` picks what it refers to, ``close`` ties a circle with it."""

    table: int
    age: int
    who: int
    parent: int
    open: bool = False
    close: bool = False


@dataclass(frozen=True)
class Touch:
    """The application changes a record: its clock moves on or back, a claim opens or closes."""

    which: int
    age: int
    open: bool


@dataclass(frozen=True)
class Hold:
    """Somebody places a hold: on a person, a class, or everything."""

    kind: int
    value: int


@dataclass(frozen=True)
class Release:
    """Somebody releases a hold."""

    which: int


@dataclass(frozen=True)
class Request:
    """Somebody asks to be erased."""

    who: int


@dataclass(frozen=True)
class Rotate:
    """The ledger gets another key."""


@dataclass(frozen=True)
class Plan:
    """A new run makes its plan."""


Event = Insert | Touch | Hold | Release | Request


@dataclass(frozen=True)
class Execute:
    """The newest run executes its plan; perhaps something happens meanwhile, or it is killed.

    Attributes:
        stage: at which it is killed or something happens, of `STAGES`.
        number: which arrival at that stage.
        commit: whether it is killed while COMMIT is under way; of the stage ``confirmed``.
        kill: whether it is killed.
        meanwhile: what happens when it has committed a batch or come to the end of a class.
    """

    stage: str = "settled"
    number: int = 10**6
    kill: bool = False
    commit: bool = False
    meanwhile: Event | None = None


Action = Event | Rotate | Plan | Execute
