r"""The sampling frame of a population: all its items in a quarter, frozen before the draw.

A sampling frame is a file with one item per line, in the text format of PostgreSQL's ``COPY ... TO
STDOUT``, ordered by id. A line contains the id of an item. If the population has strata, a tab and
the stratum follow. Control characters are escaped with a backslash (``\n`` is a line feed), so an
item has only one line even if its id contains control characters. `sed -n 42p` shows item 42, and
`sha256sum` gives the committed digest.
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
from include.services.errors import ControlFailed, CouldNotRun, ServiceError, UsageError
from include.services.programs import ClientProgram

_ID = re.compile(r"(?P<year>20\d\d)Q(?P<number>[1-4])", re.ASCII)


@dataclass(frozen=True)
class Quarter:
    """A calendar quarter in a timezone.

    Attributes:
        year: calendar year.
        number: number of the quarter, from 1 to 4.
        zone: timezone in which the days of the quarter begin.
    """

    year: int
    number: int
    zone: ZoneInfo

    @property
    def id(self) -> str:
        """The id of the quarter, such as ``2026Q3``."""
        return f"{self.year}Q{self.number}"

    @property
    def starts(self) -> datetime:
        """The first moment of the quarter."""
        return datetime(self.year, 3 * self.number - 2, 1, tzinfo=self.zone)

    @property
    def ends(self) -> datetime:
        """The first moment of the following quarter."""
        return self.next.starts

    @property
    def next(self) -> Quarter:
        """The following quarter."""
        following = self.year * 4 + self.number
        return Quarter(following // 4, following % 4 + 1, self.zone)


def quarter_of(text: str | None, now: datetime, timezone: str) -> Quarter:
    """Parse the id of the quarter to audit; without an id, return the last completed quarter.

    Args:
        text: id of the quarter, such as ``2026Q3``; None or an empty text for the last completed
            quarter.
        now: current time, timezone-aware.
        timezone: IANA name of the policy pack's timezone.

    Raises:
        CouldNotRun: the text is not the id of a quarter; or the quarter has not ended, so its
            populations may still grow.
    """
    zone = ZoneInfo(timezone)
    local = now.astimezone(zone)
    if not text:
        before = local.year * 4 + (local.month - 1) // 3 - 1
        return Quarter(before // 4, before % 4 + 1, zone)
    match = _ID.fullmatch(text)
    if not match:
        raise CouldNotRun(f"{text!r} is not a quarter.", "Write 2026Q3.")
    quarter = Quarter(int(match["year"]), int(match["number"]), zone)
    if quarter.ends > now:
        raise CouldNotRun(
            f"The quarter {text} has not ended: its populations still grow.",
            f"Audit it from {quarter.ends:%Y-%m-%d} on.",
        )
    return quarter


PIECE = 256 * 1024  # bytes read at a time
_SMALL_PIECE = 32 * 1024  # bytes; so few that most pieces contain no drawn item
NO_STRATUM = ""  # name of the only stratum in a frame without strata
# Type oids of smallint, integer, bigint, oid, uuid, date, timestamp with and without time zone.
# Their equal values have equal texts and the same order on every server. Other types are sorted by
# the bytes of their text: numeric has both 1.0 and 1.00, and text depends on collations.
_PLAIN = {21, 23, 20, 26, 2950, 1082, 1114, 1184}
# SQLSTATE classes that are not caused by the SQL: connections, conflicts, resources, states,
# operators, systems, the server itself.
_SERVERS = {"08", "25", "40", "53", "55", "57", "58", "F0", "XX"}
_READ_ONLY = "25006"
_NULL = b"\\N"
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_LETTERS = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


class Sink(Protocol):
    """The destination, such as an open file, to which the bytes of a sampling frame are written."""

    def write(self, data: bytes, /) -> int:
        """Write bytes, and return the number of written bytes."""
        ...


class Source(Protocol):
    """The source, such as an open file, from which the bytes of a sampling frame are read."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes; an empty result means the end of the frame."""
        ...


@dataclass(frozen=True)
class Frame:
    """The digest and the sizes of a sampling frame that was written.

    Attributes:
        sha256: hex digest of the frame.
        items: number of lines of the frame; each line is one item.
        strata: stratum -> number of its items. Without strata, the only key is ``NO_STRATUM``.
    """

    sha256: str
    items: int
    strata: Mapping[str, int]


