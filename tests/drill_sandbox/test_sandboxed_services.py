"""Test that an incident drill runs a complete workflow, and leaves only its own evidence bundle."""

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
from include.composition import build_services
from include.drill_sandbox.sandboxed_services import (
    LEFT_AFTER,
    SandboxedServices,
    clear_leftovers,
    live_of,
    sandboxed,
)
from include.drill_sandbox.schema import sandboxes
from include.evidence import ledger
from include.evidence.model import Finding, Outcome, StepRecord
from include.evidence.signing import generate_key
from include.evidence.step_findings import keep_artifact
from include.evidence.verify import verify_all
from include.messages import _, verbatim
from include.notify.notification import Notification
from include.notify.outbox import Run, queue_notifications
from include.policy import SHIPPED
from include.reports.conclusion import Conclusion, worst
from include.retention.database import RetentionDatabase
from include.service_container import Services
from include.services.connections import ConnectionSpec
from include.services.errors import ControlFailed, UsageError
from include.workflow.run_context import RunContext
from tests.notify.notify_fixtures import MovingClock
from tests.support.state_snapshot import differences, snapshot

pytestmark = pytest.mark.airflow

RUN = ("drilled", "manual__1")  # a workflow without controls
NIGHT = datetime(2026, 11, 28, 19, tzinfo=UTC)  # Sunday, 03:00 in Shanghai
CLAUSE = "6.3"


class Play:
    """The services of a company, and a run that is an incident drill.

    Attributes:
        live: live services of the company.
        state: connection string of the live state database.
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
        self.live = build_services(folder / "home", SHIPPED, specs.get, self.clock)

    def begins(self) -> SandboxedServices:
        return sandboxed(self.live, *RUN, creates_schema=True)

    def goes_on(self) -> SandboxedServices:
        return sandboxed(self.live, *RUN)

    def step(self, make: Callable[[], Services], name: str = "open") -> dict[str, Any]:
        from include.orchestration.run import execute_step

        def work(services: Services) -> StepRecord:
            with services.state.begin() as conn:
                keep_artifact(conn, *RUN, f"{name}.txt", b"what happened")
            return StepRecord(step=name, outcome=Outcome.PASS)

        return execute_step(name, "", verbatim(name), work, CLAUSE, make)

    def seal(self) -> dict[str, Any]:
        from include.orchestration.run import seal_run

        return seal_run(conclude, self.goes_on)

    def files(self) -> set[str]:
        """Return the names of the files in the live evidence store."""
        return {path.name for path in self.store.rglob("*") if path.is_file()}


def conclude(services: Services, records: Any, artifacts: dict[str, bytes]) -> Conclusion:
    """Return a conclusion whose outcome is the worst outcome of the steps."""
    del services, artifacts
    findings: list[Finding] = [finding for record in records for finding in record.findings]
    title = verbatim("Drill")
    return Conclusion(title, title, worst(records, findings), findings, [])


@pytest.fixture
def play(tmp_path: Path, migrated_database: str, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Return the services of a drill. Only Airflow's context of the run is replaced."""
    from include.orchestration import notifications, run

    play = Play(tmp_path, migrated_database)
    dag_run = SimpleNamespace(
        dag_id=RUN[0],
        run_id=RUN[1],
        start_date=NIGHT,
        data_interval_start=None,
        data_interval_end=None,
        conf={},
    )
    task = SimpleNamespace(get_task_states=lambda **_: {}, try_number=1, max_tries=3)
    for module in (run, notifications):
        monkeypatch.setattr(module, "get_current_context", lambda: {"dag_run": dag_run, "ti": task})
    return play


def test_incident_drill_changes_only_the_evidence_ledger_and_the_evidence_store(play: Play) -> None:
    """The evidence ledger gets a row and the evidence store gets files. Nothing else changes."""
    from airflow.sdk.exceptions import AirflowFailException

    before = snapshot(play.state)
    play.step(play.begins)
    play.step(play.goes_on, "assess")
    assert play.files() == set()
    during = differences(before, snapshot(play.state))
    assert during
    assert [difference for difference in during if "tabletop_" not in difference] == []
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
    after = snapshot(play.state)  # its tasks are cleared: nothing is created again
    for make in (play.begins, play.goes_on):
        with pytest.raises(AirflowFailException, match="sealed"):
            play.step(make)
    assert differences(after, snapshot(play.state)) == {}


def test_incident_drill_step_fails_if_the_database_schema_of_the_drill_was_dropped(
    play: Play,
) -> None:
    """Later steps do not continue with an empty state, and the bundle's outcome is *failed*."""
    play.step(play.begins)
    play.goes_on().drop()
    with pytest.raises(ControlFailed, match="no longer exists"):
        play.step(play.goes_on, "assess")
    before = snapshot(play.state)
    sealed = play.seal()
    assert (sealed["outcome"], sealed["findings"]) == ("fail", 1)
    assert differences(before, snapshot(play.state)) == {"public.evidence_ledger": 1}


