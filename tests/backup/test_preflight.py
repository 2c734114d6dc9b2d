"""Test that the preflight reports all faults at once that would prevent a valid backup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from include.backup.offsite import Offsite
from include.backup.offsite_findings import (
    CLAUSE,
    check_recipients,
    check_routes,
    check_sites,
    check_store,
)
from include.encryption.recipients import Recipient, UnreadableRecipient
from include.evidence.model import Finding, Outcome
from include.evidence.signing import Signer
from include.evidence.step_findings import StepFindings
from include.policy.datamap import MappedDatabase
from include.policy.rules import Recipients
from include.services.clock import FixedClock
from include.services.objectstore.base import ObjectStore, StoreError
from include.services.objectstore.directory import DirectoryStore
from include.services.objectstore.s3 import S3Store
from include.services.transport import Destination, Route, Transport
from tests.backup.offsite_support import preflight_record
from tests.backup.support import mapped
from tests.support.holders import NOW
from tests.support.s3 import MotoServer, client_for, new_bucket


@pytest.fixture(scope="module")
def proper(moto: MotoServer) -> S3Store:
    """Return a bucket with versioning and Object Lock at another site."""
    client = client_for(moto.endpoint)
    return S3Store(client, new_bucket(client), site="shanghai")


def found(
    store: ObjectStore,
    recipients: Sequence[Recipient],
    *,
    database: MappedDatabase | None = None,
    unreadable: Sequence[UnreadableRecipient] = (),
    rules: Recipients | None = None,
    days: float = 0,
) -> dict[str, Finding]:
    step_findings = StepFindings("preflight", CLAUSE)
    check_sites(step_findings, [database or mapped()], store, check_store(step_findings, store))
    check_recipients(
        step_findings,
        recipients,
        unreadable,
        rules or Recipients(minimum=2, warn_days_before_expiry=30),
        NOW + timedelta(days=days),
    )
    assert all(finding.clause == "4.2" for finding in step_findings.findings)
    return {finding.code: finding for finding in step_findings.findings}


def severities(findings: dict[str, Finding]) -> dict[str, Outcome]:
    return {code: finding.severity for code, finding in findings.items()}


def test_check_of_valid_store_has_no_findings(proper: S3Store, recipients: list[Recipient]):
    """The store has versions, locks, another site and two valid keys."""
    assert found(proper, recipients) == {}


def test_check_of_bucket_without_versions_and_locks_fails(
    moto: MotoServer, recipients: list[Recipient]
):
    client = client_for(moto.endpoint)
    plain = S3Store(client, new_bucket(client, lock=False), site="shanghai")
    assert severities(found(plain, recipients)) == {
        "backup.store.no_versioning": Outcome.FAIL,
        "backup.store.no_object_lock": Outcome.FAIL,
    }


def test_check_of_missing_bucket_fails(moto: MotoServer, recipients: list[Recipient]):
    """The finding names the store and contains no secret."""
    absent = S3Store(client_for(moto.endpoint), "no-such-bucket", site="shanghai")
    (finding,) = found(absent, recipients).values()
    assert (finding.severity, finding.code) == (Outcome.FAIL, "backup.store.missing")
    assert "no-such-bucket" in finding.subject


def test_check_of_unreachable_store_raises_store_error(recipients: list[Recipient]):
    """The outage may be temporary, so Airflow retries the step."""
    nobody = client_for("http://127.0.0.1:9", max_attempts=1)
    away = S3Store(nobody, "bucket", site="shanghai")
    with pytest.raises(StoreError, match="The off-site store cannot be reached"):
        found(away, recipients)


def test_check_of_directory_store_reports_that_it_cannot_lock_objects(
    store: DirectoryStore, recipients: list[Recipient]
):
    """A directory cannot enforce locks. A directory on the database's own disk is also reported."""
    assert severities(found(store, recipients)) == {
        "backup.store.no_object_lock": Outcome.ATTENTION,
    }
    root = Path(store.description.removeprefix("file://"))
    beside = DirectoryStore(root, site="shanghai", live_paths=[root.parent])
    same = found(beside, recipients)["backup.store.same_device"]
    assert same.severity is Outcome.ATTENTION


