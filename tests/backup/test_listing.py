"""Test listing and reading restore points while runs publish and remove them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine

from include.backup.drill import DRILL, Choice
from include.backup.drill_report import past_drills
from include.backup.listing import (
    PointRemoved,
    listed_points,
    raising_point_removed,
    stored_restore_points,
)
from include.backup.manifest import (
    MANIFEST_NAME,
    SIGNATURE_NAME,
    load,
    remove,
    restore_points,
)
from include.backup.operations import Ending, Operation, end_operations, operations_reader
from include.backup.point_folder import ManifestRefused, folder
from include.backup.refusals import REFUSALS
from include.cli import backup as commands
from include.encryption.recipients import Recipient
from include.evidence.model import Outcome, StepRecord
from include.evidence.signing import Signer
from include.evidence.step_findings import record_step
from include.notify.outbox import Run
from include.services.clock import SystemClock
from include.services.errors import ParcelSealError
from include.services.objectstore.base import ObjectStore
from include.services.objectstore.directory import DirectoryStore
from include.services.objectstore.s3 import S3Store
from include.workflow.run_context import RunContext
from tests.backup.offsite_support import RULES, make, publish, run_prune
from tests.backup.support import Taken, begin, mapped
from tests.backup.test_copied_store import same_size
from tests.backup.test_versions import Locked, locked
from tests.support.contexts import offsite_services, services_stub, step_record
from tests.support.holders import NOW, Holder
from tests.support.s3 import MotoServer, client_for, new_bucket

__all__ = ["locked"]  # a fixture


def begin_removal(state: Engine, store: ObjectStore, point: str) -> None:
    """Record the start of a removal, and delete the signature, which a removal deletes first."""
    begin(state, store, point, Operation.REMOVE)
    store.delete(f"courier/{point}/{SIGNATURE_NAME}")


def complete_removal(state: Engine, store: ObjectStore, point: str) -> None:
    begin(state, store, point, Operation.REMOVE)
    remove(store, folder("courier", point), NOW)
    end_operations(state, "courier", [point], Ending.REMOVED, NOW)


@pytest.mark.parametrize("removal", [begin_removal, complete_removal])
def test_listing_does_not_reject_restore_point_that_is_being_pruned(
    any_store: ObjectStore,
    taken: Taken,
    signer: Signer,
    state: Engine,
    removal: Callable[[Engine, ObjectStore, str], None],
) -> None:
    """The ledger is read before the removal begins, and the folder is listed after it."""
    point = publish(any_store, taken, signer, 1)
    trusted = [signer.public_pem]
    read_ledger = operations_reader(state, "courier", any_store)
    before = read_ledger()
    reads = []

    def read_operations() -> Any:
        """Return the entries of the ledger. After the first call, begin the removal."""
        if not reads:
            reads.append(before)
            any_store.delete(f"courier/{point}/{SIGNATURE_NAME}")
            return before
        removal(state, any_store, point)
        return read_ledger()

    assert listed_points(any_store, "courier", trusted, read_operations) == ([], [])


def test_listing_rejects_unsigned_restore_point_if_no_removal_is_recorded(
    any_store: ObjectStore, taken: Taken, signer: Signer, state: Engine
) -> None:
    point = publish(any_store, taken, signer, 1)
    any_store.delete(f"courier/{point}/{SIGNATURE_NAME}")
    read_operations = operations_reader(state, "courier", any_store)
    points, (refusal,) = listed_points(any_store, "courier", [signer.public_pem], read_operations)
    assert (points, refusal.point) == ([], point)


def test_restore_point_of_running_backup_is_not_rejected(
    any_store: ObjectStore,
    taken: Taken,
    signer: Signer,
    state: Engine,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The backup has stored the manifest, but not the signature yet."""
    from plugins.compliance_ui.restore_points import _read_points

    point = publish(any_store, taken, signer, 1)
    any_store.put(f"courier/begun/{MANIFEST_NAME}", b"{}")
    begin(state, any_store, "begun")
    services: Any = SimpleNamespace(
        state=state,
        trusted_for_manifests=[signer.public_pem],
        store=lambda _name: any_store,
        is_local=lambda _name: True,
        pack=SimpleNamespace(databases={"courier": None}),
    )
    copies = stored_restore_points(services, "courier")
    assert [each.id for each in copies] == [point]
    assert commands._choose(services, "courier", "latest").id == point
    assert "refused" not in capsys.readouterr().err
    complete_removal(state, any_store, point)
    with pytest.raises(PointRemoved):
        commands._choose(services, "courier", point)
    left = publish(any_store, taken, signer, 2)
    page_services: Any = SimpleNamespace(
        core=services, pack=services.pack, store=services.store, reader=state, now=lambda: NOW
    )
    (shown,) = _read_points(page_services)
    assert ([each.id for each in shown.points], shown.rejected) == ([left], [])


