"""Every fault that would spoil a backup is found before it begins, all at once."""

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
    """A bucket with versions and Object Lock at another site."""
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
    seen = StepFindings("preflight", CLAUSE)
    check_sites(seen, [database or mapped()], store, check_store(seen, store))
    check_recipients(
        seen,
        recipients,
        unreadable,
        rules or Recipients(minimum=2, warn_days_before_expiry=30),
        NOW + timedelta(days=days),
    )
    assert all(one.clause == "4.2" for one in seen.findings)
    return {one.code: one for one in seen.findings}


def severities(findings: dict[str, Finding]) -> dict[str, Outcome]:
    return {code: one.severity for code, one in findings.items()}


def test_a_proper_place_has_no_findings(proper: S3Store, recipients: list[Recipient]):
    """Versions, locks, another site, two valid keys."""
    assert found(proper, recipients) == {}


def test_a_bucket_without_versions_and_locks_fails(moto: MotoServer, recipients: list[Recipient]):
    """Somebody has to make these settings."""
    client = client_for(moto.endpoint)
    plain = S3Store(client, new_bucket(client, lock=False), site="shanghai")
    assert severities(found(plain, recipients)) == {
        "backup.store.no_versioning": Outcome.FAIL,
        "backup.store.no_object_lock": Outcome.FAIL,
    }


def test_a_bucket_that_is_not_there_fails(moto: MotoServer, recipients: list[Recipient]):
    """Named by the store, without a secret."""
    absent = S3Store(client_for(moto.endpoint), "no-such-bucket", site="shanghai")
    (finding,) = found(absent, recipients).values()
    assert (finding.severity, finding.code) == (Outcome.FAIL, "backup.store.missing")
    assert "no-such-bucket" in finding.subject


def test_a_store_that_is_away_is_no_fault_to_correct(recipients: list[Recipient]):
    """It may be back in a minute: the step fails as services do, which Airflow tries again."""
    nobody = client_for("http://127.0.0.1:9", max_attempts=1)
    away = S3Store(nobody, "bucket", site="shanghai")
    with pytest.raises(StoreError, match="The off-site store cannot be reached"):
        found(away, recipients)


def test_a_directory_is_no_more_than_attention(store: DirectoryStore, recipients: list[Recipient]):
    """It cannot lock, by its nature; on the database's own disk that is said too."""
    assert severities(found(store, recipients)) == {
        "backup.store.no_object_lock": Outcome.ATTENTION,
    }
    root = Path(store.description.removeprefix("file://"))
    beside = DirectoryStore(root, site="shanghai", live_paths=[root.parent])
    same = found(beside, recipients)["backup.store.same_device"]
    assert same.severity is Outcome.ATTENTION


def test_each_fault_of_a_store_is_explained_by_its_own_text(
    moto: MotoServer, store: DirectoryStore, recipients: list[Recipient]
) -> None:
    """A text of another fault would send its reader to the wrong setting."""

    def texts(faulty: ObjectStore) -> dict[str, str]:
        return {
            code.removeprefix("backup.store."): finding.message.text
            for code, finding in found(faulty, recipients).items()
        }

    client = client_for(moto.endpoint)
    plain = texts(S3Store(client, new_bucket(client, lock=False), site="shanghai"))
    assert "keeps no versions" in plain["no_versioning"]
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
        (None, None, "the off-site store and the database"),
        (None, "beijing", "the off-site store stands"),
        ("shanghai", None, "the database stands"),
    ],
)
def test_unknown_site_is_named_as_that_of_store_or_database(
    moto: MotoServer,
    recipients: list[Recipient],
    of_store: str | None,
    of_database: str | None,
    subject: str,
) -> None:
    """The finding tells which of the two has to be declared."""
    client = client_for(moto.endpoint)
    place = S3Store(client, new_bucket(client), site=of_store)
    findings = found(place, recipients, database=mapped(site=of_database))
    assert subject in findings["backup.site.unknown"].message.text


def test_another_name_for_the_site_does_not_make_a_disk_another(
    store: DirectoryStore, recipients: list[Recipient], signer: Signer
):
    """Sites that differ by name, and one disk for both: nobody can say that they are apart."""
    root = Path(store.description.removeprefix("file://"))
    for live, expected in (([root.parent], None), ([], False)):
        place = DirectoryStore(root, site="shanghai", live_paths=live)
        offsite = Offsite(place, recipients, [], signer, [signer.public_pem])
        record = preflight_record(offsite, mapped(site="beijing"), FixedClock(NOW))
        assert record.data["at_primary_site"] == {"courier": expected}


def test_a_directory_that_cannot_be_used_fails(tmp_path: Path, recipients: list[Recipient]):
    """Here a file stands in its place."""
    (tmp_path / "file").write_text("")
    gone = DirectoryStore(tmp_path / "file" / "store", site="shanghai")
    assert Outcome.FAIL in severities(found(gone, recipients)).values()


def test_the_sites_must_be_known_and_different(
    proper: S3Store, moto: MotoServer, recipients: list[Recipient]
):
    """The same site fails, an unnamed one needs attention; each database is named."""
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


def test_keys_that_end_are_said_in_time(proper: S3Store, recipients: list[Recipient]):
    """700 days on they are about to end, 730 days on they are over and too few remain."""
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


def test_too_few_keys_fail_and_one_key_twice_is_one(proper: S3Store, recipients: list[Recipient]):
    """The second holder must be another holder."""
    first = recipients[0]
    for few in ([], [first], [first, replace(first, name="again")]):
        assert severities(found(proper, few)) == {"backup.recipients.too_few": Outcome.FAIL}


def test_a_key_that_cannot_be_read_fails_with_its_reason(
    proper: S3Store, recipients: list[Recipient]
):
    """Also when enough others remain: somebody counts on that key."""
    bad = UnreadableRecipient("escrow", "the file is gone")
    (finding,) = found(proper, recipients, unreadable=[bad]).values()
    assert (finding.code, finding.severity) == ("backup.recipients.unreadable", Outcome.FAIL)
    assert finding.subject == "escrow"
    assert "the file is gone" in str(finding.message)


def test_the_step_has_the_worst_outcome_and_all_findings(
    store: DirectoryStore, recipients: list[Recipient], signer: Signer
):
    """Everything that is wrong at once, and what the report shows."""
    offsite = Offsite(store, recipients[:1], [], signer, [signer.public_pem])
    record = preflight_record(offsite, mapped(site="shanghai"), FixedClock(NOW))
    assert record.outcome is Outcome.FAIL
    assert {one.code for one in record.findings} == {
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
def test_each_unverified_connection_is_a_finding(way: Transport):
    """Connections of stores and KMS fail; a database's connection may choose a weaker mode."""
    seen = StepFindings("preflight", CLAUSE)
    routes = [
        Route("offsite_store", way, Destination.STORE),
        Route("offsite_store (KMS)", way, Destination.KMS),
        Route("customer_db", way, Destination.DATABASE),
    ]
    check_routes(seen, routes)
    assert [(one.code, one.severity, one.subject) for one in seen.findings] == [
        (f"backup.transport.{way}", Outcome.FAIL, "offsite_store"),
        (f"backup.transport.{way}", Outcome.FAIL, "offsite_store (KMS)"),
        (f"backup.transport.{way}", Outcome.ATTENTION, "customer_db"),
    ]
    assert all(one.subject in one.message.values.values() for one in seen.findings)
