r"""The sampling frame: every item of a quarter's population, a line each, frozen before the draw.

A frame is what PostgreSQL's ``COPY ... TO STDOUT`` writes in its text format, in the order of the
ids: an id, and behind a tab its stratum where there are strata. A backslash before a letter stands
for a control character (``\n`` for a line feed), so that a line is an item whatever its id holds;
`sed -n 42p` shows item 42, and `sha256sum` gives the digest that is committed to.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from operator import eq
from typing import Protocol
from zoneinfo import ZoneInfo

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier, Literal

from include.policy.datamap import MappedDatabase
from include.sampling.rules import Population
from include.services.database import PRINTING, DatabaseAddress
from include.services.errors import ControlFailed, ServiceError, UsageError
from include.services.programs import ClientProgram

_ID = re.compile(r"(?P<year>20\d\d)Q(?P<number>[1-4])", re.ASCII)


@dataclass(frozen=True)
class Quarter:
    """Three months.

    Attributes:
        year: of the calendar.
        number: 1 to 4.
        zone: in which its days begin.
    """

    year: int
    number: int
    zone: ZoneInfo

    @property
    def id(self) -> str:
        """``2026Q3``."""
        return f"{self.year}Q{self.number}"

    @property
    def starts(self) -> datetime:
        """Its first moment."""
        return datetime(self.year, 3 * self.number - 2, 1, tzinfo=self.zone)

    @property
    def ends(self) -> datetime:
        """The first moment of the next one."""
        return self.next.starts

    @property
    def next(self) -> Quarter:
        """The quarter after it."""
        following = self.year * 4 + self.number
        return Quarter(following // 4, following % 4 + 1, self.zone)


def quarter_of(text: str | None, now: datetime, timezone: str) -> Quarter:
    """Return the quarter that is to be audited.

    Args:
        text: ``2026Q3``; the last one that is over where nothing is said.
        now: the moment, timezone-aware.
        timezone: of the pack.

    Raises:
        UsageError: it is no quarter, or not over yet: its populations still grow.
    """
    zone = ZoneInfo(timezone)
    local = now.astimezone(zone)
    if not text:
        before = local.year * 4 + (local.month - 1) // 3 - 1
        return Quarter(before // 4, before % 4 + 1, zone)
    match = _ID.fullmatch(text)
    if not match:
        raise UsageError(f"{text!r} is no quarter.", "Write 2026Q3.")
    quarter = Quarter(int(match["year"]), int(match["number"]), zone)
    if quarter.ends > now:
        raise UsageError(
            f"The quarter {text} is not over: its populations still grow.",
            f"Audit it from {quarter.ends:%Y-%m-%d} on.",
        )
    return quarter


PIECE = 256 * 1024  # bytes read at a time
_SMALL_PIECE = 32 * 1024  # so that most pieces hold nothing that is wanted
WHOLE = ""  # name of the only stratum where there are none
# Type oids of smallint, integer, bigint, oid, uuid, date, timestamp with and without time zone:
# equal ones are printed alike, and in the same order everywhere. All others are sorted by the bytes
# of their text: numeric has 1.0 beside 1.00, and texts have collations.
_PLAIN = {21, 23, 20, 26, 2950, 1082, 1114, 1184}
# SQLSTATE classes of what is no fault of the SQL: connections, conflicts, resources, states,
# operators, systems, the server itself. And what a session may not be left with.
_SERVERS = {"08", "25", "40", "53", "55", "57", "58", "F0", "XX"}
_READ_ONLY = "25006"
_NULL = b"\\N"
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_LETTERS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


class Sink(Protocol):
    """Where a frame's bytes go."""

    def write(self, data: bytes, /) -> int:
        """Take bytes."""
        ...


class Source(Protocol):
    """Where a frame's bytes come from."""

    def read(self, size: int, /) -> bytes:
        """Return up to so many bytes; none at the end."""
        ...


@dataclass(frozen=True)
class Frame:
    """A frame that was written.

    Attributes:
        sha256: hex digest of its bytes.
        items: how many lines it has.
        strata: items of each stratum, by name; one named ``WHOLE`` where there are none.
    """

    sha256: str
    items: int
    strata: Mapping[str, int]


