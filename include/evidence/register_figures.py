"""Compute figures of the state database's registers, and find registers that lost rows.

Rows of a register are never deleted. A row changes at most once: when a batch is settled, a legal
hold is released, or a finding or request is closed. A sealed figure can therefore be computed again
later for the same rows. The result differs only if rows are missing or were changed in another way.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from psycopg.errors import LockNotAvailable
from sqlalchemy import Column, Connection, Date, DateTime, Engine, LargeBinary, Table, text
from sqlalchemy.exc import OperationalError

from include.evidence.model import RegisterFigure
from include.messages import Message, _
from include.services.errors import ServiceError
from include.state.findings import RUN_COLUMNS, finding, finding_event
from include.state.tables import erasure_batch, erasure_request, legal_hold

PATIENCE = 5.0  # seconds for which a register that is being written is tried again
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Register:
    """A table of the state database whose rows are never deleted.

    Attributes:
        name: name of the register in figures.
        title: display name of the register's entries, in the plural.
        table: table of the state database, with the column ``id``.
        fixed: columns that never change. Never add a column here, but to `added`: sealed digests
            were computed without it, so the register would seem to have lost rows.
        added: columns of a later version of the schema that never change. They enter the digest of
            a row only if one of them is not null, so the digests of older rows stay the same.
        later: columns that are null until a row is settled, released or closed, and do not change
            afterwards. A row is open as long as the first of these columns is null. Empty if the
            register's rows never change.
        counts_open: whether figures include open rows. False for the erasure ledger, because an
            open batch is withdrawn if its transaction was not committed.
        entries: SQL expression for the number of entries that messages state. A row of the erasure
            ledger has many entries, one for each erased record.
    """

    name: str
    title: Message
    table: Table
    fixed: tuple[str, ...]
    later: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    counts_open: bool = True
    entries: str = "count(*)"


ERASURES = Register(
    "erasure",
    _("entries of the erasure ledger"),
    erasure_batch,
    fixed=(
        *("id", "database", "collection", "action", "record_class", "rule", "dag_id", "run_id"),
        *("erased_at", "transaction", "server", "records", "key_types"),
        *("entries", "entries_sha256"),
    ),
    later=("settled_at",),
    counts_open=False,
    entries="coalesce(sum(t.entries), 0)",
)
HOLDS = Register(
    "legal_hold",
    _("legal holds"),
    legal_hold,
    fixed=("id", "kind", "value", "reason", "owner", "case_ref", "placed_at", "review_on"),
    later=("released_at", "released_by", "release_reason"),
)
REQUESTS = Register(
    "erasure_request",
    _("erasure requests"),
    erasure_request,
    fixed=(
        *("id", "database", "subject", "reference", "received_on", "due_on"),
        *("entered_by", "entered_at"),
    ),
    later=("closed_at", "closed_by", "closed_because"),
)
FINDINGS = Register(
    "finding",
    _("findings"),
    finding,
    fixed=("id", "kind", "reference", "description", "owner", "opened_at", "due_on"),
    later=("closed_at",),
    added=RUN_COLUMNS,
)
EVENTS = Register(
    "finding_event",
    _("entries about findings"),
    finding_event,
    fixed=("id", "finding_id", "kind", "by", "at", "cause", "action", "due_on"),
    added=("reason", "owner", "assignee", "until", "severity", "bundle"),
)
REGISTERS = (ERASURES, HOLDS, REQUESTS, FINDINGS, EVENTS)


@dataclass(frozen=True)
class Loss:
    """A register that lost or changed rows and therefore no longer matches a sealed figure.

    Attributes:
        register: the register.
        sealed: the sealed figure that the register does not match. Of several such figures, it is
            the figure with the highest id.
        entries: number of entries that the register still has, of those that `sealed` counts.
        others: further sealed figures that the register does not match. They may cover rows of an
            earlier loss that `sealed` does not cover.
    """

    register: Register
    sealed: RegisterFigure
    entries: int
    others: tuple[RegisterFigure, ...] = ()

    @property
    def message(self) -> Message:
        """Return the loss as text: how many entries are missing, or that rows were changed."""
        missing = self.sealed.entries - self.entries
        if missing > 0:
            return _(
                "{missing} of {entries} {register} are missing, although a sealed evidence "
                "bundle recorded them",
                missing=missing,
                entries=self.sealed.entries,
                register=self.register.title,
            )
        return _(
            "{register} were changed, or replaced by other entries with the same numbers, "
            "after a sealed evidence bundle recorded them",
            register=self.register.title,
        )


def take_figures(
    state: Engine,
    previous: Mapping[str, RegisterFigure],
    incomplete: Collection[str] = (),
    patience: float = PATIENCE,
) -> dict[str, RegisterFigure]:
    """Compute the present figure of each register: the number and the digest of its rows.

    A figure must include the rows of transactions that are still open. The function therefore waits
    until it can lock the register against writes. If other sessions write to a register all the
    time, the function returns the previous figure, which is still valid.

    Args:
        state: the state database.
        previous: register name -> earlier figure that the register still matches.
        incomplete: names of registers that lost rows. Their figures list the ids that are present.
            These figures stay valid if the missing rows are restored.
        patience: time in seconds for which the function retries to lock a register while other
            sessions write to it.

    Returns:
        Register name -> figure. A register is left out if it has no previous figure and other
        sessions write to it all the time.
    """
    figures = {}
    for register in REGISTERS:
        bounds = _bounds(state, register, patience, register.name in incomplete)
        if bounds is None:
            if register.name in previous:
                figures[register.name] = previous[register.name]
            continue
        with state.connect() as conn:
            figures[register.name] = _figure(conn, register, bounds)
    return figures


def losses(conn: Connection, sealed: Mapping[str, Iterable[RegisterFigure]]) -> list[Loss]:
    """Return the registers that differ from at least one of their sealed figures.

    Args:
        conn: connection to the state database.
        sealed: register name -> figures of earlier bundles.
    """
    lost = []
    for register in REGISTERS:
        different = {figure.model_dump_json(): figure for figure in sealed.get(register.name, ())}
        missing = []
        for figure in sorted(different.values(), key=coverage_key, reverse=True):
            now = _figure(conn, register, _Bounds(figure.highest_id, figure.open, figure.ids))
            if now.sha256 != figure.sha256:
                missing.append((figure, now.entries))
        if missing:
            largest, entries = missing[0]
            others = tuple(figure for figure, _entries in missing[1:])
            lost.append(Loss(register, largest, entries, others))
    return lost


def coverage_key(figure: RegisterFigure) -> tuple[int, int]:
    """Return a sort key for figures: the highest id, then the number of rows.

    The figure with the greatest key covers the most rows.
    """
    return figure.highest_id, figure.rows


_Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class _Bounds:
    """The rows that a figure covers. For the attributes, see `RegisterFigure`."""

    highest_id: int
    open: _Ranges = ()
    ids: _Ranges | None = None


def _bounds(
    state: Engine, register: Register, patience: float, is_incomplete: bool
) -> _Bounds | None:
    """Lock a register briefly against writes, and return the rows that its figure must include.

    Return None if other sessions write to the register for more than `patience` seconds.

    Args:
        state: the state database.
        register: the register.
        patience: time in seconds for which the function retries to lock the register.
        is_incomplete: whether the register lost rows. If so, the result also lists the ids of the
            rows that are present.
    """
    until = time.monotonic() + patience
    while True:
        try:
            with state.begin() as conn:
                # Rows of open transactions have ids below the highest one, and would appear later.
                conn.execute(text(f"LOCK TABLE {register.table.name} IN SHARE MODE NOWAIT"))
                return _read_bounds(conn, register, is_incomplete)
        except OperationalError as error:
            if not isinstance(error.orig, LockNotAvailable):
                raise ServiceError(
                    f"The register {register.name} of the state database cannot be read.",
                    "See the log of the database server, then start the run again.",
                ) from None
        if time.monotonic() >= until:
            return None
        time.sleep(_POLL_SECONDS)


def _read_bounds(conn: Connection, register: Register, is_incomplete: bool) -> _Bounds:
    is_open = f"t.{register.later[0]} IS NULL" if register.later else "false"
    counted = "true" if register.counts_open else f"NOT ({is_open})"
    name = register.table.name
    query = f"SELECT max(t.id) FROM {name} t WHERE {counted}"  # noqa: S608 - ours
    highest = conn.scalar(text(query)) or 0
    open_ids = _ranges(conn, register, highest, is_open) if register.later else ()
    ids = _ranges(conn, register, highest, counted) if is_incomplete else None
    return _Bounds(highest, open_ids, ids)


def _ranges(conn: Connection, register: Register, highest: int, condition: str) -> _Ranges:
    """Return the ids of rows that meet an SQL condition, as ranges of successive ids.

    Each range consists of its first and last id.

    Args:
        conn: connection to the state database.
        register: the register.
        highest: highest id; rows with higher ids are left out.
        condition: SQL condition on the columns of the register's table.
    """
    query = f"""
