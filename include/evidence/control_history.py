"""The history of controls, read from the history index into memory.

The pages show which outcome each control had at many moments, such as the end of each week. A
`ControlHistory` answers this without a query for each moment. At a moment, the newest evidence of a
control is the bundle with the highest sequence number among those that were sealed by then. That
is the rule of `read_control_evidence`. The history does not verify bundles and does not count
findings.
"""

from __future__ import annotations

import math
import threading
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, text

from include.evidence.control_evidence import AHEAD, Age, age_limits, first_due, outcome_of
from include.evidence.model import ControlState, Outcome
from include.policy.period import Period, utc
from include.policy.rules import Control

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_STATES = tuple(ControlState)
_NUMBERS = {str(state): number for number, state in enumerate(_STATES)}
_CACHED_MOMENTS = 2000  # weeks of many years
_DAY = 86_400_000_000  # microseconds
# The calendar may shift a local time by a change of the clocks.
_CLOCK_CHANGE = timedelta(hours=3) // _MICROSECOND
_AHEAD = AHEAD // _MICROSECOND

_ROWS = text("""
SELECT c.id, c.control, c.seq, c.state, c.value,
    CAST(extract(epoch FROM l.sealed_at) * 1000000 AS bigint) AS sealed,
    CAST(extract(epoch FROM c.finished_at) * 1000000 AS bigint) AS finished
FROM evidence_control AS c JOIN evidence_ledger AS l USING (seq)
WHERE c.id > :after ORDER BY c.id LIMIT :most
""")
ROWS_PER_STATEMENT = 50_000  # so that no statement exceeds the statement_timeout of the pages
_COUNT = text("SELECT count(*) FROM evidence_control JOIN evidence_ledger USING (seq)")


@dataclass(frozen=True)
class ControlResult:
    """The result of a control in a bundle, according to the history index.

    Attributes:
        seq: sequence number of the bundle in the ledger.
        state: state of the control.
        value: the measured value; None if it was not measured.
        sealed_at: when the bundle was sealed.
        finished_at: when the checks of the run ended.
    """

    seq: int
    state: ControlState
    value: float | None
    sealed_at: datetime
    finished_at: datetime


@dataclass(frozen=True)
class Phase:
    """A period in which a control had one outcome.

    Attributes:
        begins_at: first moment of the period.
        ends_at: end of the period: the begin of the next one, or the moment until which the history
            was read.
        outcome: the outcome; None while the control had no evidence yet and was not due.
        seq: sequence number of the bundle that decided the outcome; None without evidence.
    """

    begins_at: datetime
    ends_at: datetime
    outcome: Outcome | None
    seq: int | None


@dataclass
class _Series:
    """The results of one control, ordered by the time of the seal. Times are in microseconds."""

    sealed: array[int] = field(default_factory=lambda: array("q"))
    seq: array[int] = field(default_factory=lambda: array("q"))
    finished: array[int] = field(default_factory=lambda: array("q"))
    state: array[int] = field(default_factory=lambda: array("b"))
    value: array[float] = field(default_factory=lambda: array("d"))
    newest: array[int] = field(default_factory=lambda: array("q"))
    """For each position, the position of the highest sequence number up to it."""

    def add(self, sealed: int, seq: int, finished: int, state: int, value: float) -> None:
        """Add a result. Call `sort` afterwards unless the result is the last."""
        position = len(self.sealed)
        self.sealed.append(sealed)
        self.seq.append(seq)
        self.finished.append(finished)
        self.state.append(state)
        self.value.append(value)
        best = self.newest[-1] if position else position
        self.newest.append(position if self.seq[best] < seq else best)

    def sort(self) -> _Series:
        """Return the results in the order of their seals."""
        ordered = _Series()
        rows = zip(self.sealed, self.seq, self.finished, self.state, self.value, strict=True)
        for row in sorted(rows, key=lambda row: (row[0], row[1])):
            ordered.add(*row)
        return ordered

    def position_at(self, moment: int) -> int | None:
        """Return the position of the newest evidence at a moment; None if there was none."""
        after = bisect_right(self.sealed, moment)
        return self.newest[after - 1] if after else None

    def result(self, position: int) -> ControlResult:
        """Return the result at a position."""
        value = self.value[position]
        return ControlResult(
            self.seq[position],
            _STATES[self.state[position]],
            None if math.isnan(value) else value,
            _moment(self.sealed[position]),
            _moment(self.finished[position]),
        )