@dataclass(frozen=True)
class Item:
    """An item that was picked from a frame.

    Attributes:
        line: its place in the frame, from 1.
        ordinal: its place in its stratum, from 1; the same as the line where there are no strata.
        key: the population's id of it.
        stratum: its stratum.
    """

    line: int
    ordinal: int
    key: str
    stratum: str


def freeze(
    address: DatabaseAddress,
    database: MappedDatabase,
    population: Population,
    quarter: Quarter,
    sink: Sink,
) -> Frame:
    """Write the frame of a population as it is now; memory stays flat whatever its size.

    Args:
        address: where it is, as one who may read it.
        database: of the data map.
        population: of audit.yaml.
        quarter: that is audited.
        sink: takes the bytes; what it holds after an error is no frame.

    Raises:
        UsageError: the population's SQL fails, or a right is missing.
        ControlFailed: an id is missing or stands twice: some items would be drawn more easily.
        ServiceError: the server went away.
    """
    query = _query(address, database, population, quarter)
    tally = _Tally(stratified=population.strata is not None)
    with _copied(address, database, population, query) as psql:
        for piece in psql.pieces():
            sink.write(piece)
            if (fault := tally.take(piece)) is not None:
                raise ControlFailed(
                    f"The population {population.id} {fault}.",
                    "Correct its SQL in audit.yaml: every item has one id, and an id is one item.",
                )
    return tally.frame()


@dataclass
class _Tally:
    """Counts and checks a frame piece by piece."""

    stratified: bool
    items: int = 0
    rest: bytes = b""  # of a line that has not ended yet
    last: bytes | None = None  # id before
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    strata: Counter[bytes] = field(default_factory=Counter)

    def take(self, piece: bytes) -> str | None:
        """Count a piece; return its fault, or None."""
        self.digest.update(piece)
        whole, self.rest = _whole_lines(self.rest + piece)
        if not whole:
            return None
        if self.stratified:
            ids, strata = _columns(whole)
            self.strata.update(strata)
        else:
            ids = whole[:-1].split(b"\n")
        self.items += len(ids)
        if ids[-1] == _NULL:  # sorted to the end
            return "has items without an id"
        if ids[0] == self.last or any(map(eq, ids, islice(ids, 1, None))):
            return "has an id more than once"
        self.last = ids[-1]
        return None

    def frame(self) -> Frame:
        strata = {plain(name.decode()): count for name, count in sorted(self.strata.items())}
        if not self.stratified:
            strata = {WHOLE: self.items} if self.items else {}
        return Frame(self.digest.hexdigest(), self.items, strata)


def _whole_lines(piece: bytes) -> tuple[bytes, bytes]:
    """Split a piece behind its last line feed."""
    end = piece.rfind(b"\n") + 1
    return piece[:end], piece[end:]


def _columns(whole: bytes) -> tuple[list[bytes], list[bytes]]:
    """The two columns of whole lines; no other tab or line feed is in them."""
    fields = whole[:-1].replace(b"\t", b"\n").split(b"\n")
    return fields[0::2], fields[1::2]


def plain(text: str) -> str:
    """Return a field of COPY's text format as it was before it was escaped."""
    return _ESCAPE.sub(lambda found: _LETTERS.get(found[1], found[1]), text)


def pick(frame: Source, wanted: Mapping[str, set[int]], *, stratified: bool) -> Iterator[Item]:
    """Find items of a frame in one pass, in the order of the frame.

    Args:
        frame: its bytes.
        wanted: ordinals by stratum.
        stratified: whether it has strata.
    """
    return _pick_by_stratum(frame, wanted) if stratified else _pick_by_line(frame, wanted)


def _pick_by_line(frame: Source, wanted: Mapping[str, set[int]]) -> Iterator[Item]:
    goals = sorted(wanted.get(WHOLE, set()), reverse=True)
    before, rest = 0, b""
    while goals and (piece := frame.read(PIECE)):
        whole, rest = _whole_lines(rest + piece)
        count = whole.count(b"\n")
        lines = whole.split(b"\n") if goals[-1] <= before + count else []
        while goals and goals[-1] <= before + count:
            line = goals.pop()
            yield Item(line, line, plain(lines[line - before - 1].decode()), WHOLE)
        before += count