SELECT lower(r), upper(r) - 1 FROM unnest((
    SELECT range_agg(int8range(t.id, t.id, '[]')) FROM {register.table.name} t
    WHERE {condition} AND t.id <= :highest
)) AS r
"""  # noqa: S608 - only names of this module's tables
    ranges = conn.execute(text(query), {"highest": highest})
    return tuple((int(first), int(last)) for first, last in ranges)


def _figure(conn: Connection, register: Register, bounds: _Bounds) -> RegisterFigure:
    """Count certain rows of a register, and compute their digest.

    The result differs from an earlier figure of the same rows if one of the rows was deleted or
    changed since then.

    Args:
        conn: connection to the state database.
        register: the register.
        bounds: which rows the figure covers.
    """
    fixed = [register.table.c[name] for name in register.fixed]
    columns = [*fixed, *(register.table.c[name] for name in register.later)]
    is_open = "t.id <@ CAST(:open AS int8multirange)"
    content = _content(columns)
    if register.later and register.counts_open:
        content = f"CASE WHEN {is_open} THEN {_content(fixed)} ELSE {content} END"
    if register.added:
        added = [register.table.c[name] for name in register.added]
        names = ", ".join(f't."{column.name}"' for column in added)
        content += f" || CASE WHEN num_nonnulls({names}) > 0 THEN {_content(added)} ELSE '' END"
    left_out = "" if register.counts_open else f" AND NOT {is_open}"
    if bounds.ids is not None:
        left_out += " AND t.id <@ CAST(:ids AS int8multirange)"
    query = f"""
