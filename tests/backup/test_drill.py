"""A drill proves a restore, and each thing that may be wrong with it turns it red."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pytest
from sqlalchemy import Engine, select

from include.backup import drill as module
from include.backup.drill import DrillTarget, drilled_points, remember
from include.backup.drill_report import past_drills
from include.backup.offsite_findings import CLAUSE
from include.backup.refusals import judge_refusals, prove_refusals
from include.backup.restore import Restored
from include.backup.source import Source
from include.encryption.recipients import OpeningKey, Recipient
from include.erasure import replay as replays
from include.erasure.ledger import ErasureKeys
from include.erasure.masks import Mask
from include.erasure.replay import Schedule
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
    return take(courier, store, recipients, signer, clocks=[SEEN])


@pytest.fixture
def rig(
    point: Taken,
    courier: DatabaseAddress,
    operations: Holder,
    server: DatabaseAddress,
    state: Engine,
) -> Iterator[Rig]:
    made = Rig(
        point.source(operations.opening),
        DrillTarget(server, Schedule({"c": Mask({"name": "erase"})})),
        server,
        courier,
        state,
    )
    content = rows(courier, "SELECT c.*, xmin::text FROM customer c")
    yield made
    assert made.scratch_left() == [], "a scratch database was left"
    assert rows(courier, "SELECT c.*, xmin::text FROM customer c") == content
    with state.connect() as conn:
        assert None not in list(conn.scalars(select(scratch_database.c.dropped_at)))


def codes(found: StepRecord) -> dict[str, Outcome]:
    return {one.code: one.severity for one in found.findings}


def harm(monkeypatch: pytest.MonkeyPatch, statements: str) -> None:
    """Change each copy as soon as it is restored."""
    real = module.restore

    def then_harmed(source: Source, target: DatabaseAddress, **more: object) -> Restored:
        restored = real(source, target, **more)  # type: ignore[arg-type]
        run(target, statements)
        return restored

    monkeypatch.setattr(module, "restore", then_harmed)


def test_a_good_restore_point_passes_with_its_figures(rig: Rig):
    """Everything compared, nothing found, measured against its targets."""
    found = rig.drill(latest=NOW - timedelta(hours=3))
    assert (found.outcome, found.findings) == (Outcome.PASS, [])
    assert found.data["rows"] == 18
    assert (found.data["tables"], found.data["compared"]) == (2, 2)
    assert found.data["dump_checked_by"] == "digest"  # a directory has no versions
    assert found.data["foreign_keys"] == 1
    assert found.data["remaining"] == found.data["replayed"] == found.data["erasures"] == 0
    assert datetime.fromisoformat(found.data["newest"]) == NOW - timedelta(hours=2)
    figures = {one.name: one for one in found.metrics}
    rto, rpo = figures["drill.rto_seconds"], figures["drill.rpo_seconds"]
    assert rto.value is not None
    assert rpo.value is not None
    assert 0 < rto.value < 60
    assert rto.target == 4 * 3600
    since = (SystemClock().now() - NOW).total_seconds()
    assert 3 * 3600 <= rpo.value <= 3 * 3600 + since
    assert rpo.target == 24 * 3600


def test_a_late_restore_fails(rig: Rig):
    """Against the database's own RTO."""
    found = rig.drill(mapped(rto=timedelta(milliseconds=1)))
    assert codes(found) == {"drill.late": Outcome.FAIL}
    assert found.outcome is Outcome.FAIL


def test_an_old_newest_restore_point_needs_attention(rig: Rig):
    """The age of the newest point counts, whichever was drilled."""
    assert codes(rig.drill(latest=NOW - timedelta(hours=25))) == {"drill.old": Outcome.ATTENTION}


def test_records_that_stopped_coming_fail(rig: Rig):
    """The newest is two hours old; a window of one hour is too narrow for it."""
    assert codes(rig.drill(window=1)) == {"drill.stale": Outcome.FAIL}
    assert codes(rig.drill(window=3)) == {}


def test_columns_that_the_backup_did_not_record_are_not_looked_at(rig: Rig):
    """An old restore point lacks a column that the data map has since; none at all is said so."""
    newer = [{"collection": "customer", "field": "added_later"}]
    assert rig.drill(mapped(newest=newer)).data["newest"] is None


