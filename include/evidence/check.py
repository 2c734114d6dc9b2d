"""Check one bundle: signature, digests, no added file, in step with its ledger row."""

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


def columns_of(result_json: bytes) -> dict[str, Any]:
    """Return what a result.json shares with its row of the ledger, by column.

    Raises:
        ValueError: not a result.json.
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


def is_of_folder(result_json: bytes, bundle: str) -> bool:
    """Return whether a result.json is of the run after which a bundle's folder is named.

    A copy of a genuine bundle in another run's folder has a valid signature, too.
    """
    try:
        columns = columns_of(result_json)
    except ValueError:
        return False
    return bundle == bundle_path(columns["dag_id"], columns["run_id"], columns["started_at"])


def finished_at_of(result_json: bytes) -> datetime:
    """Return when the checks of a run ended, by its result.json.

    Raises:
        ValueError: not a result.json.
    """
    try:
        finished_at = datetime.fromisoformat(json.loads(result_json)["finished_at"])
    except (KeyError, TypeError) as error:
        raise ValueError("result.json lacks the moment at which it was finished") from error
    if finished_at.tzinfo is None:
        raise ValueError("the moment at which result.json was finished has no timezone")
    return finished_at


class Refused(Exception):
    """A bundle is not valid; the message names the problem."""

    def __init__(self, message: Message) -> None:
        super().__init__(message.text)
        self.message = message


@dataclass(frozen=True)
class SignedSums:
    """SHA256SUMS after its signature was checked.

    Attributes:
        sums: the parsed file.
        sha256: its digest.
        signed_by: fingerprint of the trusted key.
    """

    sums: Sums
    sha256: str
    signed_by: str


def check_bundle(folder: Folder, keys: TrustedKeys) -> SignedSums:
    """Check a bundle by itself: signature, every file's digest, no file added or missing.

    Raises:
        Refused: it does not hold.
    """
    signed = check_signature(folder, keys)
    check_names(folder.names(), signed)
    for name in sorted(signed.sums.files):
        check_file(folder, name, signed)
    check_signer(folder, signed)
    return signed


def check_names(names: Collection[str], signed: SignedSums) -> None:
    """Check that a bundle has the files that SHA256SUMS lists, and no others.

    Raises:
        Refused: a file was added or is missing.
    """
    present = set(names) - {SUMS, SIGNATURE}
    for name in sorted(present - signed.sums.files.keys()):
        raise Refused(_("the file {name} was added after the seal", name=name))
    for name in sorted({*signed.sums.files, RESULT, SIGNER} - present):
        raise Refused(_("the file {name} is missing", name=name))


def check_file(folder: Folder, name: str, signed: SignedSums) -> None:
    """Check that a file's content is what SHA256SUMS lists; reads all of it.

    Raises:
        Refused: it is missing, damaged or was changed.
    """
    with refusing_unreadable(name):
        digest = folder.sha256(name)
    check_digest(name, digest, signed.sums.files[name])


def check_digest(name: str, digest: str, sealed: str | None) -> None:
    """Check that a file's digest is the sealed one; raises Refused."""
    if digest != sealed:
        raise Refused(_("the file {name} was changed after the seal", name=name))


@contextmanager
def refusing_unreadable(name: str) -> Iterator[None]:
    """Raise Refused if a file that is read in the block is missing or damaged."""
    try:
        yield
    except ObjectMissing as error:
        raise Refused(_("the file {name} is missing", name=name)) from error
    except ObjectDamaged as error:
        raise Refused(_("the file {name} is damaged", name=name)) from error


def read_result(folder: Folder, signed: SignedSums) -> bytes:
    """Return a bundle's result.json, after comparing its digest with SHA256SUMS.

    Raises:
        Refused: it is missing, damaged or was changed.
    """
    content = _read(folder, RESULT, LARGEST_RESULT)
    check_digest(RESULT, hashlib.sha256(content).hexdigest(), signed.sums.files.get(RESULT))
    return content


def check_signer(folder: Folder, signed: SignedSums) -> None:
    """Check that a bundle's signer.pem is the key that signed it.

    Raises:
        Refused: it is not.
    """
    try:
        own_key = fingerprint(_read(folder, SIGNER, LARGEST_KEY))
    except UsageError as error:
        raise Refused(_("signer.pem is no Ed25519 public key")) from error
    if own_key != signed.signed_by:
        raise Refused(_("signer.pem is not the key that signed"))


def check_signature(folder: Folder, keys: TrustedKeys) -> SignedSums:
    """Check that a trusted key signed the bundle's SHA256SUMS.

    Raises:
        Refused: no signature, or none of a trusted key over this content.
    """
    signature = _read(folder, SIGNATURE, LARGEST_SIGNATURE)
    content = _read(folder, SUMS, LARGEST_SUMS)
    signed_by = keys.who_signed(signature, content)
    if signed_by is None:
        raise Refused(_("SHA256SUMS is not signed by a trusted key, or was changed"))
    try:
        sums = Sums.parse(content)
    except ValueError as error:
        raise Refused(_("SHA256SUMS is not one that a seal writes")) from error
    return SignedSums(sums, hashlib.sha256(content).hexdigest(), signed_by)


def _read(folder: Folder, name: str, limit: int) -> bytes:
    """Return a file of at most so many bytes.

    Raises:
        Refused: it is missing, damaged or larger.
    """
    with refusing_unreadable(name):
        return folder.read(name, limit)


def check_row(row: LedgerRow, signed: SignedSums, folder: Folder, previous: Link | None) -> None:
    """Check that a bundle, its ledger row and the bundle before it agree.

    Raises:
        Refused: they do not.
    """
    if signed.sha256 != row.sums_sha256:
        raise Refused(_("SHA256SUMS is not the one that the ledger has"))
    if signed.signed_by != row.key_fingerprint:
        raise Refused(_("another key signed it than the ledger has"))
    if signed.sums.previous != previous:
        raise Refused(_("it does not link to the bundle before it"))
    if row.previous_sums_sha256 != (previous.sums_sha256 if previous else ""):
        raise Refused(_("the ledger row does not link to the row before it"))
    try:
        columns = columns_of(_read(folder, RESULT, LARGEST_RESULT))
    except ValueError as error:
        raise Refused(_("result.json is not one of ParcelSeal")) from error
    for name, value in columns.items():
        if getattr(row, name) != value:
            raise Refused(_("result.json and the ledger differ in {column}", column=name))
