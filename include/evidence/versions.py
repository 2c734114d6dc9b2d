"""Read bundles by their sealed versions, which newer versions or delete markers may hide.

Object Lock keeps a version of an object. It does not prevent newer versions and delete markers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime

from include.evidence.check import Refused, SignedSums, check_file, read_result
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
    """The files of a bundle in the versions that its SHA256SUMS lists.

    `find_sealed` returns it.

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
        """The files whose sealed version is not the current one, by name."""
        names = [*self.signed.sums.files, SUMS, SIGNATURE]
        stored = (name for name in names if self._candidates(name))
        return [name for name in stored if not self._version(name).is_current]

    def names(self) -> set[str]:
        """Return the relative names of all files that have a version."""
        return {name for name in self._files if self._candidates(name)}

    def open(self, name: str) -> AbstractContextManager[Readable]:
        """Open the sealed version of a file, or the current version if no version fits."""
        version_id = self._version(name).version_id
        return self._store.open_reader(self._prefix + name, version_id=version_id)

    def sealed_version(self, name: str) -> ObjectVersion | None:
        """Return the version of a file that was sealed, or None if no stored version fits.

        The only version of a file is returned without reading it.
        """
        if name not in self._chosen:
            candidates = self._candidates(name)
            listed = self.signed.sha256 if name == SUMS else self.signed.sums.files.get(name)
            fitting = (each for each in candidates if self._sha256(name, each) == listed)
            is_only = len(candidates) == 1
            self._chosen[name] = candidates[0] if is_only else next(fitting, None)
        return self._chosen[name]

    def lock(self, until: datetime) -> None:
        """Lock the sealed version of each file, the signature last.

        A version that is locked for longer stays so. A file that is gone stops no later seal:
        verification names it.
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
        """Return the sealed result.json, or None if no version of it is stored.

        Raises:
            StoreError: the store cannot be read.
        """
        try:
            return read_result(self, self.signed)
        except Refused:
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
    """Return a bundle if a version of its signature fits a version of its SHA256SUMS.

    Args:
        store: the evidence store.
        bundle: its folder.
        keys: public keys whose seals count.
        sums_sha256: the digest that its SHA256SUMS must have; empty for any.

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
    """Yield a bundle once for each version of its SHA256SUMS that a version of a signature fits.

    An intruder may store another genuine bundle's SHA256SUMS and signature on top of its own.

    Args:
        store: the evidence store.
        bundle: its folder.
        keys: public keys whose seals count.
        files: the versions of its files.
        sums_sha256: the digest that its SHA256SUMS must have; empty for any.

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
            signed_by = keys.who_signed(signature, content) if signature else None
            if signed_by is None:
                continue
            try:
                signed = SignedSums(Sums.parse(content), sha256, signed_by)
            except ValueError:
                continue
            yield SealedFolder(store, bundle, files, signed, signed_with)
            break


def read_sealed_sums(store: ObjectStore, bundle: str, sums_sha256: str) -> bytes | None:
    """Return the SHA256SUMS of a bundle that has a digest, or None if no stored version has it.

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
    """Return a remark if sealed files of a bundle are hidden, and all of them are still stored.

    Reads all files of the bundle.

    Raises:
        StoreError: the store cannot be read.
    """
    folder = find_sealed(store, bundle, keys, sums_sha256=sums_sha256)
    if folder is None or not folder.hidden:
        return []
    try:
        for name in folder.signed.sums.files:
            check_file(folder, name, folder.signed)
    except Refused:
        return []
    return [
        _(
            "{bundle}: {name} was deleted or overwritten in the store; the versions that were "
            "sealed are intact",
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
