"""Sealing in S3 with Object Lock, over HTTP with a real server process."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

import pytest

from include.cli import evidence as command
from include.evidence import ledger
from include.evidence.folder import SIGNATURE, bundle_path
from include.evidence.ledger_recovery import lock_end, recover_ledger
from include.evidence.prune import KeptBecause, Pruned
from include.evidence.signing import TrustedKeys
from include.evidence.verify import verify_all, verify_one
from include.policy.rules import EvidenceRules
from include.services.clock import SystemClock
from include.services.connections import ConnectionSpec
from include.services.objectstore.base import ObjectLocked
from include.services.objectstore.s3 import S3Store
from include.state.tables import evidence_intent, evidence_ledger
from tests.evidence.register_fixtures import Company, sealed_company
from tests.evidence.support import CLOCK, START, Evidence, result_of
from tests.support.s3 import (
    ACCESS_KEY,
    REGION,
    SECRET_KEY,
    client_for,
    new_bucket,
    unfinished_uploads,
)

UNTIL = datetime.now(UTC) + timedelta(days=1)  # noqa: TID251 - the server's own clock decides


@pytest.mark.parametrize("default_lock_days", [0, 1])
def test_bundles_in_s3_are_locked_and_form_a_valid_chain(
    evidence: Evidence, endpoint: str, default_lock_days: int
) -> None:
    """The test repeats a seal, prunes, and overwrites an object of a bundle."""
    client = client_for(endpoint)
    bucket = new_bucket(client, default_lock_days=default_lock_days)
    store = S3Store(client, bucket, "evidence")
    trusted = [evidence.signer.public_pem]
    remains = "backup_offsite/2026/11/manual__2026-11-25T141019.123456Z"
    store.put(f"{remains}/old.txt", b"old")
    store.put(f"{remains}/SHA256SUMS", b"half")
    sealed = [evidence.seal(n, store=store, lock_until=UNTIL) for n in (1, 2, 1)]
    assert [bundle.seq for bundle in sealed] == [1, 2, 1]
    listed = b"  old.txt\n" in store.get(f"{remains}/SHA256SUMS")
    assert listed == (default_lock_days > 0)
    for name in ("report.en.html", "result.json", "SHA256SUMS", "SHA256SUMS.sig"):
        with pytest.raises(ObjectLocked):
            store.delete(f"{sealed[1].path}/{name}")
    verification = verify_all(store, evidence.conn, trusted)
    assert verification.verified, verification
    assert verification.bundles == 2
    assert evidence.prune(2, store=store) == Pruned((), KeptBecause.LOCKED, sealed[0].path)
    store.put(f"{sealed[1].path}/report.en.html", b"a new version hides the locked one")
    verification = verify_all(store, evidence.conn, trusted)
    assert verification.first_bad == sealed[1].path
    assert [remark.values for remark in verification.remarks] == [
        {"bundle": sealed[1].path, "name": "report.en.html"}
    ]
    alone = verify_one(store, sealed[1].path, trusted, evidence.conn)
    assert (alone.verified, alone.remarks) == (False, verification.remarks)
    copy = f"aws s3 cp --recursive s3://{bucket}/evidence/{sealed[1].path} {sealed[1].path}"
    host = endpoint.removeprefix("http://")
    assert verification.commands[0] == f"{copy}  # with the --endpoint-url of {host}"
    assert verification.commands[1] == f"cd {sealed[1].path}"


def forget_signature(evidence: Evidence) -> str:
    """Bring the newest bundle into the state that a killed seal leaves, without a signature.

    Returns:
        The folder of the bundle.
    """
    row = ledger.head(evidence.conn)
    assert row is not None
    key = f"{row.bundle}/{SIGNATURE}"
    signature = evidence.store.get(key)
    evidence.store.delete(key)
    intent = {"bundle": row.bundle, "started_at": START, "signature": signature}
    evidence.execute(evidence_intent.insert().values(intent))
    return row.bundle


def unlocked(store: S3Store, bundle: str) -> list[str]:
    """Return the objects of a bundle that are not locked for three years after the seal."""
    until = CLOCK.now() + timedelta(days=3 * 365)
    ends = {item.key: store.stat(item.key).locked_until for item in store.list(f"{bundle}/")}
    assert f"{bundle}/{SIGNATURE}" in ends
    return [key for key, end in ends.items() if end is None or end < until]


def test_recover_ledger_sets_object_lock_on_bundle_whose_seal_was_killed(
    migrated_database: str, tmp_path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command stores the signature, and locks the bundle as its seal would have done."""
    client = client_for(endpoint)
    bucket = new_bucket(client)
    with sealed_company(migrated_database, tmp_path) as (company, place):
        key = place.connection("evidence_store").text("signing_key")
        extra = {"bucket": bucket, "endpoint_url": endpoint, "region_name": REGION}
        spec = ConnectionSpec(
            "evidence_store",
            "aws",
            login=ACCESS_KEY,
            password=SECRET_KEY,
            extra={**extra, "signing_key": key},
        )
        lookup = place.lookup
        in_s3 = replace(
            place, lookup=lambda name: spec if name == "evidence_store" else lookup(name)
        )
        store = in_s3.store("evidence_store")
        assert isinstance(store, S3Store)
        evidence = replace(company.evidence, store=store)
        Company(evidence, company.state).seal()
        bundle = forget_signature(evidence)
        monkeypatch.setattr(command, "command_services", lambda: in_s3)
        monkeypatch.setattr(command, "local_stack", nullcontext)
        command.recover_ledger()
        assert unlocked(store, bundle) == []