@dataclass(frozen=True)
class Item:
    """An item that was read from a sampling frame.

    Attributes:
        line: number of the item's line in the frame; the first line has the number 1.
        ordinal: position of the item in its stratum, from 1. Without strata, it equals ``line``.
        key: id of the item in the population.
        stratum: name of the item's stratum; empty without strata.
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
    """Write the sampling frame of a population from the records that the database has now.

    The memory that this needs does not depend on the size of the population.

    Args:
        address: address of the database, with a login that may read the population.
        database: data map of the database.
        population: population of audit.yaml.
        quarter: quarter to audit.
        sink: receives the bytes of the frame. After an error, it does not contain a valid frame.

    Raises:
        UsageError: the SQL of the population fails, or the login lacks a privilege.
        ControlFailed: an id is missing or not unique, so the items would not have equal chances of
            being drawn.
        ServiceError: the connection was lost.
    """
    query = _query(address, database, population, quarter)
    tally = _FrameChecker(stratified=population.strata is not None)
    with _copy_query(address, database, population, query) as psql:
        for piece in psql.pieces():
            sink.write(piece)
            if (fault := tally.take(piece)) is not None:
                raise ControlFailed(
                    f"The population {population.id} {fault}.",
                    "Correct its SQL in audit.yaml: every item has one id, and an id is one item.",
                )
    return tally.frame()


@dataclass
class _FrameChecker:
    """Counts the items of a sampling frame and checks their ids while psql returns the frame."""

    stratified: bool
    items: int = 0
    rest: bytes = b""  # incomplete last line
    last: bytes | None = None  # last id of the previous piece
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    strata: Counter[bytes] = field(default_factory=Counter)

    def take(self, piece: bytes) -> str | None:
        """Count and check the items in the next bytes of the frame.

        Args:
            piece: the next bytes, which may end within a line.

        Returns:
            A fault of the ids, worded as the end of a sentence, such as "has items without an id";
            None if these bytes have no fault.
        """
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
        if ids[-1] == _NULL:  # nulls are sorted last
            return "has items without an id"
        if ids[0] == self.last or any(map(eq, ids, islice(ids, 1, None))):
            return "has an id more than once"
        self.last = ids[-1]
        return None

    def frame(self) -> Frame:
        strata = {unescape(name.decode()): count for name, count in sorted(self.strata.items())}
        if not self.stratified:
            strata = {NO_STRATUM: self.items} if self.items else {}
        return Frame(self.digest.hexdigest(), self.items, strata)


def _whole_lines(data: bytes) -> tuple[bytes, bytes]:
    """Split bytes at the last line feed into complete lines and the start of the next line."""
    end = data.rfind(b"\n") + 1
    return data[:end], data[end:]


def _columns(whole: bytes) -> tuple[list[bytes], list[bytes]]:
    """Return the ids and the strata in complete lines of a frame with strata.

    Each line has exactly one tab and one line feed, because COPY escapes these characters in
    values.
    """
    fields = whole[:-1].replace(b"\t", b"\n").split(b"\n")
    return fields[0::2], fields[1::2]


def unescape(text: str) -> str:
    """Replace escape sequences in a value of COPY's text format with the characters they mean."""
    return _ESCAPE.sub(lambda match: _LETTERS.get(match[1], match[1]), text)


def pick(frame: Source, ordinals: Mapping[str, set[int]], *, stratified: bool) -> Iterator[Item]:
    """Read a sampling frame once, and yield the items that have the given ordinals.

    The items are in the order of the frame.

    Args:
        frame: sampling frame, open for reading.
        ordinals: stratum -> ordinals of the items to yield. An ordinal is the position of an item
            in its stratum, from 1. Without strata, the only key is ``NO_STRATUM``.
        stratified: whether the frame has a column of strata.
    """
    return _pick_by_stratum(frame, ordinals) if stratified else _pick_by_line(frame, ordinals)


def _pick_by_line(frame: Source, ordinals: Mapping[str, set[int]]) -> Iterator[Item]:
    goals = sorted(ordinals.get(NO_STRATUM, set()), reverse=True)
    before, rest = 0, b""
    while goals and (piece := frame.read(PIECE)):
        whole, rest = _whole_lines(rest + piece)
        count = whole.count(b"\n")
        lines = whole.split(b"\n") if goals[-1] <= before + count else []
        while goals and goals[-1] <= before + count:
            line = goals.pop()
            yield Item(line, line, unescape(lines[line - before - 1].decode()), NO_STRATUM)
        before += count


