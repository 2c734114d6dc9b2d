"""Listings and readers of restore points beside the runs that publish and remove them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine

from include.backup import listing
from include.backup.drill import DRILL, Choice
from include.backup.drill_report import past_drills
from include.backup.listing import (
    Ending,
    PointRemoved,
    Work,
    listed_points,
    naming_removals,
    stored_restore_points,
    work_reader,
)
from include.backup.manifest import (
    MANIFEST_NAME,
    SIGNATURE_NAME,
    load,
    remove,
    restore_points,
)
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
    """Record a removal, and remove the signature, which goes first."""
    begin(state, store, point, Work.REMOVE)
    store.delete(f"courier/{point}/{SIGNATURE_NAME}")


def complete_removal(state: Engine, store: ObjectStore, point: str) -> None:
    begin(state, store, point, Work.REMOVE)
    remove(store, folder("courier", point), NOW)
    listing.end_work(state, "courier", [point], Ending.REMOVED, NOW)


@pytest.mark.parametrize("removal", [begin_removal, complete_removal])
def test_listing_does_not_refuse_a_point_that_is_pruned_meanwhile(
    any_store: ObjectStore,
    taken: Taken,
    signer: Signer,
    state: Engine,
    removal: Callable[[Engine, ObjectStore, str], None],
) -> None:
    """The listing read the ledger before, and saw a folder without its signature after."""
    point = publish(any_store, taken, signer, 1)
    trusted = [signer.public_pem]
    work = work_reader(state, "courier", any_store)
    before = work()
    reads = []

    def read_work() -> Any:
        """Return the ledger as it was; the second time, as it is after a removal began."""
        if not reads:
            reads.append(before)
            any_store.delete(f"courier/{point}/{SIGNATURE_NAME}")
            return before
        removal(state, any_store, point)
        return work()

    assert listed_points(any_store, "courier", trusted, read_work) == ([], [])


def test_listing_refuses_a_point_without_signature_that_no_run_removes(
    any_store: ObjectStore, taken: Taken, signer: Signer, state: Engine
) -> None:
    point = publish(any_store, taken, signer, 1)
    any_store.delete(f"courier/{point}/{SIGNATURE_NAME}")
    work = work_reader(state, "courier", any_store)
    points, (refusal,) = listed_points(any_store, "courier", [signer.public_pem], work)
    assert (points, refusal.point) == ([], point)


def test_retention_and_restore_do_not_reject_a_point_of_a_backup_at_work(
    any_store: ObjectStore,
    taken: Taken,
    signer: Signer,
    state: Engine,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The backup has stored the manifest, but not the signature yet."""
    from plugins.compliance_ui.restore_points import _read

    point = publish(any_store, taken, signer, 1)
    any_store.put(f"courier/begun/{MANIFEST_NAME}", b"{}")
    begin(state, any_store, "begun")
    place: Any = SimpleNamespace(
        state=state,
        trusted_for_manifests=[signer.public_pem],
        store=lambda _name: any_store,
        is_local=lambda _name: True,
        pack=SimpleNamespace(databases={"courier": None}),
    )
    copies = stored_restore_points(place, "courier")
    assert [each.id for each in copies] == [point]
    assert commands._choose(place, "courier", "latest").id == point
    assert "refused" not in capsys.readouterr().err
    complete_removal(state, any_store, point)
    with pytest.raises(PointRemoved):
        commands._choose(place, "courier", point)
    left = publish(any_store, taken, signer, 2)
    here: Any = SimpleNamespace(place=place, store=place.store, reader=state, now=lambda: NOW)
    (shown,) = _read(here)
    assert ([each.id for each in shown.points], shown.rejected) == ([left], [])


def test_reader_of_a_pruned_point_names_the_pruning(
    any_store: ObjectStore, taken: Taken, signer: Signer, state: Engine, operations: Holder
) -> None:
    """Without a record of a removal, the error stays as it was."""
    point = publish(any_store, taken, signer, 1)
    manifest = load(any_store, "courier", point, [signer.public_pem]).manifest
    remove(any_store, folder("courier", point), NOW)
    work = work_reader(state, "courier", any_store)
    source = Taken(any_store, manifest).source(operations.opening)

    def check() -> None:
        with naming_removals(any_store, "courier", point, work):
            source.check()

    def open_point() -> None:
        with naming_removals(any_store, "courier", point, work):
            load(any_store, "courier", point, [signer.public_pem])

    for read in (check, open_point):
        with pytest.raises(ParcelSealError) as error:
            read()
        assert not isinstance(error.value, PointRemoved)
    begin(state, any_store, point, Work.REMOVE)
    for read in (check, open_point):
        with pytest.raises(PointRemoved, match="was pruned"):
            read()
    listing.end_work(state, "courier", [point], Ending.REMOVED, NOW)
    with pytest.raises(PointRemoved, match="was pruned"):
        check()


