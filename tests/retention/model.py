"""An independent model in Python of the runner's schedule, which states what may be erased.

The model starts with all expired and requested records. It removes the records that must be kept,
and repeats this until each of the other records may be erased. It shares no code with
`include.retention`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from tests.retention.runner import AS_OF

Effect = Literal["keeps", "detached", "nulled"]


@dataclass(frozen=True)
class Link:
    """A foreign key of the model.

    Attributes:
        child: referring table.
        name: name of the foreign key in `Row.refs`.
        parent: referenced table.
        effect: effect on the deletion of the referenced record.
    """

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
    """A record of the model.

    Attributes:
        at: start of the retention period; None while the period has not started.
        who: key of the data subject.
        open: whether the record has an open claim. With an open claim, another class keeps a
            parcel, and the disposition of a scan is suspended.
        refs: name of the foreign key -> number of the referenced record.
        mail: mail address of a client or a letter.
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
        """The primary key as the erasure ledger encodes it.

        The key of an event includes the start of its retention period.
        """
        if self.table == "parcel":
            return ("n", str(self.number))
        if self.table == "event":
            assert self.at is not None
            return (str(self.number), f"{self.at:%Y-%m-%d %H:%M:%S}+00")
        return (str(self.number),)

    @property
    def expired(self) -> bool:
        """Whether the retention period of one year has ended."""
        return self.at is not None and self.at.replace(year=self.at.year + 1) < AS_OF


Name = tuple[str, int]


@dataclass
class Model:
    """Records, legal holds and erasure requests of the model.

    Attributes:
        rows: existing records by table and number.
        holds: number of a hold -> its kind and value.
        asked: data subjects with an open request.
        gone: deleted records.
        remembered: data subject with an open request -> records that runs stored for the request.
    """

    rows: dict[Name, Row] = field(default_factory=dict)
    holds: dict[int, tuple[str, str]] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    gone: dict[Name, Row] = field(default_factory=dict)
    remembered: dict[str, set[Name]] = field(default_factory=dict)

    def subject(self, row: Row) -> str | None:
        """Return the data subject of a record, from its own column or from referring clients."""
        match row.table:
            case "home":
                clients = [
                    client for client in self._clients() if client.refs["home"] == row.number
                ]
            case "letter":
                clients = [client for client in self._clients() if client.mail == row.mail]
            case _:
                return row.who
        return min((client.who for client in clients), default=None)

    def remember(self, subjects: Iterable[str]) -> None:
        """Store the records of data subjects, before records that lead to them are erased."""
        for subject in subjects:
            names = self.remembered.setdefault(subject, set())
            names |= {
                name
                for name, row in self.rows.items()
                if row.table in ON_REQUEST and self.subject(row) == subject
            }

    def requested(self, row: Row) -> bool:
        """Return whether the record still belongs to a data subject who requested erasure."""
        subject, name = self.subject(row), (row.table, row.number)
        if row.table not in ON_REQUEST:
            return False
        return subject in self.asked or (
            subject is None
            and any(name in self.remembered.get(person, ()) for person in self.asked)
        )

    def _clients(self) -> list[Row]:
        return [row for row in self.rows.values() if row.table == "client"]

    def held(self, row: Row) -> bool:
        """Return whether the record is on legal hold."""
        for kind, value in self.holds.values():
            if kind == "database" or (kind == "subject" and value == self.subject(row)):
                return True
            if kind == "subject" and (row.table, row.number) in self.remembered.get(value, ()):
                return True
            if kind == "class" and (value == row.table or self._claim(row, value)):
                return True
        return False

    def ready(self, row: Row) -> bool:
        """Return whether the record may be deleted or masked, without regard to references."""
        due = row.expired or self.requested(row)
        stays = self.held(row) or row.masked or (row.open and row.table in ("parcel", "scan"))
        return due and not stays

    def to_mask(self) -> set[Name]:
        """Return the records to mask."""
        return {name for name, row in self.rows.items() if name[0] == "person" and self.ready(row)}

    def to_delete(self) -> set[Name]:
        """Return the records to delete: all ready records to which no remaining record refers."""
        going = {name for name, row in self.rows.items() if name[0] != "person" and self.ready(row)}
        while kept := {name for name in going if self._kept(name, going)}:
            going -= kept
        return going

    def going(self) -> Counter[str]:
        """Count the records to delete or mask, by table."""
        return Counter(table for table, _ in self.to_delete() | self.to_mask())

    def remove(self, name: Name) -> None:
        """Delete a record, and set references to it to null."""
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


def more_than(counts: Mapping[str, int], allowed: Mapping[str, int]) -> dict[str, int]:
    """Return the counts that exceed the allowed counts, by name."""
    return {name: count for name, count in counts.items() if count > allowed.get(name, 0)}