def _pick_by_stratum(frame: Source, ordinals_by_stratum: Mapping[str, set[int]]) -> Iterator[Item]:
    goals = {name: sorted(ordinals, reverse=True) for name, ordinals in ordinals_by_stratum.items()}
    counted: Counter[bytes] = Counter()
    names: dict[bytes, str] = {}
    before, rest = 0, b""
    while any(goals.values()) and (piece := frame.read(_SMALL_PIECE)):
        whole, rest = _whole_lines(rest + piece)
        keys, strata = _columns(whole) if whole else ([], [])
        counts = Counter(strata)
        for stratum in counts.keys() - names.keys():
            names[stratum] = unescape(stratum.decode())
        near = {
            stratum
            for stratum, count in counts.items()
            if (left := goals.get(names[stratum])) and left[-1] <= counted[stratum] + count
        }
        positions = dict.fromkeys(near, 0)
        for at, stratum in enumerate(strata if near else ()):
            if stratum not in near:
                continue
            positions[stratum] += 1
            ordinal, left = counted[stratum] + positions[stratum], goals[names[stratum]]
            if left and left[-1] == ordinal:
                left.pop()
                yield Item(before + at + 1, ordinal, unescape(keys[at].decode()), names[stratum])
        counted.update(counts)
        before += len(strata)


def _query(
    address: DatabaseAddress, database: MappedDatabase, population: Population, quarter: Quarter
) -> str:
    """Return the SQL query that selects the lines of a sampling frame, sorted by id.

    The function first reads the type of the column ``id`` from the server, because the sort order
    depends on this type.

    Raises:
        UsageError: the SQL of the population fails, or the login lacks a privilege.
    """
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
    query = selected.format(**parts)
    with address.connect(autocommit=True) as connection, connection.transaction():
        connection.execute("SET TRANSACTION READ ONLY")
        for statement in _settings(database):
            connection.execute(statement)
        try:
            described = connection.execute(query + SQL(" LIMIT 0")).description
        except psycopg.Error as error:
            raise _query_error(population, error.sqlstate or "") from None
        assert described is not None
        order = SQL(
            " ORDER BY item.id"
            if described[0].type_code in _PLAIN
            else ' ORDER BY item.id::text COLLATE "C"'
        )
        return (query + order).as_string(connection)


def _settings(database: MappedDatabase) -> list[Composed]:
    path = SQL("SET LOCAL search_path = {}, pg_catalog").format(Identifier(database.schema_name))
    others = [
        SQL("SET LOCAL {} = {}").format(Identifier(name), Literal(value))
        for name, value in PRINTING.items()
    ]
    return [path, *others, SQL("SET LOCAL statement_timeout = {}").format(Literal(0))]


@contextmanager
def _copy_query(
    address: DatabaseAddress, database: MappedDatabase, population: Population, query: str
) -> Iterator[ClientProgram]:
    """Start psql with a COPY of the result of a query, and yield the running program.

    psql is used because it reads rows ten times as fast as any Python driver.
    """
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
            raise _query_error(population, psql.sqlstate)


def _query_error(population: Population, sqlstate: str) -> ServiceError | UsageError:
    if sqlstate == "42501":
        return UsageError(
            f"The population {population.id} may not be read (SQLSTATE 42501).",
            "Grant the connection of audit.yaml SELECT on what its SQL names: "
            "docs/reference/policy-pack/audit.md.",
        )
    if sqlstate == _READ_ONLY or (sqlstate and sqlstate[:2] not in _SERVERS):
        return UsageError(
            f"The SQL of the population {population.id} fails (SQLSTATE {sqlstate}).",
            "Correct it in audit.yaml; try it in psql with a row `period (starts, ends)`.",
        )
    # If its output pipe is still full, psql may not report the error, so the SQLSTATE is unknown.
    gone = not sqlstate or sqlstate.startswith(("57P", "08"))
    return ServiceError(
        f"The population {population.id} could not be read completely"
        + (": the connection to the server was lost." if gone else f" (SQLSTATE {sqlstate})."),
        "No commitment was sealed. Airflow repeats the task.",
    )
