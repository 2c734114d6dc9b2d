"""The history of controls, and evidence as of a past time, equal what was live at that time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import mkdtemp
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from sqlalchemy import event, select
from sqlalchemy.exc import OperationalError

from include.evidence import control_history, control_index
from include.evidence.bundle import seal
from include.evidence.bundle_reader import BundleReader
from include.evidence.checkpoint import newest_checkpoint
from include.evidence.compliance_history import end_of_day, read_history, week_ends
from include.evidence.control_evidence import PruneState, age_at, outcome_of, read_control_evidence
from include.evidence.control_history import ControlHistory, Phase, _age, _number
from include.evidence.ledger_recovery import recover_ledger
from include.evidence.model import ControlState, ControlStatus, Outcome, Result, RunContext
from include.evidence.signing import Signer, TrustedKeys
from include.messages import _
from include.policy.period import Period
from include.policy.rules import Control
from include.services.clock import FixedClock
from include.state.tables import evidence_control, evidence_ledger
from tests.evidence.conftest import open_evidence
from tests.evidence.support import Evidence
from tests.support.registers import unguarded

ZONE = ZoneInfo("Asia/Shanghai")
BEGIN = datetime(2026, 3, 2, 1, tzinfo=UTC)
FILES = {"report.en.html": b"<p>report</p>\n"}


def control(name: str, workflow: str, clause: str, cadence: str) -> Control:
    source = {"instrument": {"en": "Law", "zh-CN": "法"}, "version": "2026-01-01", "article": "1"}
    return Control.model_validate(
        {
            "id": name, "clause": clause, "title": {"en": name, "zh-CN": name},
            "workflow": workflow, "cadence": cadence,
            "indicator": {"name": "missing", "target": "= 0"}, "sources": [source],
        }
    )  # fmt: skip


CONTROLS = (
    control("a.daily", "daily", "4.1", "P1D"),
    control("b.daily", "daily", "4.2", "P1D"),
    control("c.weekly", "weekly", "4.2", "P7D"),
    control("d.never", "never", "6.3", "P9D"),
)
NAMES = [control.id for control in CONTROLS]


def result(workflow: str, states: tuple[ControlState, ...], at: datetime, number: int) -> Result:
    controls = [item for item in CONTROLS if item.workflow == workflow]
    statuses = [
        ControlStatus(
            id=item.id, clause=item.clause, title=_("Back up"), indicator="missing", target="= 0",
            value=None if state is ControlState.NO_EVIDENCE else float(number), state=state,
        )
        for item, state in zip(controls, states, strict=False)
    ]  # fmt: skip
    run = RunContext(
        dag_id=workflow, run_id=f"run {number}", started_at=at, code_version="-", policy_hash="-",
        policy_name="-", clock_source="-",
    )  # fmt: skip
    return Result(
        run=run, controls=statuses, outcome=Outcome.PASS, finished_at=at, metrics=[], findings=[]
    )


Figures = list[Outcome | None]


class AsOfMachine(RuleBasedStateMachine):
    """Seals, prunes, lost and recovered rows, and reads as of past times, in any order."""

    migrated: str
    signer: Signer

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        root = Path(mkdtemp())
        self.stack.callback(shutil.rmtree, root)
        self.evidence = self.stack.enter_context(open_evidence(self.migrated, self.signer, root))
        self.now, self.number = BEGIN, 0
        self.shown: dict[datetime, Figures] = {}
        self.history = ControlHistory()  # kept, as the pages keep it

    def teardown(self) -> None:
        self.stack.close()

    @property
    def keys(self) -> TrustedKeys:
        return TrustedKeys([self.signer.public_pem])

    @rule(hours=st.integers(1, 90))
    def wait(self, hours: int) -> None:
        self.now += timedelta(hours=hours)

    @rule(
        workflow=st.sampled_from(["daily", "weekly"]),
        states=st.tuples(*[st.sampled_from(list(ControlState))] * 2),
        minutes=st.integers(1, 600),
    )
    def seal(self, workflow: str, states: tuple[ControlState, ...], minutes: int) -> None:
        self.now += timedelta(minutes=minutes)
        self.number += 1
        evidence = self.evidence
        seal(
            evidence.store, evidence.conn, self.signer, clock=FixedClock(self.now), files=FILES,
            result=result(workflow, states, self.now, self.number), pack_controls=NAMES,
        )  # fmt: skip

    @precondition(lambda self: self.number > 2)
    @rule(lost=st.integers(1, 3))
    def lose_rows_and_recover(self, lost: int) -> None:
        newest = self.evidence.conn.scalar(
            select(evidence_ledger.c.seq).order_by(evidence_ledger.c.seq.desc()).limit(1)
        )
        mark = newest_checkpoint(self.evidence.conn, self.keys)
        first = max(int(newest or 0) - lost, mark.up_to_seq if mark else 0)
        with unguarded(self.evidence.conn, "evidence_ledger", "evidence_control"):
            for table in (evidence_ledger, evidence_control):
                self.evidence.conn.execute(table.delete().where(table.c.seq > first))
        self.evidence.conn.commit()
        evidence = self.evidence
        clock = FixedClock(self.now)
        recover_ledger(evidence.store, evidence.conn, self.signer, self.keys, clock)

    @precondition(lambda self: self.number > 2)
    @rule()
    def prune(self) -> None:
        """Remove the files of bundles that are older than three of the longest cadences."""
        limit = self.now - timedelta(days=21)
        query = select(evidence_ledger.c.seq).where(evidence_ledger.c.sealed_at < limit)
        expired = self.evidence.conn.scalars(query.order_by(evidence_ledger.c.seq.desc())).first()
        if expired:
            self.evidence.prune(expired + 1, clock=FixedClock(self.now))

    @rule()
    def show(self) -> None:
        """Record the outcomes that the page shows now."""
        self.shown[self.now] = self.outcomes(None)

    def outcomes(self, as_of: datetime | None) -> Figures:
        conn = self.evidence.conn
        mark = newest_checkpoint(conn, self.keys)
        evidence = read_control_evidence(
            conn, BundleReader(self.evidence.store, [self.signer.public_pem]), CONTROLS, self.now,
            ZONE, PruneState.at(mark, as_of), as_of=as_of,
            known_since=control_index.known_since(conn),
        )  # fmt: skip
        conn.rollback()
        return [control_evidence.outcome for control_evidence in evidence]

    @invariant()
    def past_times_show_what_was_live(self) -> None:
        conn = self.evidence.conn
        since = control_index.known_since(conn)
        self.history.reload_if_changed(conn)
        conn.rollback()
        for moment, shown in [*self.shown.items()][-6:]:
            assert self.outcomes(moment) == shown, moment
            (indexed,) = self.history.outcomes_at(CONTROLS, [moment], since, ZONE)
            assert list(indexed) == shown, moment


def test_outcomes_as_of_a_past_time_equal_those_shown_at_that_time(
    migrated: str, signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The outcomes come from verified bundles and, for comparison, from the history index."""
    monkeypatch.setattr(control_history, "ROWS_PER_STATEMENT", 3)
    AsOfMachine.migrated, AsOfMachine.signer = migrated, signer
    AsOfMachine.TestCase.settings = settings(
        settings(), stateful_step_count=25, max_examples=max(10, settings().max_examples // 4)
    )
    AsOfMachine.TestCase("runTest").runTest()


@given(
    cadence=st.sampled_from(["PT6H", "P1D", "P4D", "P1M", "P3M", "P1Y", "P1M2DT3H"]),
    finished=st.integers(0, 10 * 366 * 24 * 60),
    later=st.integers(0, 800 * 24 * 60),
    zone=st.sampled_from(["Asia/Shanghai", "Europe/Berlin", "America/New_York"]),
)
def test_age_without_calendar_arithmetic_equals_the_age_of_the_overview(
    cadence: str, finished: int, later: int, zone: str
) -> None:
    begin = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(minutes=finished)
    period = Period.parse(cadence)
    moment = begin + timedelta(minutes=later)
    fast = _age(_number(begin), _number(moment), period, ZoneInfo(zone))
    assert fast is age_at(moment, begin, period, ZoneInfo(zone))


@pytest.fixture
def year(evidence: Evidence) -> tuple[ControlHistory, dict[str, datetime], Evidence]:
    """Return the history of a control that passed, was late, failed and passed again."""
    seal_at(evidence, 1, BEGIN, ControlState.PASSED)
    seal_at(evidence, 2, BEGIN + timedelta(days=1.5), ControlState.FAILED)
    seal_at(evidence, 3, BEGIN + timedelta(days=2), ControlState.PASSED)
    history = ControlHistory()
    history.refresh(evidence.conn)
    return history, control_index.known_since(evidence.conn), evidence


def seal_at(evidence: Evidence, number: int, at: datetime, state: ControlState) -> None:
    seal(
        evidence.store, evidence.conn, evidence.signer, clock=FixedClock(at), files=FILES,
        result=result("daily", (state, state), at, number), pack_controls=NAMES,
    )  # fmt: skip


def test_phase_begins_when_evidence_is_sealed_becomes_late_or_becomes_stale(
    year: tuple[ControlHistory, dict[str, datetime], Evidence],
) -> None:
    history, since, _evidence = year
    day = timedelta(days=1)
    until = BEGIN + 9 * day
    phases = list(history.phases(CONTROLS[0], until, since["a.daily"], ZONE))
    assert phases == [
        Phase(BEGIN + 4 * day, until, Outcome.FAIL, 3),
        Phase(BEGIN + 3 * day + timedelta(hours=2), BEGIN + 4 * day, Outcome.ATTENTION, 3),
        Phase(BEGIN + 2 * day, BEGIN + 3 * day + timedelta(hours=2), Outcome.PASS, 3),
        Phase(BEGIN + 1.5 * day, BEGIN + 2 * day, Outcome.FAIL, 2),
        Phase(BEGIN + day + timedelta(hours=2), BEGIN + 1.5 * day, Outcome.ATTENTION, 1),
        Phase(BEGIN, BEGIN + day + timedelta(hours=2), Outcome.PASS, 1),
    ]
    never = list(history.phases(CONTROLS[3], BEGIN + 10 * day, since["d.never"], ZONE))
    assert [(phase.outcome, phase.begins_at) for phase in never] == [
        (Outcome.FAIL, BEGIN + 9 * day),
        (None, BEGIN),
    ]


def test_phases_agree_with_outcomes_at_every_hour(
    year: tuple[ControlHistory, dict[str, datetime], Evidence],
) -> None:
    history, since, _evidence = year
    until = BEGIN + timedelta(days=12)
    for tested in CONTROLS:
        phases = list(history.phases(tested, until, since[tested.id], ZONE))
        for hour in range(1, 12 * 24):
            moment = BEGIN + timedelta(hours=hour, minutes=1)
            ((outcome,),) = history.outcomes_at([tested], [moment], since, ZONE)
            (phase,) = [phase for phase in phases if phase.begins_at <= moment < phase.ends_at]
            assert phase.outcome is outcome, (tested.id, hour)


def test_refresh_drops_cached_outcomes_of_moments_after_a_new_result(
    year: tuple[ControlHistory, dict[str, datetime], Evidence],
) -> None:
    history, since, evidence = year
    moments = [BEGIN + timedelta(days=days) for days in (1, 5)]
    before = history.outcomes_at(CONTROLS[:1], moments, since, ZONE)
    seal_at(evidence, 4, BEGIN + timedelta(days=4.9), ControlState.PASSED)
    history.refresh(evidence.conn)
    after = history.outcomes_at(CONTROLS[:1], moments, since, ZONE)
    assert before == [(Outcome.PASS,), (Outcome.FAIL,)]
    assert after == [(Outcome.PASS,), (Outcome.PASS,)]


def test_refresh_that_the_server_cancels_keeps_its_progress_and_the_next_call_continues(
    year: tuple[ControlHistory, dict[str, datetime], Evidence], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pages' login has a statement_timeout of 10 seconds."""
    complete, _since, evidence = year
    monkeypatch.setattr(control_history, "ROWS_PER_STATEMENT", 3)
    history = ControlHistory()
    with slow_from_statement(evidence, 2), pytest.raises(OperationalError, match="timeout"):
        history.refresh(evidence.conn)
    evidence.conn.rollback()
    until = BEGIN + timedelta(days=9)
    numbers = [result.seq for result in history.results("a.daily", until, 9)]
    assert numbers == [2, 1]
    with slow_from_statement(evidence, 3):
        history.refresh(evidence.conn)
    for name in NAMES[:2]:
        assert history.results(name, until, 9) == complete.results(name, until, 9)
    assert history.version == complete.version


@contextmanager
def slow_from_statement(evidence: Evidence, first: int) -> Iterator[None]:
    """Let the server cancel the statements from a number on, as if they took too long."""
    count = 0
    evidence.conn.exec_driver_sql("SET LOCAL statement_timeout = '200ms'")

    def slow_down(
        _conn: object, _cursor: object, statement: str, parameters: object, *_rest: object
    ) -> tuple[str, object]:
        nonlocal count
        count += 1
        return (statement, parameters) if count < first else ("SELECT pg_sleep(60)", {})

    event.listen(evidence.conn, "before_cursor_execute", slow_down, retval=True)
    try:
        yield
    finally:
        event.remove(evidence.conn, "before_cursor_execute", slow_down)


def test_history_by_week_and_quarter_counts_due_controls_only(
    year: tuple[ControlHistory, dict[str, datetime], Evidence],
) -> None:
    history, since, _evidence = year
    moment = end_of_day((BEGIN + timedelta(days=2)).astimezone(ZONE).date(), ZONE)
    current = [Outcome.PASS, Outcome.PASS, None, None]
    read = read_history(history, CONTROLS, current, moment, since, ZONE)
    assert len(read.weeks) == 53
    assert read.clauses["4.1"][-2:] == [None, Outcome.PASS]
    assert set(read.clauses["6.3"]) == {None}
    assert [quarter.share for quarter in read.quarters] == [*[None] * 7, 1.0]
    assert (read.quarters[-1].year, read.quarters[-1].quarter) == (2026, 1)


def test_week_ends_are_last_moments_of_sundays() -> None:
    ends = week_ends(datetime(2026, 12, 1, 5, tzinfo=UTC), ZONE, 3)
    assert [end.date().isoformat() for end in ends] == ["2026-11-15", "2026-11-22", "2026-11-29"]
    assert all(end.isoweekday() == 7 for end in ends)
    assert {(end + timedelta(microseconds=1)).hour for end in ends} == {0}


def test_outcome_of_stale_evidence_is_failed() -> None:
    from include.evidence.control_evidence import Age

    assert outcome_of(ControlState.PASSED, Age.STALE) is Outcome.FAIL
    assert outcome_of(ControlState.NO_EVIDENCE, Age.IN_TIME) is Outcome.ATTENTION