def test_erased_records_go_again_and_are_counted(rig: Rig):
    """The copy brought two back; one that it never had is only an entry."""
    rig.erase("customer", "3", "77")
    rig.erase("waybill", "3")
    found = rig.drill()
    assert found.outcome is Outcome.PASS
    assert (found.data["erasures"], found.data["replayed"], found.data["remaining"]) == (3, 2, 0)


def test_masked_records_are_masked_again_and_counted(rig: Rig):
    """The copy held two in clear; a masking is an entry as a deletion is."""
    rig.erase("customer", "4", "5", "77", action="mask")
    found = rig.drill()
    assert found.outcome is Outcome.PASS
    assert (found.data["erasures"], found.data["remasked"], found.data["remaining"]) == (3, 2, 0)


@pytest.mark.parametrize("off", ["erase", "mask_again"])
def test_a_replay_that_does_nothing_fails(rig: Rig, monkeypatch: pytest.MonkeyPatch, off: str):
    """Deletions or maskings that are switched off are noticed by the look afterwards."""
    rig.erase("waybill", "3")
    rig.erase("customer", "4", action="mask")
    monkeypatch.setattr(replays, off, lambda *_: 0)
    found = rig.drill()
    assert codes(found).pop("drill.erased_present") is Outcome.FAIL
    assert found.data["remaining"] == 1
    assert found.data["holding"] == ({"public.waybill": 1} if off == "erase" else {})


def test_a_drill_erases_a_record_that_a_trigger_would_keep(rig: Rig):
    """The trigger of waybill 7 does not fire."""
    rig.erase("waybill", "7", "8")
    found = rig.drill()
    assert (found.outcome, found.data["replayed"], found.data["remaining"]) == ("pass", 2, 0)


