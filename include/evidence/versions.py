"""Read the sealed versions of a bundle's files, even if newer versions hide them.

Object Lock protects a version of an object from deletion. It does not prevent someone from adding
newer versions or delete markers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime

from include.evidence.check import EvidenceRefused, SignedSums, check_file, read_result
from include.evidence.folder import (
    LARGEST_SIGNATURE,
    LARGEST_SUMS,
    SIGNATURE,
    SUMS,
    Folder,
    Readable,
    Sums,
)
from include.evidence.signing import TrustedKeys
from include.messages import Message, _
from include.services.objectstore.base import (
    ObjectDamaged,
    ObjectLocked,
    ObjectMissing,
    ObjectStore,
    ObjectVersion,
    read_sha256,
    versions_to_try,
)

Versions = Mapping[str, Sequence[ObjectVersion]]
"""File of a bundle -> its versions and delete markers, the current one first, then the newest."""


class SealedFolder(Folder):
    """Reads those versions of a bundle's files whose digests are in its signed SHA256SUMS.

    Attributes:
        signed: the SHA256SUMS that a trusted key signed.
        signed_at: when the signature was stored.
    """

    def __init__(
        self,
        store: ObjectStore,
        bundle: str,
        files: Versions,
        signed: SignedSums,
        signature: ObjectVersion,
    ) -> None:
        self.signed = signed
        self.signed_at = signature.modified_at
        self._store, self._prefix, self._files = store, f"{bundle}/", files
        self._chosen: dict[str, ObjectVersion | None] = {SIGNATURE: signature}

    @property
    def hidden(self) -> list[str]:
        """Return the names of files whose sealed version is not the current version."""
        names = [*self.signed.sums.files, SUMS, SIGNATURE]
        stored = (name for name in names if self._candidates(name))
        return [name for name in stored if not self._version(name).is_current]

    def names(self) -> set[str]:
        """Return the relative names of all files that have at least one readable version."""
        return {name for name in self._files if self._candidates(name)}

    def open(self, name: str) -> AbstractContextManager[Readable]:
        """Open the sealed version of a file. If this version is missing, open the current version.

        Raises:
            ObjectMissing: the file has no version that can be read.
        """
        version_id = self._version(name).version_id
        return self._store.open_reader(self._prefix + name, version_id=version_id)

    def sealed_version(self, name: str) -> ObjectVersion | None:
        """Return the stored version of a file that has the digest in SHA256SUMS.

        If only one version is stored, it is returned without a check of its digest. Return None if
        no version is stored, or if none of several versions has the digest.
        """
        if name not in self._chosen:
            candidates = self._candidates(name)
            listed = self.signed.sha256 if name == SUMS else self.signed.sums.files.get(name)
            fitting = (version for version in candidates if self._sha256(name, version) == listed)
            is_only = len(candidates) == 1
            self._chosen[name] = candidates[0] if is_only else next(fitting, None)
        return self._chosen[name]

    def lock(self, until: datetime) -> None:
        """Lock the sealed version of each file until a given time. The signature is locked last.

        A version that is locked for longer keeps its lock. Missing files are skipped, because they
        must not prevent later seals; verification reports them.
        """
        for name in [*self.signed.sums.files, SUMS, SIGNATURE]:
            version = self.sealed_version(name)
            if version is None:
                continue
            try:
                self._store.lock(self._prefix + name, until, version_id=version.version_id)
            except (ObjectLocked, ObjectMissing):
                continue

    def read_result(self) -> bytes | None:
        """Return the sealed result.json; None if its sealed version is not stored.

        Raises:
            StoreError: the store cannot be read.
        """
        try:
            return read_result(self, self.signed)
        except EvidenceRefused:
            return None

    def _candidates(self, name: str) -> list[ObjectVersion]:
        return versions_to_try(self._files.get(name, ()))

    def _version(self, name: str) -> ObjectVersion:
        if version := self.sealed_version(name):
            return version
        candidates = self._candidates(name)
        if not candidates:
            raise ObjectMissing(f"There is no version of {self._prefix + name!r}.")
        return candidates[0]

    def _sha256(self, name: str, version: ObjectVersion) -> str:
        try:
            return read_sha256(self._store, self._prefix + name, version_id=version.version_id)
        except (ObjectMissing, ObjectDamaged):
            return ""


def find_sealed(
    store: ObjectStore, bundle: str, keys: TrustedKeys, sums_sha256: str = ""
) -> SealedFolder | None:
    """Return a reader of a bundle's sealed files.

    Return None if no stored SHA256SUMS of the bundle has a trusted signature.

    Args:
        store: the evidence store.
        bundle: folder of the bundle.
        keys: public keys whose seals are accepted.
        sums_sha256: digest that SHA256SUMS must have; empty for any digest.

    Raises:
        StoreError: the store cannot be read.
    """
    files = _listed(store, bundle)
    return next(sealed_folders(store, bundle, keys, files, sums_sha256), None)


def sealed_folders(
    store: ObjectStore,
    bundle: str,
    keys: TrustedKeys,
    files: Versions,
    sums_sha256: str = "",
) -> Iterator[SealedFolder]:
    """Yield a reader of the sealed files for each stored SHA256SUMS with a trusted signature.

    Several versions of SHA256SUMS can have a trusted signature: an intruder may copy SHA256SUMS and
    the signature of another genuine bundle into the folder as newer versions.

    Args:
        store: the evidence store.
        bundle: folder of the bundle.
        keys: public keys whose seals are accepted.
        files: file name -> stored versions of the file.
        sums_sha256: digest that SHA256SUMS must have; empty for any digest.

    Raises:
        StoreError: the store cannot be read.
    """
    signatures = [
        (version, _read(store, f"{bundle}/{SIGNATURE}", version, LARGEST_SIGNATURE))
        for version in versions_to_try(files.get(SIGNATURE, ()))
    ]
    for version in versions_to_try(files.get(SUMS, ())):
        content = _read(store, f"{bundle}/{SUMS}", version, LARGEST_SUMS)
        if content is None:
            continue
        sha256 = hashlib.sha256(content).hexdigest()
        if sums_sha256 not in ("", sha256):
            continue
        for signed_with, signature in signatures:
            signed_by = keys.signer_of(signature, content) if signature else None
            if signed_by is None:
                continue
            try:
                signed = SignedSums(Sums.parse(content), sha256, signed_by)
            except ValueError:
                continue
            yield SealedFolder(store, bundle, files, signed, signed_with)
            break


def read_sealed_sums(store: ObjectStore, bundle: str, sums_sha256: str) -> bytes | None:
    """Return the stored version of a bundle's SHA256SUMS that has a given digest.

    Return None if no stored version has this digest.

    Args:
        store: the evidence store.
        bundle: folder of the bundle.
        sums_sha256: SHA-256 digest of the version, in hex.

    Raises:
        StoreError: the store cannot be read.
    """
    key = f"{bundle}/{SUMS}"
    versions = [version for version in store.list_versions(key) if version.key == key]
    for version in versions_to_try(versions):
        content = _read(store, key, version, LARGEST_SUMS)
        if content is not None and hashlib.sha256(content).hexdigest() == sums_sha256:
            return content
    return None


def hidden_remarks(
    store: ObjectStore, bundle: str, keys: TrustedKeys, sums_sha256: str = ""
) -> list[Message]:
    """Return a remark if newer versions or delete markers hide sealed files of a bundle.

    Return an empty list if no sealed file is hidden. Return an empty list as well if a sealed file
    is missing or damaged, because then the sealed bundle cannot be restored from the older
    versions. The function reads all files of the bundle.

    Args:
        store: the evidence store.
        bundle: folder of the bundle.
        keys: public keys whose seals are accepted.
        sums_sha256: digest that SHA256SUMS must have; empty for any digest.

    Raises:
        StoreError: the store cannot be read.
    """
    folder = find_sealed(store, bundle, keys, sums_sha256=sums_sha256)
    if folder is None or not folder.hidden:
        return []
    try:
        for name in folder.signed.sums.files:
            check_file(folder, name, folder.signed)
    except EvidenceRefused:
        return []
    return [
        _(
            "{bundle}: {name} was deleted or overwritten in the evidence store; the store "
            "still has the sealed version of the file",
            bundle=bundle,
            name=", ".join(folder.hidden),
        )
    ]


def _listed(store: ObjectStore, bundle: str) -> Versions:
    files: dict[str, list[ObjectVersion]] = {}
    for version in store.list_versions(f"{bundle}/"):
        files.setdefault(version.key.removeprefix(f"{bundle}/"), []).append(version)
    return files


def _read(store: ObjectStore, key: str, version: ObjectVersion, limit: int) -> bytes | None:
    try:
        return store.get(key, version_id=version.version_id, limit=limit)
    except (ObjectMissing, ObjectDamaged):
        return None
