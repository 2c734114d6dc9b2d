"""A drill plays a whole run, and nothing but its own bundle is left of it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import text

from include.backup.drill import drill_target
from include.backup.offsite import offsite_of
from include.composition import new_workplace
from include.drill_sandbox.schema import sandboxes
from include.drill_sandbox.workplace import (
    LEFT_AFTER,
    SandboxedWorkplace,
    clear_leftovers,
    live_of,
    sandboxed,
)
from include.evidence import ledger
from include.evidence.model import Finding, Outcome, StepRecord
from include.evidence.signing import generate_key
from include.evidence.step_findings import keep_artifact
from include.evidence.verify import verify_all
from include.messages import _, verbatim
from include.notify.notice import Notice
from include.notify.outbox import Run, queue
from include.policy import SHIPPED
from include.reports.conclusion import Conclusion, worst
from include.retention.database import RetentionDatabase
from include.services.connections import ConnectionSpec
from include.services.errors import ControlFailed, UsageError
from include.workflow.run_context import RunContext
from include.workplace import Workplace
from tests.notify.rig import MovingClock
from tests.support.state_snapshot import differences, snapshot

pytestmark = pytest.mark.airflow

RUN = ("drilled", "manual__1")  # a workflow without controls
NIGHT = datetime(2026, 11, 28, 19, tzinfo=UTC)  # Sunday, 03:00 in Shanghai
CLAUSE = "6.3"


class Play:
    """A company, and the run that is a drill.

    Attributes:
        live: its workplace.
        state: connection string of its state database.
    """

    def __init__(self, folder: Path, state: str) -> None:
        self.state, self.store = state, folder / "evidence"
        self.store.mkdir()
        server = {key: str(value) for key, value in conninfo_to_dict(state).items()}
        database = partial(
            ConnectionSpec,
            conn_type="postgres",
            host=server["host"],
            login=server["user"],
            password=server["password"],
            schema=server["dbname"],
        )
        extra = {"path": str(self.store), "signing_key": generate_key().decode()}
        specs = {
            "state_db": database("state_db"),
            "customer_db": database("customer_db"),
            "evidence_store": ConnectionSpec("evidence_store", "fs", extra=extra),
            "offsite_store": ConnectionSpec("offsite_store", "fs", extra=extra),
            "mail": ConnectionSpec("mail", "smtp", "localhost", 1, extra={"from_email": "a@b.cn"}),
        }
        self.clock = MovingClock(NIGHT)
        self.live = new_workplace(folder / "home", SHIPPED, specs.get, self.clock)

    def begins(self) -> SandboxedWorkplace:
        return sandboxed(self.live, *RUN, begins=True)

    def goes_on(self) -> SandboxedWorkplace:
        return sandboxed(self.live, *RUN)

    def step(self, make: Callable[[], Workplace], name: str = "open") -> dict[str, Any]:
        from include.orchestration.run import step

        def work(place: Workplace) -> StepRecord:
            with place.state.begin() as conn:
                keep_artifact(conn, *RUN, f"{name}.txt", b"what happened")
            return StepRecord(step=name, outcome=Outcome.PASS)

        return step(name, "", verbatim(name), work, CLAUSE, make)

    def seal(self) -> dict[str, Any]:
        from include.orchestration.run import seal_run

        return seal_run(conclude, self.goes_on)

    def files(self) -> set[str]:
        """Of the live evidence store."""
        return {path.name for path in self.store.rglob("*") if path.is_file()}


def conclude(place: Workplace, records: Any, artifacts: dict[str, bytes]) -> Conclusion:
    """Let the worst step say the outcome."""
    del place, artifacts
    findings: list[Finding] = [one for record in records for one in record.findings]
    title = verbatim("Drill")
    return Conclusion(title, title, worst(records, findings), findings, [])


@pytest.fixture
def play(tmp_path: Path, migrated_database: str, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Airflow says that the run is the drill; everything else is real."""
    from include.orchestration import notices, run

    found = Play(tmp_path, migrated_database)
    dag_run = SimpleNamespace(
        dag_id=RUN[0],
        run_id=RUN[1],
        start_date=NIGHT,
        data_interval_start=None,
        data_interval_end=None,
    )
    task = SimpleNamespace(get_task_states=lambda **_: {}, try_number=1, max_tries=3)
    for module in (run, notices):
        monkeypatch.setattr(module, "get_current_context", lambda: {"dag_run": dag_run, "ti": task})
    return found