def test_a_drill_fails_where_history_names_an_erased_record(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    """By relation and number of rows; the value is nowhere in the record."""
    rig.erase("customer", "3")
    rig.erase("waybill", "3")
    real = module.restore

    def with_history(source: Source, target: DatabaseAddress, **more: object) -> Restored:
        restored = real(source, target, **more)  # type: ignore[arg-type]  # as it was called
        run(target, "CREATE TABLE customer_history AS SELECT * FROM customer")
        return restored

    monkeypatch.setattr(module, "restore", with_history)
    found = rig.drill()
    assert codes(found)["drill.erased_key_present"] is Outcome.FAIL
    assert found.data["holding"] == {"public.customer_history": 1}
    (finding,) = [one for one in found.findings if one.code == "drill.erased_key_present"]
    assert "public.customer_history (1 rows)" in str(finding.message)
    assert finding.clause == "5.3"


def test_an_erased_record_that_others_need_stops_the_drill(rig: Rig):
    """The waybill was never erased; the scratch database is dropped all the same."""
    rig.erase("customer", "3")
    with pytest.raises(ControlFailed, match="waybill still refers to them"):
        rig.drill()


def test_another_count_than_the_manifests_fails(rig: Rig):
    """A manifest that says more rows than came."""
    manifest = rig.source.manifest
    tables = tuple(
        one.model_copy(update={"rows": one.rows + (one.name == "waybill")})
        for one in manifest.tables
    )
    found = rig.drill(manifest=manifest.model_copy(update={"tables": tables}))
    assert codes(found) == {"drill.rows": Outcome.FAIL}
    assert "public.waybill" in str(found.findings[0].message)


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
def test_a_copy_that_is_not_the_original_fails(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, statements: str, expected: dict[str, Outcome]
):
    """The copy is changed behind the restore's back; the right finding notices."""
    harm(monkeypatch, statements)
    found = rig.drill()
    assert codes(found) == expected
    assert found.outcome is Outcome.worst(list(expected.values()))


def test_erased_records_of_a_renamed_table_fail_the_drill(rig: Rig):
    """The data map has the name of today, the restore point the old one: nobody looked there."""
    rig.erase("waybill", "3")
    collections = dict(mapped().collections)
    collections["waybill"] = collections["waybill"].model_copy(update={"table": "shipment"})
    found = rig.drill(mapped(collections=collections))
    assert codes(found)["drill.erased_not_looked_for"] is Outcome.FAIL
    assert found.data["not_looked_for"] == 1
    (one,) = [one for one in found.findings if one.code == "drill.erased_not_looked_for"]
    assert one.clause == "5.3"


@pytest.mark.parametrize("what", ["key", "role", "erasure key", "lost"])
def test_a_drill_that_cannot_be_done_leaves_nothing(
    rig: Rig, stranger: OpeningKey, new_database: Callable[..., DatabaseAddress], what: str
):
    """A wrong key, a role that may not create databases, a lost erasure key, an object gone."""
    wanted: type[Exception] = ControlFailed
    if what == "key":
        rig.source = replace(rig.source, key=stranger)
    elif what == "role":
        wanted = UsageError
        run(rig.server, "DROP ROLE IF EXISTS no_creator; CREATE ROLE no_creator LOGIN PASSWORD 'x'")
        parameters = {**rig.server.parameters, "user": "no_creator"}
        rig.target = replace(rig.target, server=DatabaseAddress(parameters, "x"))
    elif what == "erasure key":
        wanted = UsageError
        rig.erase("customer", "1")
        rig.erasure_keys = ErasureKeys({"9": b"z" * 32}, "9")
    else:
        dump = rig.source.manifest.dump.model_copy(update={"key": "courier/lost/x"})
        rig.source = replace(
            rig.source, manifest=rig.source.manifest.model_copy(update={"dump": dump})
        )
    with pytest.raises(wanted):
        rig.drill()
    if what == "role":
        with rig.state.begin() as conn:
            conn.execute(scratch_database.delete())
        run(rig.server, "DROP ROLE no_creator")


def refusals(source: Source) -> StepRecord:
    findings = StepFindings("refusals", CLAUSE, "courier")
    return findings.record(judge_refusals(source, NOW, findings))


def test_damage_and_a_wrong_key_are_refused(rig: Rig):
    """Each variant by itself, and an undamaged one would have passed."""
    found = refusals(rig.source)
    assert found.outcome is Outcome.PASS
    assert found.data["refused"] == ["flipped_byte", "truncated", "wrong_key"]
    assert found.metrics[0].value == found.metrics[0].target == 3


def test_a_restore_that_accepts_damage_fails(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    """If decryption let everything through, the proof must say so."""
    monkeypatch.setattr("include.backup.refusals.decrypting", lambda source, *_: source)
    proofs = prove_refusals(rig.source, NOW)
    assert [*proofs.values()] == [False, False, False]
    found = refusals(rig.source)
    assert codes(found) == {"drill.accepted": Outcome.FAIL}
    assert len(found.findings) == 3


def test_drills_are_remembered_for_the_trend_and_the_next_choice(state: Engine):
    """A failed one does not count as drilled; the same run again replaces its entry."""

    def entered(run_id: str, point: str, outcome: Outcome, day: int, part: str = "courier") -> None:
        services = services_stub({}, state, FixedClock(NOW - timedelta(days=day)))
        remember(RunContext(services, None, Run("drill_restore", run_id)), part, point, outcome)

    entered("r1", "good", Outcome.PASS, 3)
    entered("r2", "odd", Outcome.ATTENTION, 2)
    entered("r3", "bad", Outcome.FAIL, 1)
    entered("r1", "other", Outcome.PASS, 1, part="billing")
    assert drilled_points(state, "courier") == {"good", "odd"}
    assert [one.outcome for one in past_drills(state, "courier")] == ["pass", "attention", "fail"]
    entered("r3", "bad", Outcome.PASS, 1)
    assert drilled_points(state, "courier") == {"good", "odd", "bad"}
    assert len(past_drills(state, "courier")) == 3


@dataclass
class HandClock:
    """Moves only when it is told to."""

    moment: datetime
    source: str = "by hand"

    def now(self) -> datetime:
        return self.moment


def test_the_rto_counts_loading_and_erasing_but_not_comparing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    """Until people could work with the copy: ten minutes to load, one to erase again."""
    clock = HandClock(NOW)

    def taking(minutes: int, name: str) -> None:
        real = getattr(module, name)

        def slow(*given: object, **named: object) -> object:
            clock.moment += timedelta(minutes=minutes)
            return real(*given, **named)

        monkeypatch.setattr(module, name, slow)

    for minutes, name in ((10, "restore"), (100, "compare"), (1, "replay")):
        taking(minutes, name)
    latest = NOW - timedelta(hours=1)
    found = rig.drill(mapped(rto=timedelta(minutes=11)), latest=latest, clock=clock)
    figures = {one.name: one.value for one in found.metrics}
    assert figures == {"drill.rto_seconds": 660, "drill.rpo_seconds": 3600}
    assert found.findings == []
