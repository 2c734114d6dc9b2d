"""Two concurrent seals leave a single chain, at whatever time the first loses its connection."""

from __future__ import annotations

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from include.evidence import ledger
from include.evidence.bundle import SealedBundle, seal
from include.evidence.verify import verify_all
from include.services.objectstore.s3 import S3Store
from include.state.connect import engine
from include.state.tables import evidence_intent
from tests.evidence.support import CLOCK, FILES, Evidence, result_of
from tests.support.faulty_proxy import Fault, FaultyProxy, ProxiedRequest
from tests.support.s3 import client_for, new_bucket

pytestmark = pytest.mark.fault


class Race:
    """Two concurrent seals: run 2 loses its database connection, and run 3 is sealed meanwhile."""

    def __init__(self, evidence: Evidence, endpoint: str, cut_at: str) -> None:
        self.evidence, self.cut_at = evidence, cut_at
        client = client_for(endpoint)
        self.bucket = new_bucket(client)
        self.store = S3Store(client, self.bucket, "evidence")
        self.sealed: SealedBundle | None = None
        self._backend = 0

    def rule(self, request: ProxiedRequest) -> Fault | None:
        """At the first PUT of the file, cut the database connection and seal run 3.

        The PUT is forwarded afterwards.
        """
        name = request.path.partition("?")[0].rpartition("/")[2]
        if request.method == "PUT" and name == self.cut_at and self.sealed is None:
            with self.evidence.engine.begin() as conn:
                conn.execute(text("SELECT pg_terminate_backend(:pid)"), {"pid": self._backend})
            with self.evidence.engine.connect() as conn:
                self.sealed = self.seal(3, self.store, conn)
        return None

    def run(self, endpoint: str) -> None:
        """Seal run 1, then run 2 through the proxy."""
        with self.evidence.engine.connect() as conn:
            self.seal(1, self.store, conn)
        with (
            FaultyProxy(endpoint, self.rule) as proxy,
            engine(self.evidence.database).connect() as conn,
        ):
            self._backend = conn.scalar(text("SELECT pg_backend_pid()")) or 0
            store = S3Store(client_for(proxy.endpoint), self.bucket, "evidence")
            with pytest.raises(DBAPIError):
                self.seal(2, store, conn)

    def seal(self, number: int, store: S3Store, conn: object) -> SealedBundle:
        return seal(
            store,
            conn,  # type: ignore[arg-type]
            self.evidence.signer,
            result=result_of(number=number),
            files=FILES,
            clock=CLOCK,
        )


@pytest.mark.parametrize("cut_at", ["SHA256SUMS", "SHA256SUMS.sig"])
def test_chain_of_bundles_has_no_fork_after_a_seal_lost_its_database_connection(
    evidence: Evidence, endpoint: str, cut_at: str
) -> None:
    """Another run is sealed before the signature is stored. Each signed bundle is in the chain."""
    race = Race(evidence, endpoint, cut_at)
    race.run(endpoint)
    assert race.sealed is not None
    trusted = [evidence.signer.public_pem]
    after = verify_all(race.store, evidence.conn, trusted)
    assert after.verified, after
    evidence.conn.rollback()
    again = race.seal(2, race.store, evidence.conn)
    assert [row.seq for row in ledger.rows(evidence.conn)] == [1, 2, 3]
    assert again.path == ledger.rows(evidence.conn)[again.seq - 1].bundle
    after = verify_all(race.store, evidence.conn, trusted)
    assert (after.verified, after.bundles, after.remarks) == (True, 3, []), after
    assert evidence.conn.execute(evidence_intent.select()).all() == []
