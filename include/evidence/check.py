"""Check a bundle: its signature, the digests of its files, and its ledger row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from include.evidence.folder import (
    LARGEST_KEY,
    LARGEST_RESULT,
    LARGEST_SIGNATURE,
    LARGEST_SUMS,
    RESULT,
    SIGNATURE,
    SIGNER,
    SUMS,
    Folder,
    Link,
    Sums,
    bundle_path,
)
from include.evidence.ledger import LedgerRow
from include.evidence.signing import TrustedKeys, fingerprint
from include.messages import Message, _
from include.services.errors import UsageError
from include.services.objectstore.base import ObjectDamaged, ObjectMissing

_COLUMNS = {
    "dag_id": _("workflow"),
    "run_id": _("run"),
    "outcome": _("outcome"),
    "controls": _("controls"),
    "started_at": _("start time"),
}
"""Names of the columns that a ledger row and a result.json share."""


def columns_of(result_json: bytes) -> dict[str, Any]:
    """Return those values of a result.json that are also in the ledger row, by column name.

    Raises:
        ValueError: the content does not have the format of a result.json.
    """
    try:
        result = json.loads(result_json)
        return {
            "dag_id": result["run"]["dag_id"],
            "run_id": result["run"]["run_id"],
            "outcome": result["outcome"],
            "controls": [control["id"] for control in result["controls"]],
            "started_at": datetime.fromisoformat(result["run"]["started_at"]),
        }
    except (KeyError, TypeError) as error:
        raise ValueError("result.json lacks what every result has") from error


def is_result_of_folder(result_json: bytes, bundle: str) -> bool:
    """Return whether a result.json is of the run that a bundle's folder is named after.

    Without this check, an intruder could copy a genuine bundle into the folder of another run. The
    copy would be accepted, because its signature is valid.

    Args:
        result_json: content of the file.
        bundle: folder of the bundle, relative to the evidence store.
    """
    try:
        columns = columns_of(result_json)
    except ValueError:
        return False
    return bundle == bundle_path(columns["dag_id"], columns["run_id"], columns["started_at"])


def finished_at_of(result_json: bytes) -> datetime:
    """Return the time at which the checks of a run ended, according to its result.json.

    Raises:
        ValueError: this time is missing in result.json or has no timezone.
    """
    try:
        finished_at = datetime.fromisoformat(json.loads(result_json)["finished_at"])
    except (KeyError, TypeError) as error:
        raise ValueError("result.json lacks the moment at which it was finished") from error
    if finished_at.tzinfo is None:
        raise ValueError("the moment at which result.json was finished has no timezone")
    return finished_at


class EvidenceRefused(Exception):
    """Raised when a bundle is not valid. The message describes the problem."""

    def __init__(self, message: Message) -> None:
        super().__init__(message.text)
        self.message = message


@dataclass(frozen=True)
class SignedSums:
    """A bundle's SHA256SUMS, whose signature was checked.

    Attributes:
        sums: the digests of the files and the link to the previous bundle.
        sha256: SHA-256 digest of SHA256SUMS, in hex.
        signed_by: fingerprint of the trusted key that signed SHA256SUMS.
    """

    sums: Sums
    sha256: str
    signed_by: str


def check_bundle(folder: Folder, keys: TrustedKeys) -> SignedSums:
    """Check the signature and the files of a bundle; return its SHA256SUMS.

    The folder must contain exactly the files that SHA256SUMS lists, with the listed digests. The
    ledger row is not checked.

    Raises:
        EvidenceRefused: the bundle is not valid.
    """
    signed = check_signature(folder, keys)
    check_names(folder.names(), signed)
    for name in sorted(signed.sums.files):
        check_file(folder, name, signed)
    check_signer(folder, signed)
    return signed


def check_names(names: Collection[str], signed: SignedSums) -> None:
    """Check that a bundle has exactly the files that SHA256SUMS lists.

    Args:
        names: relative names of the files in the bundle's folder.
        signed: the bundle's SHA256SUMS.

    Raises:
        EvidenceRefused: a file was added or is missing.
    """
    present = set(names) - {SUMS, SIGNATURE}
    for name in sorted(present - signed.sums.files.keys()):
        raise EvidenceRefused(_("the file {name} was added after the bundle was sealed", name=name))
    for name in sorted({*signed.sums.files, RESULT, SIGNER} - present):
        raise EvidenceRefused(_("the file {name} is missing", name=name))


def check_file(folder: Folder, name: str, signed: SignedSums) -> None:
    """Read a file of a bundle completely and compare its digest with SHA256SUMS.

    Raises:
        EvidenceRefused: the file is missing, is damaged or was changed.
    """
    with refusing_unreadable(name):
        digest = folder.sha256(name)
    check_digest(name, digest, signed.sums.files[name])


def check_digest(name: str, digest: str, sealed: str | None) -> None:
    """Raise EvidenceRefused if the digest of a file differs from the digest in SHA256SUMS.

    Args:
        name: name of the file, for the message.
        digest: SHA-256 digest of the file's present content, in hex.
        sealed: SHA-256 digest in SHA256SUMS, in hex; None if SHA256SUMS does not list the file.
    """
    if digest != sealed:
        raise EvidenceRefused(
            _("the file {name} was changed after the bundle was sealed", name=name)
        )


@contextmanager
def refusing_unreadable(name: str) -> Iterator[None]:
    """Raise EvidenceRefused if a ``with`` block meets a missing or damaged file.

    The store's own error about this file is replaced. Other errors of the store are not.

    Args:
        name: name of the file, for the message.
    """
    try:
        yield
    except ObjectMissing as error:
        raise EvidenceRefused(_("the file {name} is missing", name=name)) from error
    except ObjectDamaged as error:
        raise EvidenceRefused(_("the file {name} is damaged", name=name)) from error


def read_result(folder: Folder, signed: SignedSums) -> bytes:
    """Return a bundle's result.json, after comparing its digest with SHA256SUMS.

    Raises:
        EvidenceRefused: the file is missing, is damaged or was changed.
    """
    content = _read(folder, RESULT, LARGEST_RESULT)
    check_digest(RESULT, hashlib.sha256(content).hexdigest(), signed.sums.files.get(RESULT))
    return content


def check_signer(folder: Folder, signed: SignedSums) -> None:
    """Check that signer.pem in a bundle contains the key that signed the bundle.

    Raises:
        EvidenceRefused: signer.pem contains another key, or its content is not an Ed25519 key.
    """
    try:
        own_key = fingerprint(_read(folder, SIGNER, LARGEST_KEY))
    except UsageError as error:
        raise EvidenceRefused(_("the bundle's public key is not a valid Ed25519 key")) from error
    if own_key != signed.signed_by:
        raise EvidenceRefused(_("the bundle's public key is not the key that signed the bundle"))


def check_signature(folder: Folder, keys: TrustedKeys) -> SignedSums:
    """Check that a trusted key signed the bundle's SHA256SUMS; return the parsed SHA256SUMS.

    Raises:
        EvidenceRefused: the signature is missing, no trusted key signed this SHA256SUMS, or
            SHA256SUMS does not have the format that a seal writes.
    """
    signature = _read(folder, SIGNATURE, LARGEST_SIGNATURE)
    content = _read(folder, SUMS, LARGEST_SUMS)
    signed_by = keys.signer_of(signature, content)
    if signed_by is None:
        raise EvidenceRefused(
            _("the bundle's list of checksums was changed, or it was not signed with a trusted key")
        )
    try:
        sums = Sums.parse(content)
    except ValueError as error:
        raise EvidenceRefused(
            _(
                "the bundle's list of checksums does not have the format in which "
                "ParcelSeal seals bundles"
            )
        ) from error
    return SignedSums(sums, hashlib.sha256(content).hexdigest(), signed_by)


def _read(folder: Folder, name: str, limit: int) -> bytes:
    """Return the content of a file, unless the file has more than `limit` bytes.

    Raises:
        EvidenceRefused: the file is missing, is damaged or has more than `limit` bytes.
    """
    with refusing_unreadable(name):
        return folder.read(name, limit)


def check_row(row: LedgerRow, signed: SignedSums, folder: Folder, previous: Link | None) -> None:
    """Check that a bundle agrees with its ledger row and links to the previous bundle.

    Args:
        row: ledger row of the bundle.
        signed: the bundle's SHA256SUMS.
        folder: reads the files of the bundle.
        previous: the link that the bundle must have to its predecessor; None for the first bundle.

    Raises:
        EvidenceRefused: the bundle differs from its row, or the bundle or the row does not link to
            the previous bundle.
    """
    if signed.sha256 != row.sums_sha256:
        raise EvidenceRefused(
            _("the bundle's list of checksums differs from the list in the evidence ledger")
        )
    if signed.signed_by != row.key_fingerprint:
        raise EvidenceRefused(
            _("the bundle was not signed with the key that the evidence ledger records")
        )
    if signed.sums.previous != previous:
        raise EvidenceRefused(
            _(
                "the bundle does not contain the digest of the previous bundle, so the "
                "chain is broken here"
            )
        )
    if row.previous_sums_sha256 != (previous.sums_sha256 if previous else ""):
        raise EvidenceRefused(
            _(
                "the row in the evidence ledger does not contain the digest of the "
                "previous row, so the chain is broken here"
            )
        )
    try:
        columns = columns_of(_read(folder, RESULT, LARGEST_RESULT))
    except ValueError as error:
        raise EvidenceRefused(
            _("the result file of the bundle was not written by ParcelSeal")
        ) from error
    for name, value in columns.items():
        if getattr(row, name) != value:
            raise EvidenceRefused(
                _(
                    "the result file and the evidence ledger differ in this value: {column}",
                    column=_COLUMNS[name],
                )
            )