def test_reading_pruned_restore_point_raises_point_removed(
    any_store: ObjectStore, taken: Taken, signer: Signer, state: Engine, operations: Holder
) -> None:
    """If no removal is recorded, the original error is raised."""
    point = publish(any_store, taken, signer, 1)
    manifest = load(any_store, "courier", point, [signer.public_pem]).manifest
    remove(any_store, folder("courier", point), NOW)
    read_operations = operations_reader(state, "courier", any_store)
    source = Taken(any_store, manifest).source(operations.opening)

    def check() -> None:
        with raising_point_removed(any_store, "courier", point, read_operations):
            source.check()

    def open_point() -> None:
        with raising_point_removed(any_store, "courier", point, read_operations):
            load(any_store, "courier", point, [signer.public_pem])

    for read in (check, open_point):
        with pytest.raises(ParcelSealError) as error:
            read()
        assert not isinstance(error.value, PointRemoved)
    begin(state, any_store, point, Operation.REMOVE)
    for read in (check, open_point):
        with pytest.raises(PointRemoved, match="was pruned"):
            read()
    end_operations(state, "courier", [point], Ending.REMOVED, NOW)
    with pytest.raises(PointRemoved, match="was pruned"):
        check()


def begin_without_deleting(state: Engine, store: ObjectStore, point: str) -> None:
    begin(state, store, point, Operation.REMOVE)


def end_without_deleting(state: Engine, store: ObjectStore, point: str) -> None:
    """Record a complete removal, but delete nothing, as in an older replica of the store."""
    begin(state, store, point, Operation.REMOVE)
    end_operations(state, "courier", [point], Ending.REMOVED, NOW)


def bring_back_without_signature(state: Engine, store: ObjectStore, point: str) -> None:
    end_without_deleting(state, store, point)
    store.delete(f"courier/{point}/{SIGNATURE_NAME}")


@pytest.mark.parametrize(
    "removal", [begin_without_deleting, end_without_deleting, bring_back_without_signature]
)
def test_reading_changed_restore_point_raises_another_error_than_point_removed(
    any_store: ObjectStore,
    taken: Taken,
    signer: Signer,
    state: Engine,
    operations: Holder,
    removal: Callable[[Engine, ObjectStore, str], None],
) -> None:
    """A removal is recorded in the ledger, but another program changed the dump."""
    point = publish(any_store, taken, signer, 1)  # its dump differs from the manifest
    manifest = load(any_store, "courier", point, [signer.public_pem]).manifest
    source = Taken(any_store, manifest).source(operations.opening)
    removal(state, any_store, point)
    read_operations = operations_reader(state, "courier", any_store)
    with (
        pytest.raises(ParcelSealError) as error,
        raising_point_removed(any_store, "courier", point, read_operations),
    ):
        source.check()
    assert not isinstance(error.value, PointRemoved)


