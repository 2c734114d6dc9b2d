"""Test the key that signs manifests, which is separate from the key that seals evidence."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.backup.manifest import RestorePoint, restore_points
from include.backup.offsite import offsite_of
from include.composition import build_services
from include.encryption.recipients import Recipient
from include.evidence.signing import Signer, TrustedKeys, generate_key
from include.policy import SHIPPED
from include.service_container import Services
from include.services.connections import ConnectionSpec
from include.services.database import DatabaseAddress
from include.services.errors import UsageError
from include.services.objectstore.directory import DirectoryStore
from tests.backup.support import take

EVIDENCE_KEY, MANIFEST_KEY = generate_key(), generate_key()
EVIDENCE, MANIFESTS = Signer.from_pem(EVIDENCE_KEY), Signer.from_pem(MANIFEST_KEY)


def services(tmp_path: Path, offsite: dict[str, object], evidence: dict[str, object]) -> Services:
    """Return the services of a process whose store connections have the given extras."""
    extras = {"offsite_store": offsite, "evidence_store": evidence}
    specs = {
        name: ConnectionSpec(conn_id=name, conn_type="fs", extra={"path": str(tmp_path), **extra})
        for name, extra in extras.items()
    }
    return build_services(tmp_path, SHIPPED, specs.get, use_local_profile=False)


def public(signer: Signer) -> list[str]:
    """Return a list that contains only the public key of a signer."""
    return [signer.public_pem.decode()]


def test_manifests_are_signed_with_the_evidence_key_if_no_manifest_key_is_configured(
    tmp_path: Path,
) -> None:
    """Earlier versions had no separate key for manifests."""
    process = services(tmp_path, {}, {"signing_key": EVIDENCE_KEY.decode()})
    offsite = offsite_of(process)
    assert offsite.require_signer().public_pem == EVIDENCE.public_pem
    assert offsite.trusted == [EVIDENCE.public_pem]


def test_backup_process_signs_manifests_with_manifest_key_and_cannot_sign_evidence(
    tmp_path: Path,
) -> None:
    """The manifest key cannot sign evidence and is not trusted for evidence."""
    process = services(
        tmp_path, {"signing_key": MANIFEST_KEY.decode()}, {"trusted_keys": public(EVIDENCE)}
    )
    assert offsite_of(process).require_signer().public_pem == MANIFESTS.public_pem
    assert process.trusted == [EVIDENCE.public_pem]
    with pytest.raises(UsageError, match="The key that seals evidence is not configured"):
        _ = process.signer


def test_manifest_key_is_trusted_for_manifests_but_not_for_evidence(
    tmp_path: Path,
) -> None:
    """A restore drill has no private signing key, so it cannot publish a restore point."""
    process = services(
        tmp_path, {"trusted_keys": public(MANIFESTS)}, {"trusted_keys": public(EVIDENCE)}
    )
    assert process.trusted_for_manifests == [MANIFESTS.public_pem, EVIDENCE.public_pem]
    assert process.trusted == [EVIDENCE.public_pem]
    signature = MANIFESTS.sign(b"SHA256SUMS")
    assert TrustedKeys(process.trusted).signer_of(signature, b"SHA256SUMS") is None
    with pytest.raises(UsageError, match="The key that signs manifests is not configured"):
        offsite_of(process).require_signer()


@pytest.mark.parametrize("signer", [EVIDENCE, MANIFESTS], ids=["earlier", "now"])
def test_manifests_signed_by_evidence_key_or_manifest_key_are_valid(
    tmp_path: Path, rich: DatabaseAddress, recipients: list[Recipient], signer: Signer
) -> None:
    """Backups of earlier versions, which the evidence key signed, stay valid."""
    process = services(
        tmp_path, {"trusted_keys": public(MANIFESTS)}, {"trusted_keys": public(EVIDENCE)}
    )
    (tmp_path / "store").mkdir()
    store = DirectoryStore(tmp_path / "store")
    take(rich, store, recipients, signer)
    points, rejected = restore_points(store, "courier", process.trusted_for_manifests)
    assert [type(point) for point in points] == [RestorePoint]
    assert rejected == []
    _, refused = restore_points(store, "courier", [Signer.from_pem(generate_key()).public_pem])
    assert len(refused) == 1
