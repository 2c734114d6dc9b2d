"""What the steps of `enforce_retention` work with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from zoneinfo import ZoneInfo

from sqlalchemy import Engine

from include.erasure import request_records, requests
from include.erasure.identity import are_one_database, server_of
from include.erasure.ledger import ErasureKeys
from include.holds import records
from include.policy.datamap import MappedDatabase
from include.policy.retention import Disposition, RetentionRule
from include.retention.clocks import require_agreement
from include.retention.plan import Plan
from include.retention.planning import Schedule, make_plan
from include.retention.session import prepare
from include.retention.subjects import remember
from include.services.clock import Clock
from include.services.database import DatabaseAddress, connected
from include.services.errors import UsageError
from include.workplace import Workplace

ANOTHER_DATABASE = (
    "Correct the address of {conn_id}. If the pack maps several databases, remove {conn_id}: each "
    "database is then worked on with its own connection ({mapped}), which needs the rights."
)
YEARS = range(1900, 9000)  # far enough from the ends of what dates can be to add any period


@dataclass(frozen=True)
class Desk:
    """One database and the services of a run.

    Attributes:
        database: of the data map.
        rules: its record classes.
        disposition: of disposition.yaml.
        timezone: of the pack.
        reader: the database, as one who reads.
        writer: the database, as one who may delete.
        staff: database of the staff table and where it is; None where the pack names none.
        state: the state database.
        keys: of the erasure ledger.
        clock: the time.
        dag_id: of the run.
        run_id: of the run.
        starter: user id of who started the run; None when its schedule did.
    """

    database: MappedDatabase
    rules: Sequence[RetentionRule]
    disposition: Disposition
    timezone: str
    reader: DatabaseAddress
    writer: DatabaseAddress
    staff: tuple[MappedDatabase, DatabaseAddress] | None
    state: Engine
    keys: ErasureKeys
    clock: Clock
    dag_id: str
    run_id: str
    starter: str | None = None

    @property
    def run(self) -> tuple[str, str]:
        """Dag id and run id."""
        return self.dag_id, self.run_id

    @property
    def today(self) -> date:
        """The day it is in the pack's timezone."""
        return self.clock.now().astimezone(ZoneInfo(self.timezone)).date()

    def holds(self) -> records.RecordHolds:
        """Return the active holds that bear on records of the database."""
        with self.state.connect() as conn:
            return records.on_records(conn, self.database.name)

    def schedule(self, as_of: datetime) -> Schedule:
        """The record classes for a moment, with the holds and requests of now."""
        name = self.database.name
        with self.state.connect() as conn:
            holds = records.on_records(conn, name)
            asked = requests.open_requests(conn, name)
            remembered = request_records.remembered(conn, name)
        return Schedule(
            database=self.database,
            rules=self.rules,
            as_of=as_of,
            now=self.clock.now(),
            timezone=self.timezone,
            holds=holds,
            requests=[one for one in asked if one.oversized_at is None],
            keys=self.keys,
            remembered=remembered,
        )

    def require_one_database(self) -> None:
        """Check that records would be deleted in the database in which the plan counted them.

        Raises:
            UsageError: the two connections lead to different databases.
            ServiceError: one of them cannot be reached.
        """
        if self.reader == self.writer:
            return
        with connected(self.reader) as read, connected(self.writer) as written:
            if are_one_database(server_of(read), server_of(written)):
                return
        conn_id = self.disposition.connection
        raise UsageError(
            f"The connection {conn_id} leads to another database than "
            f"{self.database.connection}, which is mapped as {self.database.name}.",
            ANOTHER_DATABASE.format(conn_id=conn_id, mapped=self.database.connection),
        )

    def plan(self, as_of: str | None, *, ahead: bool = False) -> Plan:
        """Make the plan for a moment; the mapped database is only read.

        Args:
            as_of: see `moment_of`.
            ahead: whether the plan is a preview: its moment may lie in the future, and no record
                of a request is remembered.

        Raises:
            ControlFailed: clocks disagree.
            UsageError: the moment lies in the future and may not, or the schedule does not fit the
                database.
            ServiceError: a lock was not free, or a statement took too long.
        """
        with self.reader.connect(autocommit=True) as connection:
            prepare(connection, self.database)
            now = require_agreement(connection, self.state, self.clock)
            moment = moment_of(as_of, now, self.timezone)
            if moment > now and not ahead:
                raise UsageError(
                    f"{moment:%Y-%m-%d %H:%M %z} is in the future; nothing is deleted ahead of "
                    "time.",
                    "See what would go then by `./parcelseal retention plan --as-of`.",
                )
            schedule = self.schedule(moment)
            if not ahead:  # before anything is erased by which the records are found
                schedule = remember(connection, self.state, self.clock, schedule)
            return make_plan(connection, schedule)


def desk_of(
    services: Workplace,
    database: str,
    run: tuple[str, str] = ("", ""),
    starter: str | None = None,
) -> Desk:
    """Return the rules and services of retention in one database.

    Args:
        services: of the run or command.
        database: name in the data map.
        run: dag id and run id; a preview has none, and leaves no record.
        starter: user id of the person who started the run; None for a scheduled run.
    """
    pack = services.pack
    mapped, staff = pack.database(database), pack.disposition.approval.staff
    holder = pack.database_of(staff.collection, staff.database) if staff else None
    return Desk(
        database=mapped,
        rules=pack.retention_of(database),
        disposition=pack.disposition,
        timezone=pack.calendar.timezone,
        reader=services.database(mapped.connection),
        writer=services.role_database(pack.disposition.connection, mapped.connection),
        staff=(holder, services.database(holder.connection)) if holder else None,
        state=services.state,
        keys=services.erasure_keys,
        clock=services.clock,
        dag_id=run[0],
        run_id=run[1],
        starter=starter,
    )


def moment_of(as_of: str | None, now: datetime, timezone: str) -> datetime:
    """Return the moment for which a plan is made.

    Args:
        as_of: a date, which is 00:00 of that day in the pack's timezone, or a moment with an offset
            from UTC, both by ISO 8601; the present day where nothing is said.
        now: the moment, timezone-aware.
        timezone: of the pack.

    Raises:
        UsageError: it is neither.
    """
    zone = ZoneInfo(timezone)
    if not as_of:
        return datetime.combine(now.astimezone(zone).date(), time(), zone)
    try:
        if len(as_of) <= len("2026-01-01"):
            moment = datetime.combine(date.fromisoformat(as_of), time(), zone)
        else:
            moment = datetime.fromisoformat(as_of)
    except ValueError:
        raise _unreadable(as_of) from None
    if moment.tzinfo is None:
        raise _unreadable(as_of)
    if moment.year not in YEARS:
        raise UsageError(f"{as_of!r} is too far away.", "Write a year from 1900 to 8999.")
    return moment


def _unreadable(as_of: str) -> UsageError:
    return UsageError(
        f"{as_of!r} is no day and no moment.",
        "Write 2026-11-25, or 2026-11-25T03:30:00+08:00 with the offset from UTC.",
    )