def test_refused_pruning_of_locked_restore_point_is_not_recorded_as_unfinished_removal(
    store: DirectoryStore,
    taken: Taken,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
) -> None:
    """Otherwise, an intruder could later delete the signature, and this would look like pruning."""
    for day in (1, 2, 3, 120):
        publish(store, taken, signer, day)
    store.lock(f"courier/p120/{MANIFEST_NAME}", NOW + timedelta(days=400))
    assert run_prune(make(store, recipients, signer), state, NOW).data["refused"] == ["p120"]
    read_operations = operations_reader(state, "courier", store)
    assert (read_operations().removed, read_operations().unfinished) == (set(), set())
    store.delete(f"courier/p120/{SIGNATURE_NAME}")
    with (
        pytest.raises(ManifestRefused, match="it is missing"),
        raising_point_removed(store, "courier", "p120", read_operations),
    ):
        load(store, "courier", "p120", [signer.public_pem])


def test_restore_drill_of_pruned_restore_point_raises_point_removed_error_and_stores_no_result(
    any_store: ObjectStore,
    taken: Taken,
    signer: Signer,
    state: Engine,
    operations: Holder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The run fails and names the reason. The trend and the choice of later drills ignore it."""
    point = publish(any_store, taken, signer, 1)
    run = ("drill_restore", "r1")
    data = Choice(restore_point=point, of=1, latest_taken_at=NOW).as_json()
    choice = StepRecord(step="choose", part="courier", outcome=Outcome.PASS, data=data)
    with state.begin() as conn:
        record_step(conn, *run, choice, SystemClock())
    services = services_stub(
        {"courier": mapped()}, state, SystemClock(), rules=RULES,
        drill_key=lambda: operations.opening, **offsite_services(make(any_store, [], signer)),
    )  # fmt: skip
    context = RunContext(services, None, Run(*run))
    complete_removal(state, any_store, point)
    for step in (REFUSALS, DRILL):
        with pytest.raises(PointRemoved, match="This is not tampering"):
            step_record(step, context, "courier")
    assert past_drills(state, "courier") == []


def copy_of(locked: Locked, moto: MotoServer) -> S3Store:
    client = client_for(moto.endpoint)
    store = S3Store(client, new_bucket(client))
    for each in locked.store.list():
        store.put(each.key, locked.store.get(each.key))
    return store


def test_listing_rejects_dump_if_its_original_store_lacks_the_recorded_object_version(
    locked: Locked, moto: MotoServer, state: Engine
) -> None:
    """A dump with another version id counts as a copy only in other stores."""
    store = copy_of(locked, moto)
    read_operations = operations_reader(state, "courier", store)
    (point,), rejected = listed_points(store, "courier", locked.trusted, read_operations)
    assert (point.is_copy, rejected) == (True, [])
    begin(state, store, point.id)
    end_operations(state, "courier", [point.id], Ending.PUBLISHED, NOW)
    points, (refusal,) = listed_points(store, "courier", locked.trusted, read_operations)
    assert (points, refusal.key) == ([], locked.manifest.dump.key)
    assert "another version of its dump" in refusal.reason


def test_pruning_reports_copied_restore_point_and_does_not_count_it_to_the_minimum_number(
    locked: Locked,
    moto: MotoServer,
    taken: Taken,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
) -> None:
    """Otherwise, a copy that was not verified would count towards the minimum of restore points."""
    store = copy_of(locked, moto)
    dump = locked.manifest.dump.key
    store.put(dump, same_size(store.get(dump)))  # a forgery that its size does not show
    for day in (95, 96, 97):  # expired: only the floor of three keeps them
        publish(store, taken, signer, day)
    record = run_prune(make(store, recipients, signer), state, NOW)
    assert record.data["copies"] == [locked.manifest.id]
    (finding,) = record.findings
    assert (finding.code, finding.severity) == ("backup.copy.unchecked", Outcome.ATTENTION)
    assert {each for each, why in record.data["kept"].items() if why == "floor"} >= {
        "p095", "p096", "p097"
    }  # fmt: skip
    points, _rejected = restore_points(store, "courier", [signer.public_pem])
    assert len(points) == 4