def test_recover_ledger_sets_object_lock_only_on_bundles_that_have_none(
    evidence: Evidence, endpoint: str
) -> None:
    """Locking each object of thousands of bundles again would take hours."""
    client = client_for(endpoint)
    store = S3Store(client, new_bucket(client), "evidence")
    in_s3 = replace(evidence, store=store)
    clock = SystemClock()
    in_s3.seal(1)
    locked = in_s3.seal(-1, lock_until=lock_end(store, clock, EvidenceRules())).path
    bare = in_s3.seal(-2).path
    in_s3.tamper(evidence_ledger.delete().where(evidence_ledger.c.seq > 1))
    keys = TrustedKeys([evidence.signer.public_pem])
    with patch.object(S3Store, "lock", autospec=True, side_effect=S3Store.lock) as lock:
        until = lock_end(store, clock, EvidenceRules())
        entered = recover_ledger(store, evidence.conn, evidence.signer, keys, clock, until)
    assert entered == [locked, bare]
    assert {call.args[1].rpartition("/")[0] for call in lock.call_args_list} <= {
        bare,
        f"{bare}/plans",
    }
    assert unlocked(store, bare) == []


def test_pruning_sets_object_lock_on_bundle_whose_seal_was_killed(
    evidence: Evidence, endpoint: str
) -> None:
    """Pruning stores the missing signature first."""
    client = client_for(endpoint)
    store = S3Store(client, new_bucket(client), "evidence")
    in_s3 = replace(evidence, store=store)
    in_s3.seal(1)
    in_s3.seal(2)
    bundle = forget_signature(in_s3)
    clock = SystemClock()
    evidence.prune(2, store=store, clock=clock, lock_until=lock_end(store, clock, EvidenceRules()))
    assert unlocked(store, bundle) == []


def test_seal_deletes_unfinished_s3_uploads_of_killed_earlier_seal(
    evidence: Evidence, endpoint: str
) -> None:
    """Unfinished uploads cost money, and no listing of objects shows them."""
    client = client_for(endpoint)
    bucket = new_bucket(client)
    store = S3Store(client, bucket, "evidence")
    run = result_of().run
    bundle = bundle_path(run.dag_id, run.run_id, run.started_at)
    evidence.execute(evidence_intent.insert().values(bundle=bundle, started_at=CLOCK.now()))
    client.create_multipart_upload(Bucket=bucket, Key=f"evidence/{bundle}/report.en.html")
    evidence.seal(store=store)
    assert unfinished_uploads(client, bucket) == 0


def test_lost_legal_hold_is_detected_from_s3_bundle_that_has_no_ledger_row(
    evidence: Evidence, endpoint: str
) -> None:
    """The figures of these rows are in a bundle for which the restored ledger has no row."""
    client = client_for(endpoint)
    store = S3Store(client, new_bucket(client), "evidence")
    company = Company(replace(evidence, store=store), evidence.engine)
    company.erase()
    company.seal()
    company.hold()
    company.seal("enforce_retention")
    company.require()
    company.harm("DELETE FROM evidence_ledger WHERE seq = 2", "DELETE FROM legal_hold")
    assert company.lost() == {"legal_hold"}
