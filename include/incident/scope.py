"""Counts of what is affected, by database; a later count never makes an incident smaller.

The count of a database that cannot be read is unknown, not zero, and so is every total with it.

A later count may select less. Each figure keeps the greater value of both counts: otherwise the
grade would fall, and letters would leave out types of information.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import AwareDatetime

from include.frozen import StrictModel
from include.incident.rules import Scenario
from include.incident.selection import Selection
from include.messages import Message
from include.services.errors import UsageError

FICTION = "scenario"
"""Name that stands for the databases of a drill."""


class Counted(StrictModel):
    """What is affected in one database.

    Attributes:
        database: of the data map.
        everything: whether nothing narrowed it down: all that incident.yaml names there.
        subjects: data subjects, each once.
        records: records by collection; each once, also where it is about several people.
        categories: people of whom an affected record has a value, by data category of the data map.
            Whoever a record is about counts with all that stands on it.
        sensitive: people of whom an affected record has a value of a sensitive category, and those
            under 14: PIPL (2021-11-01) 28 counts all information about these.
        minors: people under 14; None where incident.yaml does not say how their age is known.
        age_unknown: people whose age nobody knows.
        unlisted: people whom records name and who do not stand in the collection of people.
        unseen: people of the frozen list whom this count does not find: where there are any,
            figures of people are upper bounds and those of records lower ones.
        undated: records without a moment; the time window does not leave them out.
        first: moment of the oldest affected record; None where none has one.
        last: of the newest.
        departments: people by the department that answers for them, those without one left out;
            empty where everybody is affected.
        accounts: people whose records each account opened; those named that opened none are there.
        log_rows: entries of the logs of accesses and sharing that say so.
        log_first: the oldest of these.
        log_last: the newest.
        not_narrowed: collections that have no moment or department, so that all of them counts.
        listed: keys that were listed for this database.
        not_found: of these, the ones that it does not have.
        not_found_at: places of the first of them in the list, from 1.
    """

    database: str
    everything: bool = False
    subjects: int
    records: Mapping[str, int] = {}
    categories: Mapping[str, int] = {}
    sensitive: int = 0
    minors: int | None = None
    age_unknown: int = 0
    unlisted: int = 0
    unseen: int = 0
    undated: int = 0
    first: AwareDatetime | None = None
    last: AwareDatetime | None = None
    departments: Mapping[str, int] = {}
    accounts: Mapping[str, int] = {}
    log_rows: int = 0
    log_first: AwareDatetime | None = None
    log_last: AwareDatetime | None = None
    not_narrowed: tuple[str, ...] = ()
    listed: int = 0
    not_found: int = 0
    not_found_at: tuple[int, ...] = ()


class Unknown(StrictModel):
    """A database in which nobody could count.

    Attributes:
        database: of the data map.
        reason: why; no value of a record.
        passing: whether it may be worth another try soon.
    """

    database: str
    reason: Message
    passing: bool = False


class Scope(StrictModel):
    """What is affected, over all databases. A person who stands in two of them counts twice.

    Attributes:
        version: from 1.
        selection: as it was said.
        counted: by database.
        unknown: databases in which nobody could count.
    """

    version: int
    selection: Selection
    counted: tuple[Counted, ...] = ()
    unknown: tuple[Unknown, ...] = ()

    @property
    def complete(self) -> bool:
        """Return whether every database was counted in."""
        return not self.unknown

    @property
    def subjects(self) -> int:
        """People in the databases that were counted in."""
        return sum(count.subjects for count in self.counted)

    @property
    def records(self) -> int:
        """Records in them."""
        return sum(sum(count.records.values()) for count in self.counted)

    @property
    def sensitive(self) -> int:
        """People of whom sensitive information is affected, in them."""
        return sum(count.sensitive for count in self.counted)

    @property
    def minors(self) -> int | None:
        """People under 14 where their age is known; None where it is known nowhere."""
        known = [count.minors for count in self.counted if count.minors is not None]
        return sum(known) if known else None

    @property
    def age_unknown(self) -> int:
        """People whose age nobody knows."""
        return sum(count.age_unknown for count in self.counted)

    @property
    def categories(self) -> dict[str, int]:
        """People by data category, in them."""
        found: dict[str, int] = {}
        for count in self.counted:
            for category, people in count.categories.items():
                found[category] = found.get(category, 0) + people
        return dict(sorted(found.items()))

    @property
    def first(self) -> datetime | None:
        """Moment of the oldest affected record."""
        return min((count.first for count in self.counted if count.first), default=None)

    @property
    def last(self) -> datetime | None:
        """Moment of the newest affected record."""
        return max((count.last for count in self.counted if count.last), default=None)

    @property
    def nobody(self) -> bool:
        """Whether all was counted and nobody found: rather a slip of the pen than good news."""
        return self.complete and self.subjects == 0

    def affected(self) -> dict[str, int | None]:
        """People by database; None where nobody could count."""
        found: dict[str, int | None] = {count.database: count.subjects for count in self.counted}
        return found | dict.fromkeys((unknown.database for unknown in self.unknown), None)

    def as_json(self) -> dict[str, Any]:
        """For the state database and reports; no floats."""
        return self.model_dump(mode="json")


def of_scenario(scenario: Scenario, version: int, selection: Selection) -> Scope:
    """The scope of a drill: what the scenario says; nothing is counted."""
    said = scenario.counts
    counted = Counted(
        database=FICTION,
        subjects=said.subjects,
        records={FICTION: said.records},
        categories=dict.fromkeys(said.categories, said.subjects),
        sensitive=said.sensitive,
        minors=said.minors,
    )
    return Scope(version=version, selection=selection, counted=(counted,))


def refuse_less(before: Scope | None, more: Selection) -> None:
    """Refuse a selection that leaves out a database in which people are affected.

    Args:
        before: what is affected, as it was counted last; None where nobody counted.
        more: `selection.checked`.

    Raises:
        UsageError: it does; names the databases.
    """
    known = before.affected() if before else {}
    left = [database for database in known if database not in more.databases]
    if left:
        raise UsageError(
            f"What is affected was entered without {', '.join(left)}, which is affected already.",
            "Enter all that is affected as far as is known now, not only what came to it.",
        )


def widened(before: Scope | None, counted: Scope) -> tuple[Scope, list[str]]:
    """The new count with, in every database, no figure less than before.

    What cannot be counted now and could be before stands with the figures of then, and as unknown.

    Args:
        before: as it was counted last; None where nobody counted.
        counted: by the wider selection.

    Returns:
        What is affected; and the databases in which the new count found fewer people.
    """
    known = {count.database: count for count in before.counted} if before else {}
    unknown = {one.database for one in counted.unknown}
    found = [
        _more(known[count.database], count) if count.database in known else count
        for count in counted.counted
    ]
    found += [one for name, one in known.items() if name in unknown]
    fewer = [
        count.database
        for count in counted.counted
        if count.database in known and count.subjects < known[count.database].subjects
    ]
    return counted.model_copy(update={"counted": tuple(found)}), fewer


def _more(before: Counted, now: Counted) -> Counted:
    """Return the greater of each figure, and the longer of each period."""
    update: dict[str, Any] = {}
    for name in Counted.model_fields.keys() - _OF_THE_LAST_COUNT:
        old, new = getattr(before, name), getattr(now, name)
        if isinstance(new, dict):
            keys = dict.fromkeys([*old, *new])
            update[name] = {key: max(old.get(key, 0), new.get(key, 0)) for key in keys}
        else:
            choose = min if name in ("first", "log_first") else max
            figures = (figure for figure in (old, new) if figure is not None)
            update[name] = choose(figures, default=None)
    return now.model_copy(update=update)


_OF_THE_LAST_COUNT = {"database", "not_narrowed", "listed", "not_found", "not_found_at"}
"""Fields that a later count replaces."""