def test_of_a_drill_its_bundle_is_left_and_nothing_else(play: Play) -> None:
    """One row of the ledger, its files in the store; no table, no number, no object is another."""
    from airflow.sdk.exceptions import AirflowFailException

    before = snapshot(play.state)
    play.step(play.begins)
    play.step(play.goes_on, "assess")
    assert play.files() == set()
    during = differences(before, snapshot(play.state))
    assert during
    assert [one for one in during if "tabletop_" not in one] == []
    sealed = play.seal()
    assert differences(before, snapshot(play.state)) == {"public.evidence_ledger": 1}
    with play.live.state.connect() as conn:
        row = ledger.find(conn, *RUN)
        assert row is not None
        assert verify_all(play.live.store("evidence_store"), conn, play.live.trusted).verified
    assert row.bundle == sealed["bundle"]
    assert {"open.txt", "assess.txt", "result.json"} <= play.files()
    assert sealed["outcome"] == "pass"
    assert play.seal() == sealed
    after = snapshot(play.state)  # somebody clears its tasks: nothing is made again
    for make in (play.begins, play.goes_on):
        with pytest.raises(AirflowFailException, match="sealed"):
            play.step(make)
    assert differences(after, snapshot(play.state)) == {}


def test_a_drill_whose_state_was_lost_says_so(play: Play) -> None:
    """Its steps do not go on with an empty one, and its bundle is no pass."""
    play.step(play.begins)
    play.goes_on().drop()
    with pytest.raises(ControlFailed, match="gone"):
        play.step(play.goes_on, "assess")
    before = snapshot(play.state)
    sealed = play.seal()
    assert (sealed["outcome"], sealed["findings"]) == ("fail", 1)
    assert differences(before, snapshot(play.state)) == {"public.evidence_ledger": 1}