def _pick_by_stratum(frame: Source, wanted: Mapping[str, set[int]]) -> Iterator[Item]:
    goals = {name: sorted(ordinals, reverse=True) for name, ordinals in wanted.items()}
    seen: Counter[bytes] = Counter()
    names: dict[bytes, str] = {}
    before, rest = 0, b""
    while any(goals.values()) and (piece := frame.read(_SMALL_PIECE)):
        whole, rest = _whole_lines(rest + piece)
        keys, strata = _columns(whole) if whole else ([], [])
        counts = Counter(strata)
        for one in counts.keys() - names.keys():
            names[one] = plain(one.decode())
        near = {
            one
            for one, count in counts.items()
            if (left := goals.get(names[one])) and left[-1] <= seen[one] + count
        }
        places = dict.fromkeys(near, 0)
        for at, stratum in enumerate(strata if near else ()):
            if stratum not in near:
                continue
            places[stratum] += 1
            ordinal, left = seen[stratum] + places[stratum], goals[names[stratum]]
            if left and left[-1] == ordinal:
                left.pop()
                yield Item(before + at + 1, ordinal, plain(keys[at].decode()), names[stratum])
        seen.update(counts)
        before += len(strata)


def _query(
    address: DatabaseAddress, database: MappedDatabase, population: Population, quarter: Quarter
) -> str:
    """Return the query of a frame; the server first describes its columns."""
    selected = SQL(
        "WITH period (starts, ends) AS (VALUES ({starts}::timestamptz, {ends}::timestamptz)) "
        "SELECT {columns} FROM (\n{population}\n) AS item"
    )
    parts: dict[str, Composable] = {
        "starts": Literal(quarter.starts.isoformat()),
        "ends": Literal(quarter.ends.isoformat()),
        "population": SQL(population.sql),
        "columns": SQL(
            "item.id, coalesce(item.stratum::text, '')" if population.strata else "item.id"
        ),
    }
    looked_at = selected.format(**parts)
    with address.connect(autocommit=True) as connection, connection.transaction():
        connection.execute("SET TRANSACTION READ ONLY")
        for statement in _settings(database):
            connection.execute(statement)
        try:
            described = connection.execute(looked_at + SQL(" LIMIT 0")).description
        except psycopg.Error as error:
            raise _refused(population, error.sqlstate or "") from None
        assert described is not None
        order = SQL(
            " ORDER BY item.id"
            if described[0].type_code in _PLAIN
            else ' ORDER BY item.id::text COLLATE "C"'
        )
        return (looked_at + order).as_string(connection)


def _settings(database: MappedDatabase) -> list[Composed]:
    path = SQL("SET LOCAL search_path = {}, pg_catalog").format(Identifier(database.schema_name))
    others = [
        SQL("SET LOCAL {} = {}").format(Identifier(name), Literal(value))
        for name, value in PRINTING.items()
    ]
    return [path, *others, SQL("SET LOCAL statement_timeout = {}").format(Literal(0))]


@contextmanager
def _copied(
    address: DatabaseAddress, database: MappedDatabase, population: Population, query: str
) -> Iterator[ClientProgram]:
    """Run COPY in psql, which reads rows ten times as fast as any Python driver."""
    statements = [
        "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY",
        *(setting.as_string(None) for setting in _settings(database)),
        f"COPY ({query}) TO STDOUT",
    ]
    words = ["--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--set=VERBOSITY=sqlstate"]
    words += [f"--command={statement}" for statement in statements]
    with ClientProgram("psql", words, address, piece=PIECE) as psql:
        yield psql
        if psql.wait():
            raise _refused(population, psql.sqlstate)


def _refused(population: Population, sqlstate: str) -> ServiceError | UsageError:
    if sqlstate == "42501":
        return UsageError(
            f"The population {population.id} may not be read (SQLSTATE 42501).",
            "Grant the connection of audit.yaml SELECT on what its SQL names: docs/audit.md.",
        )
    if sqlstate == _READ_ONLY or (sqlstate and sqlstate[:2] not in _SERVERS):
        return UsageError(
            f"The SQL of the population {population.id} fails (SQLSTATE {sqlstate}).",
            "Correct it in audit.yaml; try it in psql with a row `period (starts, ends)`.",
        )
    # Whether psql still hears why depends on how much of the output it had to pass on first.
    gone = not sqlstate or sqlstate.startswith(("57P", "08"))
    return ServiceError(
        f"The population {population.id} could not be read to its end"
        + (": the server went away." if gone else f" (SQLSTATE {sqlstate})."),
        "Nothing was committed to. The task is repeated.",
    )
