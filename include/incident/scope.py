"""The scope of an incident: affected people, records and types of information in each database.

If a database cannot be read, its count is unknown, not zero. A later count may have narrower
criteria, but the figures of the scope never become smaller: each figure is the greater of the two
counts. Otherwise the grade would fall, and notices would omit types of information that an earlier
count found.
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

DRILL_DATABASE = "scenario"
"""Database name of the counts of a drill."""


class DatabaseCount(StrictModel):
    """The counts of affected people and records in one database.

    Attributes:
        database: name of the database in the data map.
        everything: whether all records are affected, because the criteria contain no filter.
        subjects: number of affected data subjects.
        records: number of affected records by collection. A record about several people is counted
            once.
        categories: number of affected people by data category. A person counts for a category if
            one of the person's affected records has a value of it, even if this value describes
            another person.
        sensitive: number of affected people who are under 14 or have a value of a sensitive
            category. All data of people under 14 is sensitive: PIPL (2021-11-01), article 28.
        minors: number of affected people under 14; None if incident.yaml does not define ages.
        age_unknown: number of affected people of unknown age.
        unlisted: number of affected people whose key is in a record, but not in the table of data
            subjects.
        unseen: number of people on the stored list of affected people whom this count did not find.
            If it is greater than 0, the numbers of people are upper bounds, and the numbers of
            records are lower bounds.
        undated: number of affected records without a time. They are included in every time window.
        first: time of the oldest affected record; None if no record has a time.
        last: time of the newest affected record; None if no record has a time.
        departments: number of affected people by responsible department; empty if all records are
            affected.
        accounts: account that was entered -> number of people whose records the account opened; may
            be zero.
        log_rows: number of entries of the access log and the sharing log to which the criteria
            apply.
        log_first: time of the oldest of these log entries; None if no entry has a time.
        log_last: time of the newest of these log entries; None if no entry has a time.
        not_narrowed: collections whose records have no time or department to which an entered
            filter could apply. All records of these collections are affected.
        listed: number of keys in this database that a person listed as affected.
        not_found: number of listed keys that do not exist in the database.
        not_found_at: positions in the list, from 1, of the first keys that do not exist.
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


class UncountedDatabase(StrictModel):
    """A database whose affected records could not be counted.

    Attributes:
        database: name of the database in the data map.
        reason: reason as display text, which contains no value of a record.
        passing: whether the reason is temporary, so another count may succeed.
    """

    database: str
    reason: Message
    passing: bool = False


