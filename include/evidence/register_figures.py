"""Figures of the state database's registers, and what a register lacks of a sealed figure.

Rows of a register are never deleted, and each is settled, released or closed at most once. So a
sealed figure can be computed again from the same rows later, as long as no row is missing.
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
from include.state.findings import finding, finding_event
from include.state.tables import erasure_batch, erasure_request, legal_hold

PATIENCE = 5.0  # seconds for which a register that is being written is tried again
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Register:
    """A table of the state database whose rows are never deleted.

    Attributes:
        name: of the register in figures.
        title: for people, in the plural.
        table: of the state database, with the column ``id``.
        fixed: columns that never change. Never add one: the figures that are sealed do not cover
            it, and no register would contain them any more.
        later: columns that stay null until a row is settled, released or closed, and stay as they
            are from then on. The first of them tells which rows are open; none in a register whose
            rows never change.
        counts_open: whether open rows count; an open batch of erasures may be withdrawn.
        entries: SQL of the number that people are shown, such as erased records.
    """

    name: str
    title: Message
    table: Table
    fixed: tuple[str, ...]
    later: tuple[str, ...] = ()
    counts_open: bool = True
    entries: str = "count(*)"


ERASURES = Register(
    "erasure",
    _("erasures"),
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
    fixed=("id", "kind", "reference", "what", "owner", "opened_at", "due_on"),
    later=("closed_at",),
)
EVENTS = Register(
    "finding_event",
    _("answers to findings and retests"),
    finding_event,
    fixed=("id", "finding_id", "kind", "by", "at", "cause", "action", "due_on"),
)
REGISTERS = (ERASURES, HOLDS, REQUESTS, FINDINGS, EVENTS)


@dataclass(frozen=True)
class Loss:
    """A sealed figure that no longer fits the rows of its register.

    Attributes:
        register: the register.
        sealed: the figure with the most rows.
        entries: number of entries of this figure that the register still has.
        others: further figures that do not fit. Only they may cover rows of an earlier loss.
    """

    register: Register
    sealed: RegisterFigure
    entries: int
    others: tuple[RegisterFigure, ...] = ()

    @property
    def message(self) -> Message:
        """The loss for people: how many entries are missing, or that rows were changed."""
        missing = self.sealed.entries - self.entries
        if missing > 0:
            return _(
                "{missing} of {entries} sealed {register} are missing",
                missing=missing,
                entries=self.sealed.entries,
                register=self.register.title,
            )
        return _(
            "sealed {register} were changed, or other rows have their numbers",
            register=self.register.title,
        )


def take_figures(
    state: Engine,
    previous: Mapping[str, RegisterFigure],
    incomplete: Collection[str] = (),
    patience: float = PATIENCE,
) -> dict[str, RegisterFigure]:
    """Return the figures of all registers as they are now.

    A register that other sessions write to all the time keeps its previous figure, which stays
    true. A new figure would lack the rows of transactions that have not ended.

    Args:
        state: the state database.
        previous: figures that the registers contain, by name.
        incomplete: names of registers that lack rows. Their figures name the present ids, so that
            they stay true when the missing rows are put back.
        patience: seconds for which a register that other sessions write to is tried again.

    Returns:
        Register -> figure. A register without a previous figure may be missing.
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
    """Return the registers that do not contain all sealed figures, with those that they lack.

    Args:
        conn: the state database.
        sealed: register -> figures of earlier bundles.
    """
    lost = []
    for register in REGISTERS:
        different = {figure.model_dump_json(): figure for figure in sealed.get(register.name, ())}
        missing = []
        for figure in sorted(different.values(), key=extent, reverse=True):
            now = _figure(conn, register, _Bounds(figure.highest_id, figure.open, figure.ids))
            if now.sha256 != figure.sha256:
                missing.append((figure, now.entries))
        if missing:
            largest, entries = missing[0]
            others = tuple(figure for figure, _entries in missing[1:])
            lost.append(Loss(register, largest, entries, others))
    return lost


def extent(figure: RegisterFigure) -> tuple[int, int]:
    """Return a key that sorts figures by how many rows they cover."""
    return figure.highest_id, figure.rows


_Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class _Bounds:
    """The rows that a figure covers; see `RegisterFigure`."""

    highest_id: int
    open: _Ranges = ()
    ids: _Ranges | None = None


def _bounds(
    state: Engine, register: Register, patience: float, is_incomplete: bool
) -> _Bounds | None:
    """Return the rows of a register between two writes; None while it is written all the time."""
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
                    "See the log of its server, then run again.",
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
    """Return the first and the last id of each range of rows under a condition."""
    query = f"""
SELECT lower(r), upper(r) - 1 FROM unnest((
    SELECT range_agg(int8range(t.id, t.id, '[]')) FROM {register.table.name} t
    WHERE {condition} AND t.id <= :highest
)) AS r
"""  # noqa: S608 - only names of this module's tables
    ranges = conn.execute(text(query), {"highest": highest})
    return tuple((int(first), int(last)) for first, last in ranges)


def _figure(conn: Connection, register: Register, bounds: _Bounds) -> RegisterFigure:
    """Compute a figure from the rows that are there now."""
    fixed = [register.table.c[name] for name in register.fixed]
    columns = [*fixed, *(register.table.c[name] for name in register.later)]
    is_open = "t.id <@ CAST(:open AS int8multirange)"
    content = _content(columns)
    if register.later and register.counts_open:
        content = f"CASE WHEN {is_open} THEN {_content(fixed)} ELSE {content} END"
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
    """Return SQL for the text of a row that does not depend on a session's settings."""
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
