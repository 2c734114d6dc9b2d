"""Test in which cases connections without verified TLS stop a backup."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Engine

from include.backup.offsite import PREFLIGHT, Offsite
from include.backup.workflow import BACKUP_OFFSITE
from include.encryption.recipients import Recipient
from include.evidence.model import Outcome
from include.evidence.signing import Signer
from include.policy.rules import BackupRules
from include.reports.i18n import Translator
from include.services.clock import FixedClock
from include.services.objectstore.directory import DirectoryStore
from include.services.transport import Destination, Route, Transport
from include.state.connect import engine
from tests.backup.support import mapped
from tests.support.airflow_task import in_task, record_of
from tests.support.contexts import offsite_services
from tests.support.holders import NOW

pytestmark = pytest.mark.airflow
KEY = ("backup_offsite", "nightly")
DATABASE = Route("customer_db", Transport.PLAIN, Destination.DATABASE)
STORES = [
    Route("offsite_store", Transport.PLAIN, Destination.STORE),
    Route("evidence_store", Transport.UNVERIFIED, Destination.STORE),
]
KMS = Route("offsite_store (KMS)", Transport.PLAIN, Destination.KMS)


@pytest.fixture
def state(migrated_database: str) -> Any:
    """Return an empty state database."""
    database = engine(migrated_database)
    yield database
    database.dispose()


@pytest.fixture
def offsite(store: DirectoryStore, recipients: list[Recipient], signer: Signer) -> Offsite:
    """Return a directory store and keys. Their only faults are those of every directory store."""
    return Offsite(store, recipients, [], signer, [signer.public_pem])


def preflight(
    monkeypatch: pytest.MonkeyPatch, state: Engine, offsite: Offsite, routes: list[Route]
) -> None:
    """Run the task `preflight` with the given unverified routes."""
    from include.orchestration.tasks import run_step

    database = mapped()
    in_task(
        monkeypatch, KEY, state, FixedClock(NOW),
        pack=SimpleNamespace(databases={database.name: database}, backup=BackupRules()),
        is_local=lambda _name: False,
        routes=lambda: routes,
        **offsite_services(offsite),
    )  # fmt: skip
    run_step(BACKUP_OFFSITE, PREFLIGHT)


def test_preflight_fails_but_allows_backup_if_connection_to_store_has_no_verified_tls(
    monkeypatch: pytest.MonkeyPatch, state: Engine, offsite: Offsite
) -> None:
    """The dump is encrypted before it is sent. A backup with a finding is better than no backup."""
    preflight(monkeypatch, state, offsite, [DATABASE, *STORES])
    record = record_of(state, KEY, "preflight")
    assert record.outcome is Outcome.FAIL
    failed = {
        finding.subject: finding for finding in record.findings if finding.severity is Outcome.FAIL
    }
    assert {name: finding.code for name, finding in failed.items()} == {
        "offsite_store": "backup.transport.plain",
        "evidence_store": "backup.transport.unverified",
    }
    for name, finding in failed.items():
        assert name in Translator("en", "UTC").text(finding.message)
        assert "HTTPS" in Translator("en", "UTC").text(finding.action)


def test_preflight_stops_backup_if_connection_to_kms_has_no_verified_tls(
    monkeypatch: pytest.MonkeyPatch, state: Engine, offsite: Offsite
) -> None:
    """Data keys would be sent over the network without protection."""
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match="No database was backed up"):
        preflight(monkeypatch, state, offsite, [KMS])
    assert record_of(state, KEY, "preflight").outcome is Outcome.FAIL


def test_preflight_stops_backup_if_store_connection_is_unverified_and_recipients_are_missing(
    monkeypatch: pytest.MonkeyPatch, state: Engine, store: DirectoryStore, signer: Signer
) -> None:
    """The other fault is a missing recipient."""
    from airflow.sdk.exceptions import AirflowFailException

    nobody = Offsite(store, [], [], signer, [signer.public_pem])
    with pytest.raises(AirflowFailException, match="No database was backed up"):
        preflight(monkeypatch, state, nobody, STORES)