def test_a_seal_that_is_killed_before_the_state_is_dropped_is_finished(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next try seals nothing twice, says the same of a step that failed, and drops it."""
    from airflow.sdk.exceptions import AirflowFailException

    from include.orchestration.run import step

    def work(place: Workplace) -> StepRecord:
        place.connection("mail")
        raise AssertionError

    def killed(_place: SandboxedWorkplace) -> None:
        raise KeyboardInterrupt

    before = snapshot(play.state)
    with pytest.raises(AirflowFailException, match="A drill does not use the connection mail"):
        step("open", "", verbatim("Open"), work, CLAUSE, play.begins)
    with monkeypatch.context() as patch:
        patch.setattr(SandboxedWorkplace, "drop", killed)
        with pytest.raises(KeyboardInterrupt):
            play.seal()
    assert play.goes_on().is_there()
    sealed = play.seal()
    assert not play.goes_on().is_there()
    assert (sealed["outcome"], sealed["findings"]) == ("fail", 1)
    assert differences(before, snapshot(play.state)) == {"public.evidence_ledger": 1}


def test_a_drill_seals_no_interim_bundle(play: Play) -> None:
    """No seal of the company stands on invented content but that of the drill's own bundle."""
    from include.orchestration.run import seal_interim

    play.step(play.begins)
    before = snapshot(play.state)
    title = verbatim("First report")
    said = Conclusion(title, title, Outcome.PASS, [], [])
    with pytest.raises(UsageError, match="A drill does not use the connection evidence_store"):
        seal_interim("incident_report", play.goes_on(), said, {"report.html": b"<p>"})
    assert differences(before, snapshot(play.state)) == {}
    assert play.files() == set()


def test_notices_are_played_through_and_nobody_is_told(play: Play) -> None:
    """At night, on a Sunday, to addresses of any domain; no server is asked, no robot either."""
    from include.orchestration.notices import office, send

    def told(number: int, channel: Any, *, urgent: bool) -> Notice:
        line = _("Course {number}", number=f"n{number}")
        return Notice(
            kind="x",
            key=str(number),
            recipient=f"E{number}",
            heading=line,
            line=line,
            address="team_chat" if channel == "robot" else f"e{number}@example.com",
            channel=channel,
            urgent=urgent,
        )

    play.step(play.begins)
    place = play.goes_on()
    assert {kind: type(one).__name__ for kind, one in office(place).channels.items()} == {
        "mail": "SandboxChannel",
        "robot": "SandboxChannel",
    }
    notices = [told(1, "mail", urgent=True), told(2, "mail", urgent=False)]
    notices.append(told(3, "robot", urgent=True))
    with place.state.begin() as conn:
        queue(conn, notices, Run(*RUN), NIGHT)
    before = snapshot(play.state)
    assert send(CLAUSE, play.goes_on)["outcome"] == "pass"
    with place.state.connect() as conn:
        assert conn.scalars(text("SELECT state FROM notice")).all() == ["sent"] * 3
    changed = differences(before, snapshot(play.state))
    assert [one for one in changed if "tabletop_" not in one] == []


def test_nothing_else_is_within_a_drills_reach(play: Play) -> None:
    """Neither by name nor by a way around: no store, no key, no recipient."""
    place = play.begins()
    for conn_id in ("mail", "state_db", "customer_db", "evidence_store", "offsite_store", "robot"):
        for ask in (place.connection, place.lookup, place.database):
            with pytest.raises(UsageError, match=f"A drill does not use the connection {conn_id}"):
                ask(conn_id)
        assert not place.is_local(conn_id)
    ways: list[Callable[[], object]] = [
        lambda: place.store("mail"),
        lambda: RetentionDatabase(RunContext(place, None), "courier").reader,
        lambda: place.role_database("state_db", "customer_db"),
        lambda: place.role_database("incident_db", "state_db"),
        place.drill_key,
        lambda: drill_target(place, place.pack.database("courier")),
        place.connection_faults,
        lambda: place.store("evidence_store"),
        lambda: place.store("offsite_store"),
        lambda: place.signer,
        lambda: place.trusted,
        place.recipients,
        lambda: offsite_of(place),
        lambda: place.erasure_keys,
        place.registers,
    ]
    for way in ways:
        with pytest.raises(UsageError, match="A drill does not use"):
            way()
    assert place.pack is play.live.pack
    assert place.code_version == play.live.code_version
    assert live_of(place) is play.live
    assert live_of(play.live) is play.live
    assert play.files() == set()


def test_mapped_databases_are_read_and_never_written(play: Play) -> None:
    """Whoever plays a drill is looked up there; the role's rights are not all that keeps it."""
    place = play.begins()
    with place.role_database("incident_db", "customer_db").connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("CREATE TABLE written (id integer)")


def test_what_killed_drills_left_is_cleared_away(play: Play) -> None:
    """Once they are sealed, or nothing happened in them for long; others are let be."""
    for run_id in (RUN[1], "quiet"):
        assert sandboxed(play.live, RUN[0], run_id, begins=True).state
    play.clock.on(days=LEFT_AFTER.days)
    assert sandboxed(play.live, RUN[0], "played", begins=True).state
    assert clear_leftovers(play.live) == []
    signer = play.live.signer
    row = ledger.LedgerRow(1, "b", *RUN, "pass", [], NIGHT, NIGHT, "0" * 64, "", signer.fingerprint)
    with play.live.state.begin() as conn:
        ledger.append(conn, signer, row)
    assert [one.run_id for one in clear_leftovers(play.live)] == [RUN[1]]
    play.clock.on(seconds=1)
    assert [one.run_id for one in clear_leftovers(play.live)] == ["quiet"]
    assert [one.run_id for one in sandboxes(play.live.state)] == ["played"]