class ControlHistory:
    """The results of all controls in all bundles. Several threads can use an instance at once.

    Call `refresh` before each use.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._forget()

    def _forget(self) -> None:
        self._series: dict[str, _Series] = {}
        self._last_id = 0
        self._rows = 0
        self._outcomes: dict[tuple[object, int], tuple[Outcome | None, ...]] = {}

    @property
    def version(self) -> tuple[int, int]:
        """A value that changes when results are added."""
        return self._last_id, self._rows

    def refresh(self, conn: Connection) -> None:
        """Read the results that were added since the last call.

        The rows are read in several statements. If a statement fails, the rows of the statements
        before it are kept, and the next call continues with the others.

        Args:
            conn: connection to the state database.
        """
        with self._lock:
            unsorted: set[str] = set()
            try:
                while self._read_rows(conn, unsorted) == ROWS_PER_STATEMENT:
                    pass
            finally:
                for control in unsorted:
                    self._series[control] = self._series[control].sort()

    def _read_rows(self, conn: Connection, unsorted: set[str]) -> int:
        """Read the next rows in the order of their ids, and return their number.

        Args:
            conn: connection to the state database.
            unsorted: ids of controls whose results are not in the order of their seals. The method
                adds to this set.
        """
        rows = conn.execute(_ROWS, {"after": self._last_id, "most": ROWS_PER_STATEMENT}).all()
        for number, control, seq, state, value, sealed, finished in rows:
            series = self._series.get(control)
            if series is None:
                series = self._series[control] = _Series()
            if series.sealed and sealed < series.sealed[-1]:
                unsorted.add(control)
            series.add(sealed, seq, finished, _NUMBERS[state], math.nan if value is None else value)
            self._last_id = number
        self._rows += len(rows)
        self._drop_outcomes(from_moment=min((row.sealed for row in rows), default=None))
        return len(rows)

    def _drop_outcomes(self, from_moment: int | None) -> None:
        """Drop the cached outcomes of moments from a moment on; keep all if it is None."""
        if from_moment is not None:
            self._outcomes = {
                key: outcomes for key, outcomes in self._outcomes.items() if key[1] < from_moment
            }

    def reload_if_changed(self, conn: Connection) -> None:
        """Read everything again if rows were deleted, or if ledger rows were added again.

        Args:
            conn: connection to the state database.
        """
        rows = int(conn.execute(_COUNT).scalar_one())
        with self._lock:
            if rows != self._rows:
                self._forget()
        self.refresh(conn)

    def controls(self) -> frozenset[str]:
        """Return the ids of all controls that have a result."""
        with self._lock:
            return frozenset(self._series)

    def result_at(self, control: str, moment: datetime) -> ControlResult | None:
        """Return the newest result of a control at a moment; None if there was none."""
        with self._lock:
            series = self._series.get(control)
            position = None if series is None else series.position_at(_number(moment))
            return None if series is None or position is None else series.result(position)

    def results(self, control: str, until: datetime, most: int) -> list[ControlResult]:
        """Return the results of a control that were sealed by a moment, the newest first.

        Args:
            control: id of the control.
            until: the moment.
            most: maximum number of results.
        """
        with self._lock:
            series = self._series.get(control)
            if series is None:
                return []
            end = bisect_right(series.sealed, _number(until))
            newest = range(end - 1, max(-1, end - 1 - most), -1)
            return [series.result(position) for position in newest]

    def outcomes_at(
        self,
        controls: Sequence[Control],
        moments: Sequence[datetime],
        known_since: Mapping[str, datetime],
        zone: ZoneInfo,
    ) -> list[tuple[Outcome | None, ...]]:
        """Return the outcomes of controls at moments: a tuple in the order of controls per moment.

        An outcome is None if the control had no evidence yet and was not due.

        Args:
            controls: the controls, with their present cadences.
            moments: the moments. The outcomes at each of them are cached.
            known_since: control -> time of the first seal whose policy pack had the control.
            zone: timezone in which cadences of days or months are counted.
        """
        key = (
            zone.key,
            tuple(
                (control.id, control.cadence.text, known_since.get(control.id))
                for control in controls
            ),
        )
        with self._lock:
            outcomes = []
            for moment in moments:
                number = _number(moment)
                if (key, number) not in self._outcomes:
                    while len(self._outcomes) >= _CACHED_MOMENTS:
                        del self._outcomes[next(iter(self._outcomes))]
                    self._outcomes[key, number] = tuple(
                        self._outcome_at(control, number, known_since.get(control.id), zone)
                        for control in controls
                    )
                outcomes.append(self._outcomes[key, number])
            return outcomes

    def _outcome_at(
        self, control: Control, moment: int, known_since: datetime | None, zone: ZoneInfo
    ) -> Outcome | None:
        series = self._series.get(control.id)
        position = None if series is None else series.position_at(moment)
        if series is None or position is None:
            return _outcome_without_evidence(control, moment, known_since, zone)
        if series.finished[position] > moment + _AHEAD:
            return Outcome.FAIL  # a clock was wrong, so the age is unknown
        age = _age(series.finished[position], moment, control.cadence, zone)
        return outcome_of(_STATES[series.state[position]], age)

    def phases(
        self, control: Control, until: datetime, known_since: datetime | None, zone: ZoneInfo
    ) -> Iterator[Phase]:
        """Yield the phases of a control, the newest first.

        Args:
            control: the control, with its present cadence.
            until: end of the newest phase, such as the current time.
            known_since: time of the first seal whose policy pack had the control; None if none had.
            zone: timezone in which cadences of days or months are counted.
        """
        ends_at = until
        merged: _Part | None = None
        for part in self._parts(control, until, known_since, zone):
            if merged is not None and part.outcome is merged.outcome:
                merged = part
                continue
            if merged is not None:
                yield Phase(_moment(merged.begin), ends_at, merged.outcome, merged.seq)
                ends_at = _moment(merged.begin)
            merged = part
        if merged is not None:
            yield Phase(_moment(merged.begin), ends_at, merged.outcome, merged.seq)

    def _parts(
        self, control: Control, until: datetime, known_since: datetime | None, zone: ZoneInfo
    ) -> Iterator[_Part]:
        """Yield parts of the phases, the newest first. Neighbours may have the same outcome."""
        with self._lock:
            series = self._series.get(control.id, _Series())
        ends = _number(until)
        count = bisect_right(series.sealed, ends)
        in_time_for = _shortest(control.cadence) - _CLOCK_CHANGE
        in_time = [outcome_of(state, Age.IN_TIME) for state in _STATES]
        while count:
            # A position is the newest from its own seal on.
            position = series.newest[count - 1]
            sealed, finished = series.sealed[position], series.finished[position]
            state, seq = series.state[position], series.seq[position]
            if ends - finished > in_time_for:
                late_at, stale_at = age_limits(_moment(finished), control.cadence, zone)
                for begins_at, age in ((stale_at, Age.STALE), (late_at, Age.LATE)):
                    begin = max(_number(begins_at), sealed)
                    if begin < ends:
                        yield _Part(begin, outcome_of(_STATES[state], age), seq)
                        ends = begin
            if sealed < ends:
                yield _Part(sealed, in_time[state], seq)
                ends = sealed
            count = position
        if known_since is not None and _number(known_since) < ends:
            due_at = first_due(known_since, control, zone)
            if due_at is not None and _number(due_at) < ends:
                yield _Part(_number(due_at), Outcome.FAIL, None)
            yield _Part(_number(known_since), None, None)


class _Part(NamedTuple):
    begin: int
    outcome: Outcome | None
    seq: int | None


def _outcome_without_evidence(
    control: Control, moment: int, known_since: datetime | None, zone: ZoneInfo
) -> Outcome | None:
    if known_since is None or _number(known_since) > moment:
        return None
    due_at = first_due(known_since, control, zone)
    return Outcome.FAIL if due_at is not None and moment > _number(due_at) else None


def _age(finished: int, moment: int, cadence: Period, zone: ZoneInfo) -> Age:
    """Return the age of evidence, as `control_evidence.age_at` does.

    Most evidence is much younger than its cadence. Then no calendar arithmetic is needed.
    """
    if moment - finished <= _shortest(cadence) - _CLOCK_CHANGE:
        return Age.IN_TIME
    late_at, stale_at = age_limits(_moment(finished), cadence, zone)
    if moment <= _number(late_at):
        return Age.IN_TIME
    return Age.LATE if moment <= _number(stale_at) else Age.STALE


@lru_cache
def _shortest(cadence: Period) -> int:
    """Return the shortest length of a cadence in microseconds, without changes of the clocks."""
    return (cadence.months * 28 + cadence.days) * _DAY + cadence.seconds * 1_000_000


def _number(moment: datetime) -> int:
    return (utc(moment) - _EPOCH) // _MICROSECOND


def _moment(number: int) -> datetime:
    return _EPOCH + number * _MICROSECOND
