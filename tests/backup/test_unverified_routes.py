"""Connections that are not verified over TLS: which of them stop a backup."""

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
    """An empty state database."""
    made = engine(migrated_database)
    yield made
    made.dispose()


@pytest.fixture
def offsite(store: DirectoryStore, recipients: list[Recipient], signer: Signer) -> Offsite:
    """A store and keys with which nothing is wrong but what a directory cannot do."""
    return Offsite(store, recipients, [], signer, [signer.public_pem])


def preflight(
    monkeypatch: pytest.MonkeyPatch, state: Engine, offsite: Offsite, routes: list[Route]
) -> None:
    """Run the task `preflight` with these routes."""
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


def test_preflight_lets_a_backup_begin_over_an_unverified_store_and_fails_the_run(
    monkeypatch: pytest.MonkeyPatch, state: Engine, offsite: Offsite
) -> None:
    """A dump is encrypted before it leaves: a backup that the finding names is better than none."""
    preflight(monkeypatch, state, offsite, [DATABASE, *STORES])
    record = record_of(state, KEY, "preflight")
    assert record.outcome is Outcome.FAIL
    failed = {one.subject: one for one in record.findings if one.severity is Outcome.FAIL}
    assert {name: one.code for name, one in failed.items()} == {
        "offsite_store": "backup.transport.plain",
        "evidence_store": "backup.transport.unverified",
    }
    for name, finding in failed.items():
        assert name in Translator("en", "UTC").text(finding.message)
        assert "https" in Translator("en", "UTC").text(finding.action)


def test_preflight_stops_a_backup_whose_kms_is_not_verified(
    monkeypatch: pytest.MonkeyPatch, state: Engine, offsite: Offsite
) -> None:
    """Plain data keys would go over the network."""
    from airflow.sdk.exceptions import AirflowFailException

    with pytest.raises(AirflowFailException, match="Nothing was dumped"):
        preflight(monkeypatch, state, offsite, [KMS])
    assert record_of(state, KEY, "preflight").outcome is Outcome.FAIL


def test_preflight_stops_a_backup_for_another_fault_beside_an_unverified_store(
    monkeypatch: pytest.MonkeyPatch, state: Engine, store: DirectoryStore, signer: Signer
) -> None:
    """Nobody could read what has too few recipients."""
    from airflow.sdk.exceptions import AirflowFailException

    nobody = Offsite(store, [], [], signer, [signer.public_pem])
    with pytest.raises(AirflowFailException, match="Nothing was dumped"):
        preflight(monkeypatch, state, nobody, STORES)
