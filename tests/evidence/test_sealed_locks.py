"""Object Lock is set on the sealed versions of a bundle's files, not on newer versions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from include.evidence import ledger
from include.evidence.folder import RESULT, SIGNATURE, SUMS
from include.evidence.ledger_recovery import lock_end, recover_ledger
from include.evidence.signing import TrustedKeys
from include.policy.rules import EvidenceRules
from include.services.clock import SystemClock
from include.services.objectstore.s3 import S3Store
from include.state.tables import evidence_ledger
from tests.evidence.support import Evidence
from tests.evidence.test_s3 import forget_signature
from tests.support.s3 import client_for, new_bucket

REPORT = "report.en.html"


@pytest.mark.parametrize(
    ("way", "name"),
    [
        *[("recovered", name) for name in (RESULT, REPORT, SIGNATURE, SUMS)],
        *[("pending", name) for name in (RESULT, REPORT, SUMS)],
    ],
)
def test_object_lock_is_set_on_sealed_version_of_file_and_not_on_newer_version(
    evidence: Evidence, endpoint: str, way: str, name: str
) -> None:
    """The seal was killed before it set the locks, and an intruder overwrote an object."""
    client = client_for(endpoint)
    bucket = new_bucket(client)
    store = S3Store(client, bucket, "evidence")
    in_s3, clock = replace(evidence, store=store), SystemClock()
    in_s3.seal(1)
    bundle = in_s3.seal(-1).path
    if way == "pending":
        forget_signature(in_s3)
    sealed = store.stat(f"{bundle}/{name}").version_id
    forged = store.put(f"{bundle}/{name}", b"x" * 64).version_id
    until = lock_end(store, clock, EvidenceRules())
    if way == "recovered":
        in_s3.tamper(evidence_ledger.delete().where(evidence_ledger.c.seq > 1))
        keys = TrustedKeys([evidence.signer.public_pem])
        assert recover_ledger(store, evidence.conn, evidence.signer, keys, clock, until) == [bundle]
    else:
        in_s3.seal(-2, lock_until=until)
        assert ledger.find_bundle(evidence.conn, bundle) is not None
    assert store.stat(f"{bundle}/{name}", version_id=sealed).locked_until is not None
    assert store.stat(f"{bundle}/{name}", version_id=forged).locked_until is None
    others = {RESULT, REPORT, SUMS, SIGNATURE} - {name}
    assert all(store.stat(f"{bundle}/{other}").locked_until for other in others)