SELECT count(*), {register.entries}, sha256(coalesce(string_agg(
    sha256(convert_to({content}, 'UTF8')), ''::bytea ORDER BY t.id
), ''::bytea))
FROM {register.table.name} t WHERE t.id <= :highest{left_out}
"""  # noqa: S608 - only names of this module's tables
    values: dict[str, object] = {"highest": bounds.highest_id}
    if ":open" in query:
        values["open"] = _multirange(bounds.open)
    if bounds.ids is not None:
        values["ids"] = _multirange(bounds.ids)
    rows, entries, digest = conn.execute(text(query), values).one()
    return RegisterFigure(
        rows=rows,
        entries=int(entries),
        highest_id=bounds.highest_id,
        open=bounds.open,
        ids=bounds.ids,
        sha256=bytes(digest).hex(),
    )


def _multirange(ranges: _Ranges) -> str:
    return "{" + ",".join(f"[{first},{last}]" for first, last in ranges) + "}"


def _content(columns: Iterable[Column[object]]) -> str:
    """Return an SQL expression that gives the columns of a row as text.

    The text does not depend on settings of the database session, such as the timezone.
    """
    return f"ROW({', '.join(map(_value, columns))})\\:\\:text"


def _value(column: Column[object]) -> str:
    name = f't."{column.name}"'
    if isinstance(column.type, DateTime):
        return f"(extract(epoch FROM {name}) * 1000000)\\:\\:bigint"
    if isinstance(column.type, Date):
        return f"to_char({name}, 'YYYY-MM-DD')"
    if isinstance(column.type, LargeBinary):
        return f"encode({name}, 'hex')"
    return name
