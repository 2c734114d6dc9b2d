"""Test that a restore drill fails for each defect of the restore point or the restored copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, select

from include.backup import drill as module
from include.backup.drill import DrillTarget, drilled_points, record_drill
from include.backup.drill_report import past_drills
from include.backup.offsite_findings import CLAUSE
from include.backup.refusals import judge_refusals, prove_refusals
from include.backup.restore import Restored
from include.backup.source import Source
from include.encryption.recipients import OpeningKey, Recipient
from include.erasure import replay as replays
from include.erasure.ledger import ErasureKeys
from include.erasure.masks import Mask
from include.erasure.replay import ReplayRules
from include.evidence.model import Outcome, StepRecord
from include.evidence.signing import Signer
from include.evidence.step_findings import StepFindings
from include.notify.outbox import Run
from include.services.clock import FixedClock, SystemClock
from include.services.database import DatabaseAddress
from include.services.errors import ControlFailed, UsageError
from include.services.objectstore.directory import DirectoryStore
from include.state.tables import scratch_database
from include.workflow.run_context import RunContext
from tests.backup.drill_rig import Rig
from tests.backup.support import SEEN, Taken, mapped, rows, run, take
from tests.support.contexts import services_stub
from tests.support.holders import NOW, Holder

COURIER = f"""
CREATE TABLE customer (id int PRIMARY KEY, name text, seen timestamptz);
CREATE TABLE waybill (id int PRIMARY KEY, customer int CONSTRAINT sent_by REFERENCES customer);
INSERT INTO customer SELECT n, 'name ' || n, '{NOW - timedelta(hours=2)}'
FROM generate_series(1, 9) n;
INSERT INTO waybill SELECT n, n FROM generate_series(1, 9) n;
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN IF OLD.id = 7 THEN RETURN NULL; END IF; RETURN OLD; END';
CREATE TRIGGER keep BEFORE DELETE ON waybill FOR EACH ROW EXECUTE FUNCTION keep();
SELECT lo_from_bytea(55, 'x');
"""


@pytest.fixture(scope="module")
def courier(new_database: Callable[..., DatabaseAddress]) -> DatabaseAddress:
    return new_database(COURIER)


@pytest.fixture(scope="module")
def point(
    courier: DatabaseAddress,
    tmp_path_factory: pytest.TempPathFactory,
    recipients: list[Recipient],
    signer: Signer,
) -> Taken:
    store = DirectoryStore(tmp_path_factory.mktemp("drill"))
    return take(courier, store, recipients, signer, columns=[SEEN])


@pytest.fixture
def rig(
    point: Taken,
    courier: DatabaseAddress,
    operations: Holder,
    server: DatabaseAddress,
    state: Engine,
) -> Iterator[Rig]:
    rig = Rig(
        point.source(operations.opening),
        DrillTarget(server, ReplayRules({"c": Mask({"name": "erase"})})),
        server,
        courier,
        state,
    )
    content = rows(courier, "SELECT c.*, xmin::text FROM customer c")
    yield rig
    assert rig.scratch_left() == [], "a scratch database was left"
    assert rows(courier, "SELECT c.*, xmin::text FROM customer c") == content
    with state.connect() as conn:
        assert None not in list(conn.scalars(select(scratch_database.c.dropped_at)))


def codes(record: StepRecord) -> dict[str, Outcome]:
    return {finding.code: finding.severity for finding in record.findings}


def harm(monkeypatch: pytest.MonkeyPatch, statements: str) -> None:
    """Change each restored copy with the given statements as soon as it is restored."""
    real = module.restore

    def then_harmed(source: Source, target: DatabaseAddress, **more: object) -> Restored:
        restored = real(source, target, **more)  # type: ignore[arg-type]
        run(target, statements)
        return restored

    monkeypatch.setattr(module, "restore", then_harmed)


def test_drill_of_valid_restore_point_passes_and_measures_restore_time_and_age_of_newest_record(
    rig: Rig,
):
    record = rig.drill(latest=NOW - timedelta(hours=3))
    assert (record.outcome, record.findings) == (Outcome.PASS, [])
    assert record.data["rows"] == 18
    assert (record.data["tables"], record.data["compared"]) == (2, 2)
    assert record.data["dump_checked_by"] == "digest"  # a directory has no versions
    assert record.data["foreign_keys"] == 1
    assert record.data["remaining"] == record.data["replayed"] == record.data["erasures"] == 0
    assert datetime.fromisoformat(record.data["newest"]) == NOW - timedelta(hours=2)
    figures = {metric.name: metric for metric in record.metrics}
    rto, rpo = figures["drill.rto_seconds"], figures["drill.rpo_seconds"]
    assert rto.value is not None
    assert rpo.value is not None
    assert 0 < rto.value < 60
    assert rto.target == 4 * 3600
    since = (SystemClock().now() - NOW).total_seconds()
    assert 3 * 3600 <= rpo.value <= 3 * 3600 + since
    assert rpo.target == 24 * 3600


def test_drill_fails_if_restore_exceeds_rto(rig: Rig):
    """The data map defines the RTO of the database."""
    record = rig.drill(mapped(rto=timedelta(milliseconds=1)))
    assert codes(record) == {"drill.late": Outcome.FAIL}
    assert record.outcome is Outcome.FAIL


def test_restore_drill_needs_attention_if_newest_restore_point_is_older_than_rpo(rig: Rig):
    """The age of the newest restore point decides, even if another restore point is restored."""
    assert codes(rig.drill(latest=NOW - timedelta(hours=25))) == {"drill.old": Outcome.ATTENTION}


def test_restore_drill_fails_if_newest_restored_record_is_older_than_the_allowed_age(rig: Rig):
    """The newest record is two hours old, and the window is one hour."""
    assert codes(rig.drill(window=1)) == {"drill.stale": Outcome.FAIL}
    assert codes(rig.drill(window=3)) == {}


def test_restore_drill_reports_no_newest_record_if_backup_lacks_the_time_column(rig: Rig):
    """An old restore point may lack columns that the data map now names."""
    newer = [{"collection": "customer", "field": "added_later"}]
    assert rig.drill(mapped(newest=newer)).data["newest"] is None


def test_restore_drill_deletes_erased_records_again_and_counts_them(rig: Rig):
    """The copy contains two erased records. The third ledger entry matches no record."""
    rig.erase("customer", "3", "77")
    rig.erase("waybill", "3")
    record = rig.drill()
    assert record.outcome is Outcome.PASS
    assert (record.data["erasures"], record.data["replayed"], record.data["remaining"]) == (3, 2, 0)


def test_restore_drill_masks_erased_records_again_and_counts_them(rig: Rig):
    """The copy contains two masked records with their original values."""
    rig.erase("customer", "4", "5", "77", action="mask")
    record = rig.drill()
    assert record.outcome is Outcome.PASS
    assert (record.data["erasures"], record.data["remasked"], record.data["remaining"]) == (3, 2, 0)


@pytest.mark.parametrize("off", ["erase_staged", "mask_again"])
def test_restore_drill_fails_if_erased_records_remain_after_replay_of_erasures(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, off: str
):
    """A search after the replay detects that no record was deleted or masked."""
    rig.erase("waybill", "3")
    rig.erase("customer", "4", action="mask")
    monkeypatch.setattr(replays, off, lambda *_: 0)
    record = rig.drill()
    assert codes(record).pop("drill.erased_present") is Outcome.FAIL
    assert record.data["remaining"] == 1
    assert record.data["holding"] == ({"public.waybill": 1} if off == "erase_staged" else {})


def test_restore_drill_deletes_erased_record_although_a_trigger_forbids_its_deletion(rig: Rig):
    """The trigger that protects waybill 7 does not fire."""
    rig.erase("waybill", "7", "8")
    record = rig.drill()
    assert (record.outcome, record.data["replayed"], record.data["remaining"]) == ("pass", 2, 0)


def test_drill_fails_if_history_table_contains_key_of_erased_record(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    """The finding names the relation and the number of rows, never a value."""
    rig.erase("customer", "3")
    rig.erase("waybill", "3")
    real = module.restore

    def with_history(source: Source, target: DatabaseAddress, **more: object) -> Restored:
        restored = real(source, target, **more)  # type: ignore[arg-type]  # as it was called
        run(target, "CREATE TABLE customer_history AS SELECT * FROM customer")
        return restored

    monkeypatch.setattr(module, "restore", with_history)
    record = rig.drill()
    assert codes(record)["drill.erased_key_present"] is Outcome.FAIL
    assert record.data["holding"] == {"public.customer_history": 1}
    (finding,) = [
        finding for finding in record.findings if finding.code == "drill.erased_key_present"
    ]
    assert "public.customer_history (1 rows)" in str(finding.message)
    assert finding.clause == "5.3"


def test_restore_drill_raises_control_failed_error_if_another_record_references_an_erased_record(
    rig: Rig,
):
    """A waybill that was never erased refers to the record.

    The drill fails, but it still drops the scratch database.
    """
    rig.erase("customer", "3")
    with pytest.raises(ControlFailed, match="waybill still refers to them"):
        rig.drill()


def test_drill_fails_if_row_count_differs_from_manifest(rig: Rig):
    manifest = rig.source.manifest
    tables = tuple(
        table.model_copy(update={"rows": table.rows + (table.name == "waybill")})
        for table in manifest.tables
    )
    record = rig.drill(manifest=manifest.model_copy(update={"tables": tables}))
    assert codes(record) == {"drill.rows": Outcome.FAIL}
    assert "public.waybill" in str(record.findings[0].message)


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        ("UPDATE customer SET name = 'x' WHERE id = 1", {"drill.content": Outcome.FAIL}),
        ("SELECT lo_put(55, 0, 'y')", {"drill.content": Outcome.FAIL}),
        ("DELETE FROM waybill WHERE id = 1", {"drill.content": Outcome.FAIL}),
        ("CREATE INDEX added ON customer (name)", {"drill.schema": Outcome.ATTENTION}),
        ("SET session_replication_role = replica; DELETE FROM customer WHERE id = 1",
         {"drill.content": Outcome.FAIL, "drill.foreign_key": Outcome.FAIL}),
        ("DROP TABLE waybill", {"drill.rows": Outcome.FAIL, "drill.schema": Outcome.ATTENTION}),
        pytest.param(
            f"UPDATE customer SET seen = '{NOW + timedelta(hours=27)}'",
            {"drill.content": Outcome.FAIL, "drill.future": Outcome.ATTENTION},
            id="in the future",
        ),
        ("UPDATE customer SET seen = NULL",
         {"drill.content": Outcome.FAIL, "drill.stale": Outcome.FAIL}),
    ],
)  # fmt: skip
def test_restore_drill_has_a_finding_for_each_difference_between_copy_and_original(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, statements: str, expected: dict[str, Outcome]
):
    """The test changes the copy after the restore, and a finding reports each change."""
    harm(monkeypatch, statements)
    record = rig.drill()
    assert codes(record) == expected
    assert record.outcome is Outcome.worst(list(expected.values()))


def test_restore_drill_fails_if_it_cannot_search_erased_records_in_a_renamed_table(rig: Rig):
    """The restore point has the old table name, so erased records cannot be searched for."""
    rig.erase("waybill", "3")
    collections = dict(mapped().collections)
    collections["waybill"] = collections["waybill"].model_copy(update={"table": "shipment"})
    record = rig.drill(mapped(collections=collections))
    assert codes(record)["drill.erased_not_looked_for"] is Outcome.FAIL
    assert record.data["not_looked_for"] == 1
    (finding,) = [
        finding for finding in record.findings if finding.code == "drill.erased_not_looked_for"
    ]
    assert finding.clause == "5.3"


@pytest.mark.parametrize("fault", ["key", "role", "erasure key", "lost"])
def test_failed_restore_drill_leaves_no_scratch_database(
    rig: Rig, stranger: OpeningKey, new_database: Callable[..., DatabaseAddress], fault: str
):
    """Cases: wrong key, role without CREATEDB, lost erasure key, missing object."""
    expected_error: type[Exception] = ControlFailed
    if fault == "key":
        rig.source = replace(rig.source, key=stranger)
    elif fault == "role":
        expected_error = UsageError
        run(rig.server, "DROP ROLE IF EXISTS no_creator; CREATE ROLE no_creator LOGIN PASSWORD 'x'")
        parameters = {**rig.server.parameters, "user": "no_creator"}
        rig.target = replace(rig.target, server=DatabaseAddress(parameters, "x"))
    elif fault == "erasure key":
        expected_error = UsageError
        rig.erase("customer", "1")
        rig.erasure_keys = ErasureKeys({"9": b"z" * 32}, "9")
    else:
        dump = rig.source.manifest.dump.model_copy(update={"key": "courier/lost/x"})
        rig.source = replace(
            rig.source, manifest=rig.source.manifest.model_copy(update={"dump": dump})
        )
    with pytest.raises(expected_error):
        rig.drill()
    if fault == "role":
        with rig.state.begin() as conn:
            conn.execute(scratch_database.delete())
        run(rig.server, "DROP ROLE no_creator")


def refusals(source: Source) -> StepRecord:
    findings = StepFindings("refusals", CLAUSE, "courier")
    return findings.record(judge_refusals(source, NOW, findings))


def test_refusals_step_passes_if_decryption_refuses_each_damaged_variant_of_the_dump(rig: Rig):
    """The undamaged object can be decrypted."""
    record = refusals(rig.source)
    assert record.outcome is Outcome.PASS
    assert record.data["refused"] == ["flipped_byte", "truncated", "wrong_key"]
    assert record.metrics[0].value == record.metrics[0].target == 3


def test_refusals_step_fails_if_decryption_accepts_damaged_dumps(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    """The test replaces the decryption with a function that accepts all bytes."""
    monkeypatch.setattr("include.backup.refusals.decrypting", lambda source, *_: source)
    proofs = prove_refusals(rig.source, NOW)
    assert [*proofs.values()] == [False, False, False]
    record = refusals(rig.source)
    assert codes(record) == {"drill.accepted": Outcome.FAIL}
    assert len(record.findings) == 3


def test_drill_results_are_stored_for_trend_and_choice_of_next_restore_point(state: Engine):
    """The restore point of a failed drill can be chosen again.

    A repeated run replaces its result.
    """

    def entered(run_id: str, point: str, outcome: Outcome, day: int, part: str = "courier") -> None:
        services = services_stub({}, state, FixedClock(NOW - timedelta(days=day)))
        record_drill(RunContext(services, None, Run("drill_restore", run_id)), part, point, outcome)

    entered("r1", "good", Outcome.PASS, 3)
    entered("r2", "odd", Outcome.ATTENTION, 2)
    entered("r3", "bad", Outcome.FAIL, 1)
    entered("r1", "other", Outcome.PASS, 1, part="billing")
    assert drilled_points(state, "courier") == {"good", "odd"}
    assert [drill.outcome for drill in past_drills(state, "courier")] == [
        "pass",
        "attention",
        "fail",
    ]
    entered("r3", "bad", Outcome.PASS, 1)
    assert drilled_points(state, "courier") == {"good", "odd", "bad"}
    assert len(past_drills(state, "courier")) == 3


@dataclass
class HandClock:
    """A clock that only the test advances."""

    moment: datetime
    source: str = "by hand"

    def now(self) -> datetime:
        return self.moment


def test_measured_restore_time_includes_load_and_replay_but_not_comparison(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    """The load takes ten minutes, and the replay of erasures takes one minute."""
    clock = HandClock(NOW)

    def taking(minutes: int, name: str) -> None:
        real = getattr(module, name)

        def slow(*args: object, **kwargs: object) -> object:
            clock.moment += timedelta(minutes=minutes)
            return real(*args, **kwargs)

        monkeypatch.setattr(module, name, slow)

    for minutes, name in ((10, "restore"), (100, "compare"), (1, "replay")):
        taking(minutes, name)
    latest = NOW - timedelta(hours=1)
    record = rig.drill(mapped(rto=timedelta(minutes=11)), latest=latest, clock=clock)
    figures = {metric.name: metric.value for metric in record.metrics}
    assert figures == {"drill.rto_seconds": 660, "drill.rpo_seconds": 3600}
    assert record.findings == []