class Scope(StrictModel):
    """The scope of an incident: the criteria that a person entered, and the counts by database.

    A person who is in two databases is counted twice.

    Attributes:
        version: version of the scope, from 1.
        selection: criteria of affected records that a person entered.
        counted: counts of each database that was counted, now or earlier.
        unknown: databases in which the newest count failed.
    """

    version: int
    selection: Selection
    counted: tuple[DatabaseCount, ...] = ()
    unknown: tuple[UncountedDatabase, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether the newest count succeeded in every database of the scope."""
        return not self.unknown

    @property
    def subjects(self) -> int:
        """Number of affected people in the counted databases."""
        return sum(count.subjects for count in self.counted)

    @property
    def records(self) -> int:
        """Number of affected records in the counted databases."""
        return sum(sum(count.records.values()) for count in self.counted)

    @property
    def sensitive(self) -> int:
        """Number of people whose sensitive data is affected, in the counted databases."""
        return sum(count.sensitive for count in self.counted)

    @property
    def minors(self) -> int | None:
        """Number of affected people under 14; None if no counted database has ages."""
        counts = [count.minors for count in self.counted if count.minors is not None]
        return sum(counts) if counts else None

    @property
    def age_unknown(self) -> int:
        """Number of affected people of unknown age in the counted databases."""
        return sum(count.age_unknown for count in self.counted)

    @property
    def categories(self) -> dict[str, int]:
        """Number of affected people by data category in the counted databases."""
        totals: dict[str, int] = {}
        for count in self.counted:
            for category, people in count.categories.items():
                totals[category] = totals.get(category, 0) + people
        return dict(sorted(totals.items()))

    @property
    def first(self) -> datetime | None:
        """Time of the oldest affected record; None if no record has a time."""
        return min((count.first for count in self.counted if count.first), default=None)

    @property
    def last(self) -> datetime | None:
        """Time of the newest affected record; None if no record has a time."""
        return max((count.last for count in self.counted if count.last), default=None)

    @property
    def is_upper_bound(self) -> bool:
        """Whether the number of people may include people whose data is not affected.

        This is the case in three situations. The criteria cover all records of a database or
        collection. Or a time window includes records without a time. Or people of an earlier count
        are included.
        """
        has_window = bool(self.selection.since or self.selection.until)
        return any(
            count.everything or count.not_narrowed or count.unseen or (has_window and count.undated)
            for count in self.counted
        )

    @property
    def is_empty(self) -> bool:
        """Whether no person is affected; False if a database of the scope could not be counted."""
        return self.is_complete and self.subjects == 0

    def people_by_database(self) -> dict[str, int | None]:
        """Return the number of affected people by database; None for an uncounted database."""
        counts: dict[str, int | None] = {count.database: count.subjects for count in self.counted}
        return counts | dict.fromkeys((unknown.database for unknown in self.unknown), None)

    def as_json(self) -> dict[str, Any]:
        """Return the scope as JSON values without floats, for the state database and reports."""
        return self.model_dump(mode="json")


def scenario_scope(scenario: Scenario, version: int, selection: Selection) -> Scope:
    """Return the scope of a drill. Its counts are those of the scenario; no database is read.

    Args:
        scenario: scenario of incident.yaml.
        version: version of the scope, from 1.
        selection: criteria of affected records in the trigger form.
    """
    figures = scenario.counts
    counted = DatabaseCount(
        database=DRILL_DATABASE,
        subjects=figures.subjects,
        records={DRILL_DATABASE: figures.records},
        categories=dict.fromkeys(figures.categories, figures.subjects),
        sensitive=figures.sensitive,
        minors=figures.minors,
    )
    return Scope(version=version, selection=selection, counted=(counted,))


def refuse_narrower(before: Scope | None, selection: Selection) -> None:
    """Refuse new criteria that leave out a database of the previous scope.

    Args:
        before: scope of the newest count; None before the first count.
        selection: new criteria that `check_selection` returned.

    Raises:
        UsageError: the new criteria leave out databases; the message names them.
    """
    affected = before.people_by_database() if before else {}
    omitted = [database for database in affected if database not in selection.databases]
    if omitted:
        raise UsageError(
            f"The entered scope leaves out {', '.join(omitted)}, which is affected already.",
            "Enter everything that is known to be affected, not only the additions.",
        )


def merge_counts(before: Scope | None, counted: Scope) -> tuple[Scope, list[str]]:
    """Merge a new count of people, records and types of information with an earlier count.

    No figure becomes smaller, because each figure is the greater of the two counts. If the new
    count failed for a database that was counted earlier, the earlier figures of this database are
    kept, and the database is also listed in `Scope.unknown`.

    Args:
        before: earlier scope; None if nothing was counted before.
        counted: new scope.

    Returns:
        The merged scope, and the names of the databases in which the new count found fewer people.
    """
    earlier = {count.database: count for count in before.counted} if before else {}
    unknown = {uncounted.database for uncounted in counted.unknown}
    merged = [
        _greater_figures(earlier[count.database], count) if count.database in earlier else count
        for count in counted.counted
    ]
    merged += [count for name, count in earlier.items() if name in unknown]
    fewer = [
        count.database
        for count in counted.counted
        if count.database in earlier and count.subjects < earlier[count.database].subjects
    ]
    return counted.model_copy(update={"counted": tuple(merged)}), fewer


def _greater_figures(before: DatabaseCount, now: DatabaseCount) -> DatabaseCount:
    """Return the newer counts of a database, in which each figure is the greater of both counts.

    The time range is extended to include both counts.

    Args:
        before: earlier counts of the database.
        now: newer counts of the database.
    """
    update: dict[str, Any] = {}
    for name in DatabaseCount.model_fields.keys() - _REPLACED_FIELDS:
        old, new = getattr(before, name), getattr(now, name)
        if isinstance(new, dict):
            keys = dict.fromkeys([*old, *new])
            update[name] = {key: max(old.get(key, 0), new.get(key, 0)) for key in keys}
        else:
            choose = min if name in ("first", "log_first") else max
            figures = (figure for figure in (old, new) if figure is not None)
            update[name] = choose(figures, default=None)
    return now.model_copy(update=update)


_REPLACED_FIELDS = {"database", "not_narrowed", "listed", "not_found", "not_found_at"}
"""Fields with the value of the newest count."""