def begin_without_deleting(state: Engine, store: ObjectStore, point: str) -> None:
    begin(state, store, point, Work.REMOVE)


def end_without_deleting(state: Engine, store: ObjectStore, point: str) -> None:
    """Leave the ledger and the store as a replica of the store has them from before a removal."""
    begin(state, store, point, Work.REMOVE)
    listing.end_work(state, "courier", [point], Ending.REMOVED, NOW)


def bring_back_without_signature(state: Engine, store: ObjectStore, point: str) -> None:
    end_without_deleting(state, store, point)
    store.delete(f"courier/{point}/{SIGNATURE_NAME}")


@pytest.mark.parametrize(
    "removal", [begin_without_deleting, end_without_deleting, bring_back_without_signature]
)
def test_reader_of_a_changed_point_that_is_still_there_names_no_pruning(
    any_store: ObjectStore,
    taken: Taken,
    signer: Signer,
    state: Engine,
    operations: Holder,
    removal: Callable[[Engine, ObjectStore, str], None],
) -> None:
    """Although the ledger has a removal, its dump was changed by somebody else."""
    point = publish(any_store, taken, signer, 1)  # its dump is not what the manifest says
    manifest = load(any_store, "courier", point, [signer.public_pem]).manifest
    source = Taken(any_store, manifest).source(operations.opening)
    removal(state, any_store, point)
    work = work_reader(state, "courier", any_store)
    with (
        pytest.raises(ParcelSealError) as error,
        naming_removals(any_store, "courier", point, work),
    ):
        source.check()
    assert not isinstance(error.value, PointRemoved)


def test_pruning_that_a_lock_refuses_leaves_no_removal_under_way(
    store: DirectoryStore,
    taken: Taken,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
) -> None:
    """Otherwise its signature, deleted later by somebody else, would pass for a pruning."""
    for day in (1, 2, 3, 120):
        publish(store, taken, signer, day)
    store.lock(f"courier/p120/{MANIFEST_NAME}", NOW + timedelta(days=400))
    assert run_prune(make(store, recipients, signer), state, NOW).data["refused"] == ["p120"]
    work = work_reader(state, "courier", store)
    assert (work().removed, work().unfinished) == (set(), set())
    store.delete(f"courier/p120/{SIGNATURE_NAME}")
    with (
        pytest.raises(ManifestRefused, match="it is missing"),
        naming_removals(store, "courier", "p120", work),
    ):
        load(store, "courier", "p120", [signer.public_pem])


def test_a_drill_of_a_pruned_point_is_not_entered_as_a_failed_drill(
    any_store: ObjectStore,
    taken: Taken,
    signer: Signer,
    state: Engine,
    operations: Holder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The run fails and says why; the trend of drills and the choice of the next know nothing."""
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
        with pytest.raises(PointRemoved, match="Nothing was tampered with"):
            step_record(step, context, "courier")
    assert past_drills(state, "courier") == []


def copy_of(locked: Locked, moto: MotoServer) -> S3Store:
    client = client_for(moto.endpoint)
    store = S3Store(client, new_bucket(client))
    for each in locked.store.list():
        store.put(each.key, locked.store.get(each.key))
    return store


def test_store_that_wrote_a_point_refuses_another_version_of_its_dump(
    locked: Locked, moto: MotoServer, state: Engine
) -> None:
    """By the record of its publication; elsewhere the same objects are a copy."""
    store = copy_of(locked, moto)
    work = work_reader(state, "courier", store)
    (point,), rejected = listed_points(store, "courier", locked.trusted, work)
    assert (point.is_copy, rejected) == (True, [])
    begin(state, store, point.id)
    listing.end_work(state, "courier", [point.id], Ending.PUBLISHED, NOW)
    points, (refusal,) = listed_points(store, "courier", locked.trusted, work)
    assert (points, refusal.key) == ([], locked.manifest.dump.key)
    assert "gone from this store" in refusal.reason


def test_pruning_reports_copies_and_counts_them_for_no_rule(
    locked: Locked,
    moto: MotoServer,
    taken: Taken,
    recipients: list[Recipient],
    signer: Signer,
    state: Engine,
) -> None:
    """Otherwise the newest copy would take the place of a verified point in the floor."""
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
