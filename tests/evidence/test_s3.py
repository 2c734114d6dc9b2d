"""The same seal in S3 with Object Lock, over HTTP to a real server process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from include.evidence.names import bundle_path
from include.evidence.prune import prune_to_checkpoint
from include.evidence.verify import verify_all
from include.services.objectstore.base import ObjectLocked
from include.services.objectstore.s3 import S3Store
from include.state.tables import evidence_intent
from tests.evidence.register_fixtures import Company
from tests.evidence.support import CLOCK, Evidence, result_of
from tests.support.s3 import client_for, new_bucket, start_moto, unfinished_uploads

UNTIL = datetime.now(UTC) + timedelta(days=1)  # noqa: TID251 - the server's own clock decides


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    server = start_moto()
    yield server.endpoint
    server.stop()


@pytest.mark.parametrize("default_lock_days", [0, 1])
def test_a_chain_in_s3_is_locked_and_verifies(
    evidence: Evidence, endpoint: str, default_lock_days: int
) -> None:
    """Seal, repeat, remains of a killed try, verification, refused pruning, one changed object."""
    client = client_for(endpoint)
    bucket = new_bucket(client, default_lock_days=default_lock_days)
    store = S3Store(client, bucket, "evidence")
    trusted = [evidence.signer.public_pem]
    remains = "backup_offsite/2026/11/manual__2026-11-25T141019.123456Z"
    store.put(f"{remains}/old.txt", b"old")
    store.put(f"{remains}/SHA256SUMS", b"half")
    sealed = [evidence.seal(n, store=store, lock_until=UNTIL) for n in (1, 2, 1)]
    assert [one.seq for one in sealed] == [1, 2, 1]
    listed = b"  old.txt\n" in store.get(f"{remains}/SHA256SUMS")
    assert listed == (default_lock_days > 0)
    for name in ("report.en.html", "result.json", "SHA256SUMS", "SHA256SUMS.sig"):
        with pytest.raises(ObjectLocked):
            store.delete(f"{sealed[1].path}/{name}")
    found = verify_all(store, evidence.conn, trusted)
    assert found.verified, found
    assert found.bundles == 2
    with pytest.raises(ObjectLocked):
        prune_to_checkpoint(
            store, evidence.conn, evidence.signer, before_seq=2, trusted=trusted, clock=CLOCK
        )
    evidence.conn.rollback()
    store.put(f"{sealed[1].path}/report.en.html", b"a new version hides the locked one")
    found = verify_all(store, evidence.conn, trusted)
    assert found.first_bad == sealed[1].path
    copy = f"aws s3 cp --recursive s3://{bucket}/evidence/{sealed[1].path} {sealed[1].path}"
    host = endpoint.removeprefix("http://")
    assert found.commands[0] == f"{copy}  # with the --endpoint-url of {host}"
    assert found.commands[1] == f"cd {sealed[1].path}"


def test_repeated_seal_clears_unfinished_uploads_of_a_killed_try(
    evidence: Evidence, endpoint: str
) -> None:
    """An upload that nobody finishes is paid for and seen by no listing."""
    client = client_for(endpoint)
    bucket = new_bucket(client)
    store = S3Store(client, bucket, "evidence")
    run = result_of().run
    bundle = bundle_path(run.dag_id, run.run_id, run.started_at)
    evidence.execute(evidence_intent.insert().values(bundle=bundle, begun_at=CLOCK.now()))
    client.create_multipart_upload(Bucket=bucket, Key=f"evidence/{bundle}/report.en.html")
    evidence.seal(store=store)
    assert unfinished_uploads(client, bucket) == 0


def test_registers_that_an_older_state_database_lacks_are_found_in_s3(
    evidence: Evidence, endpoint: str
) -> None:
    """The bundle that sealed them is in the bucket, and not in the ledger of that database."""
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
