"""The rig's schedule in Python, written anew: which of its records may go, and which may not.

It knows rows of a handful of columns and finds what may go by taking away, again and again, what
something keeps. It shares no code with `include.retention`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from tests.retention.rig import AS_OF

Effect = Literal["keeps", "detached", "nulled"]


@dataclass(frozen=True)
class Link:
    """A foreign key: who has it, in which field of `Row.refs`, where it leads, what comes of it."""

    child: str
    name: str
    parent: str
    effect: Effect = "keeps"


LINKS = (
    Link("scan", "parcel", "parcel"),
    Link("detail", "scan", "scan"),
    Link("tag", "scan", "scan", "detached"),
    Link("note", "scan", "scan", "nulled"),
    Link("remark", "event", "event"),
    Link("node", "up", "node"),
    Link("ring_a", "b", "ring_b"),
    Link("ring_b", "a", "ring_a"),
    Link("client", "home", "home"),
)
ON_REQUEST = {"parcel", "scan", "detail", "person", "client", "home", "letter"}


@dataclass
class Row:
    """One record.

    Attributes:
        at: its clock; None while it has not started.
        who: key of its data subject.
        open: keeps a parcel by another class, and suspends a scan.
        refs: name of the link -> number of the record it leads to.
        mail: of a client or a letter: its address.
    """

    table: str
    number: int
    at: datetime | None
    who: str
    open: bool = False
    masked: bool = False
    refs: dict[str, int | None] = field(default_factory=dict)
    mail: int | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """The primary key as the ledger spells it; the partition key of an event is its clock."""
        if self.table == "parcel":
            return ("n", str(self.number))
        if self.table == "event":
            assert self.at is not None
            return (str(self.number), f"{self.at:%Y-%m-%d %H:%M:%S}+00")
        return (str(self.number),)

    @property
    def expired(self) -> bool:
        """A year has passed."""
        return self.at is not None and self.at.replace(year=self.at.year + 1) < AS_OF


Name = tuple[str, int]


@dataclass
class Model:
    """Records, holds and requests.

    Attributes:
        rows: that are there, by table and number.
        holds: by number in the registry: kind and value.
        asked: data subjects with an open request.
        gone: records that were deleted.
        remembered: data subject with an open request -> records that runs found for the request.
    """

    rows: dict[Name, Row] = field(default_factory=dict)
    holds: dict[int, tuple[str, str]] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    gone: dict[Name, Row] = field(default_factory=dict)
    remembered: dict[str, set[Name]] = field(default_factory=dict)

    def subject(self, row: Row) -> str | None:
        """Return whose a record is: by its own column, or by the clients that lead to it."""
        match row.table:
            case "home":
                clients = [one for one in self._clients() if one.refs["home"] == row.number]
            case "letter":
                clients = [one for one in self._clients() if one.mail == row.mail]
            case _:
                return row.who
        return min((one.who for one in clients), default=None)

    def remember(self, subjects: Iterable[str]) -> None:
        """Remember what is a data subject's by now, before what leads to it goes."""
        for subject in subjects:
            names = self.remembered.setdefault(subject, set())
            names |= {
                name
                for name, row in self.rows.items()
                if row.table in ON_REQUEST and self.subject(row) == subject
            }

    def requested(self, row: Row) -> bool:
        """Its data subject asked, and it is nobody else's by now."""
        subject, name = self.subject(row), (row.table, row.number)
        if row.table not in ON_REQUEST:
            return False
        return subject in self.asked or (
            subject is None and any(name in self.remembered.get(one, ()) for one in self.asked)
        )

    def _clients(self) -> list[Row]:
        return [row for row in self.rows.values() if row.table == "client"]

    def held(self, row: Row) -> bool:
        """A hold is on it."""
        for kind, value in self.holds.values():
            if kind == "database" or (kind == "subject" and value == self.subject(row)):
                return True
            if kind == "subject" and (row.table, row.number) in self.remembered.get(value, ()):
                return True
            if kind == "class" and (value == row.table or self._claim(row, value)):
                return True
        return False

    def ready(self, row: Row) -> bool:
        """It may go, or be masked, as far as it itself is concerned."""
        due = row.expired or self.requested(row)
        stays = self.held(row) or row.masked or (row.open and row.table in ("parcel", "scan"))
        return due and not stays

    def to_mask(self) -> set[Name]:
        """Records that will be masked."""
        return {name for name, row in self.rows.items() if name[0] == "person" and self.ready(row)}

    def to_delete(self) -> set[Name]:
        """Records that will be deleted: all that may go, less what others keep."""
        going = {name for name, row in self.rows.items() if name[0] != "person" and self.ready(row)}
        while kept := {name for name in going if self._kept(name, going)}:
            going -= kept
        return going

    def going(self) -> Counter[str]:
        """How many records of each class will go or be masked."""
        return Counter(table for table, _ in self.to_delete() | self.to_mask())

    def remove(self, name: Name) -> None:
        """A record was deleted; what led to it and is set to null leads nowhere."""
        self.gone[name] = self.rows.pop(name)
        for row, link in self._leading_to(name):
            row.refs[link.name] = None

    def _kept(self, name: Name, going: set[Name]) -> bool:
        for row, link in self._leading_to(name):
            other = (row.table, row.number)
            if other == name:
                continue
            if link.effect == "keeps" and other not in going:
                return True
            if link.effect != "keeps" and self.held(row):
                return True
        return False

    def _leading_to(self, name: Name) -> Iterator[tuple[Row, Link]]:
        for link in LINKS:
            if link.parent == name[0]:
                for row in self.rows.values():
                    if row.table == link.child and row.refs.get(link.name) == name[1]:
                        yield row, link

    def _claim(self, row: Row, value: str) -> bool:
        return value == "claim" and row.table == "parcel" and row.open


def more_than(found: Mapping[str, int], allowed: Mapping[str, int]) -> dict[str, int]:
    """What of some counts lies beyond others."""
    return {name: some for name, some in found.items() if some > allowed.get(name, 0)}