def test_repeated_seal_drops_the_drill_schema_that_a_killed_seal_did_not_drop(
    play: Play, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next attempt drops the state and seals no second bundle.

    The bundle keeps the outcome of a failed step.
    """
    from airflow.sdk.exceptions import AirflowFailException

    from include.orchestration.run import execute_step

    def work(services: Services) -> StepRecord:
        services.connection("mail")
        raise AssertionError

    def killed(_place: SandboxedServices) -> None:
        raise KeyboardInterrupt

    before = snapshot(play.state)
    with pytest.raises(AirflowFailException, match="A drill may not use the connection mail"):
        execute_step("open", "", verbatim("Open"), work, CLAUSE, play.begins)
    with monkeypatch.context() as patch:
        patch.setattr(SandboxedServices, "drop", killed)
        with pytest.raises(KeyboardInterrupt):
            play.seal()
    assert play.goes_on().has_schema()
    sealed = play.seal()
    assert not play.goes_on().has_schema()
    assert (sealed["outcome"], sealed["findings"]) == ("fail", 1)
    assert differences(before, snapshot(play.state)) == {"public.evidence_ledger": 1}


def test_sealing_an_interim_bundle_in_a_drill_raises_usage_error_and_stores_no_file(
    play: Play,
) -> None:
    """A drill's invented content is signed only in its final evidence bundle."""
    from include.orchestration.run import seal_interim

    play.step(play.begins)
    before = snapshot(play.state)
    title = verbatim("First report")
    said = Conclusion(title, title, Outcome.PASS, [], [])
    with pytest.raises(UsageError, match="A drill may not use the connection evidence_store"):
        seal_interim("incident_report", play.goes_on(), said, {"report.html": b"<p>"})
    assert differences(before, snapshot(play.state)) == {}
    assert play.files() == set()


def test_drill_marks_notifications_as_sent_and_contacts_no_mail_server_or_robot(play: Play) -> None:
    """Messages count as sent even at night, on a Sunday, and to addresses of any domain.

    No mail server or robot is contacted.
    """
    from include.orchestration.notifications import delivery_config, send

    def told(number: int, channel: Any, *, urgent: bool) -> Notification:
        line = _("Course {number}", number=f"n{number}")
        return Notification(
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
    services = play.goes_on()
    assert {
        kind: type(channel).__name__ for kind, channel in delivery_config(services).channels.items()
    } == {
        "mail": "SandboxChannel",
        "robot": "SandboxChannel",
    }
    notices = [told(1, "mail", urgent=True), told(2, "mail", urgent=False)]
    notices.append(told(3, "robot", urgent=True))
    with services.state.begin() as conn:
        queue_notifications(conn, notices, Run(*RUN), NIGHT)
    before = snapshot(play.state)
    assert send(CLAUSE, play.goes_on)["outcome"] == "pass"
    with services.state.connect() as conn:
        assert conn.scalars(text("SELECT state FROM notification")).all() == ["sent"] * 3
    changed = differences(before, snapshot(play.state))
    assert [difference for difference in changed if "tabletop_" not in difference] == []


def test_drill_raises_usage_error_if_a_step_requests_a_connection_a_store_or_a_key(
    play: Play,
) -> None:
    """A drill gets no store, key or recipient from any function of its services."""
    services = play.begins()
    for conn_id in ("mail", "state_db", "customer_db", "evidence_store", "offsite_store", "robot"):
        for ask in (services.connection, services.lookup, services.database):
            with pytest.raises(UsageError, match=f"A drill may not use the connection {conn_id}"):
                ask(conn_id)
        assert not services.is_local(conn_id)
    ways: list[Callable[[], object]] = [
        lambda: services.store("mail"),
        lambda: RetentionDatabase(RunContext(services, None), "courier").reader,
        lambda: services.role_database("state_db", "customer_db"),
        lambda: services.role_database("incident_db", "state_db"),
        services.drill_key,
        lambda: drill_target(services, services.pack.database("courier")),
        services.connection_faults,
        lambda: services.store("evidence_store"),
        lambda: services.store("offsite_store"),
        lambda: services.signer,
        lambda: services.trusted,
        services.recipients,
        lambda: offsite_of(services),
        lambda: services.erasure_keys,
        services.registers,
    ]
    for way in ways:
        with pytest.raises(UsageError, match="A drill may not use"):
            way()
    assert services.pack is play.live.pack
    assert services.code_version == play.live.code_version
    assert live_of(services) is play.live
    assert live_of(play.live) is play.live
    assert play.files() == set()


def test_drill_connection_to_a_mapped_database_is_read_only(play: Play) -> None:
    """The connection is read-only, even if the database role may write."""
    services = play.begins()
    with services.role_database("incident_db", "customer_db").connect() as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("CREATE TABLE written (id integer)")


def test_schemas_of_sealed_drills_and_of_drills_without_recent_steps_are_dropped(
    play: Play,
) -> None:
    """The state is dropped after the drill was sealed, or after a long time without a step.

    The states of other drills are kept.
    """
    for run_id in (RUN[1], "quiet"):
        assert sandboxed(play.live, RUN[0], run_id, creates_schema=True).state
    play.clock.on(days=LEFT_AFTER.days)
    assert sandboxed(play.live, RUN[0], "played", creates_schema=True).state
    assert clear_leftovers(play.live) == []
    signer = play.live.signer
    row = ledger.LedgerRow(1, "b", *RUN, "pass", [], NIGHT, NIGHT, "0" * 64, "", signer.fingerprint)
    with play.live.state.begin() as conn:
        ledger.append(conn, signer, row)
    assert [leftover.run_id for leftover in clear_leftovers(play.live)] == [RUN[1]]
    play.clock.on(seconds=1)
    assert [leftover.run_id for leftover in clear_leftovers(play.live)] == ["quiet"]
    assert [sandbox.run_id for sandbox in sandboxes(play.live.state)] == ["played"]