def test_preflight_has_a_separate_finding_text_for_each_fault_of_the_store(
    moto: MotoServer, store: DirectoryStore, recipients: list[Recipient]
) -> None:

    def texts(faulty: ObjectStore) -> dict[str, str]:
        return {
            code.removeprefix("backup.store."): finding.message.text
            for code, finding in found(faulty, recipients).items()
        }

    client = client_for(moto.endpoint)
    plain = texts(S3Store(client, new_bucket(client, lock=False), site="shanghai"))
    assert "does not keep old versions" in plain["no_versioning"]
    assert "has no Object Lock" in plain["no_object_lock"]
    absent = found(S3Store(client, "no-such-bucket", site="shanghai"), recipients)
    reason = absent["backup.store.missing"].message
    assert "cannot be used" in reason.text
    assert "no-such-bucket" in str(reason.values["reason"])
    root = Path(store.description.removeprefix("file://"))
    beside = texts(DirectoryStore(root, site="shanghai", live_paths=[root.parent]))
    assert "is a directory" in beside["no_object_lock"]
    assert "same disk" in beside["same_device"]


@pytest.mark.parametrize(
    ("of_store", "of_database", "subject"),
    [
        (None, None, "The sites of the off-site store and of the database"),
        (None, "beijing", "The site of the off-site store"),
        ("shanghai", None, "The site of the database"),
    ],
)
def test_finding_about_undeclared_site_says_whether_site_of_store_or_of_database_is_missing(
    moto: MotoServer,
    recipients: list[Recipient],
    of_store: str | None,
    of_database: str | None,
    subject: str,
) -> None:
    """The finding names the setting that declares the site."""
    client = client_for(moto.endpoint)
    s3_store = S3Store(client, new_bucket(client), site=of_store)
    findings = found(s3_store, recipients, database=mapped(site=of_database))
    assert subject in findings["backup.site.unknown"].message.text


def test_preflight_does_not_claim_different_sites_if_store_and_database_share_a_disk(
    store: DirectoryStore, recipients: list[Recipient], signer: Signer
):
    """Store and database share a disk although their site names differ."""
    root = Path(store.description.removeprefix("file://"))
    for live, expected in (([root.parent], None), ([], False)):
        directory_store = DirectoryStore(root, site="shanghai", live_paths=live)
        offsite = Offsite(directory_store, recipients, [], signer, [signer.public_pem])
        record = preflight_record(offsite, mapped(site="beijing"), FixedClock(NOW))
        assert record.data["at_primary_site"] == {"courier": expected}


def test_check_fails_if_the_parent_of_the_store_directory_is_a_file(
    tmp_path: Path, recipients: list[Recipient]
):
    """The parent of the directory is a file, so the directory cannot be created."""
    (tmp_path / "file").write_text("")
    gone = DirectoryStore(tmp_path / "file" / "store", site="shanghai")
    assert Outcome.FAIL in severities(found(gone, recipients)).values()


def test_preflight_reports_equal_and_undeclared_sites_of_store_and_database(
    proper: S3Store, moto: MotoServer, recipients: list[Recipient]
):
    """The same site fails the step, and an undeclared site needs attention."""
    same = found(proper, recipients, database=mapped(site="shanghai", name="billing"))
    assert severities(same) == {"backup.site.same": Outcome.FAIL}
    assert same["backup.site.same"].subject == "billing"
    spelled = found(proper, recipients, database=mapped(site=" ShangHai"))
    assert severities(spelled) == {"backup.site.same": Outcome.FAIL}
    unknown = found(proper, recipients, database=mapped(site=None))
    assert severities(unknown) == {"backup.site.unknown": Outcome.ATTENTION}
    client = client_for(moto.endpoint)
    nowhere = S3Store(client, new_bucket(client))
    assert severities(found(nowhere, recipients)) == {"backup.site.unknown": Outcome.ATTENTION}


def test_expiring_recipient_keys_are_reported(proper: S3Store, recipients: list[Recipient]):
    """After 700 days, the keys are about to expire. After 730 days, they have expired."""
    assert severities(found(proper, recipients, days=699)) == {}
    assert severities(found(proper, recipients, days=701)) == {
        "backup.recipients.expiring": Outcome.ATTENTION
    }
    assert severities(found(proper, recipients, days=731)) == {
        "backup.recipients.expired": Outcome.FAIL,
        "backup.recipients.too_few": Outcome.FAIL,
    }
    one_left = [recipients[0], replace(recipients[1], expires_at=None)]
    assert severities(found(proper, one_left, days=731)) == {
        "backup.recipients.expired": Outcome.FAIL,
        "backup.recipients.too_few": Outcome.FAIL,
    }
    enough = found(proper, one_left, days=731, rules=Recipients(minimum=1))
    assert severities(enough) == {"backup.recipients.expired": Outcome.FAIL}


def test_check_fails_with_too_few_recipient_keys_and_counts_duplicates_once(
    proper: S3Store, recipients: list[Recipient]
):
    """Two keys are required. The same key under two names counts as one key."""
    first = recipients[0]
    for few in ([], [first], [first, replace(first, name="again")]):
        assert severities(found(proper, few)) == {"backup.recipients.too_few": Outcome.FAIL}


def test_check_with_unreadable_recipient_key_fails_with_reason(
    proper: S3Store, recipients: list[Recipient]
):
    """This also applies if there are enough other keys, because the holder relies on the key."""
    bad = UnreadableRecipient("escrow", "the file is gone")
    (finding,) = found(proper, recipients, unreadable=[bad]).values()
    assert (finding.code, finding.severity) == ("backup.recipients.unreadable", Outcome.FAIL)
    assert finding.subject == "escrow"
    assert "the file is gone" in str(finding.message)


def test_preflight_step_has_worst_outcome_and_all_findings_of_its_checks(
    store: DirectoryStore, recipients: list[Recipient], signer: Signer
):
    offsite = Offsite(store, recipients[:1], [], signer, [signer.public_pem])
    record = preflight_record(offsite, mapped(site="shanghai"), FixedClock(NOW))
    assert record.outcome is Outcome.FAIL
    assert {finding.code for finding in record.findings} == {
        "backup.store.no_object_lock",
        "backup.site.same",
        "backup.recipients.too_few",
    }
    assert record.data == {
        "may_dump": False,
        "store": store.description,
        "store_kind": "directory",
        "recipients": ["operations"],
        "at_primary_site": {"courier": True},
        "sites": {"store": "shanghai", "database courier": "shanghai"},
    }
    good = Offsite(store, recipients, [], signer, [signer.public_pem])
    assert preflight_record(good, mapped(), FixedClock(NOW)).outcome is Outcome.ATTENTION


@pytest.mark.parametrize("way", [Transport.PLAIN, Transport.UNVERIFIED])
def test_preflight_has_a_finding_for_each_connection_without_verified_tls(way: Transport):
    """Connections to stores and KMS fail the step.

    A connection to a database needs attention only.
    """
    step_findings = StepFindings("preflight", CLAUSE)
    routes = [
        Route("offsite_store", way, Destination.STORE),
        Route("offsite_store (KMS)", way, Destination.KMS),
        Route("customer_db", way, Destination.DATABASE),
    ]
    check_routes(step_findings, routes)
    assert [
        (finding.code, finding.severity, finding.subject) for finding in step_findings.findings
    ] == [
        (f"backup.transport.{way}", Outcome.FAIL, "offsite_store"),
        (f"backup.transport.{way}", Outcome.FAIL, "offsite_store (KMS)"),
        (f"backup.transport.{way}", Outcome.ATTENTION, "customer_db"),
    ]
    assert all(
        finding.subject in finding.message.values.values() for finding in step_findings.findings
    )
