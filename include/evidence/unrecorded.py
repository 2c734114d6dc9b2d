"""Signed bundles of the evidence store that the ledger does not have.

There are some after an older state database was restored, or rows of the ledger were deleted. The
store is searched by version, so that neither a delete marker nor an overwrite hides a bundle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from include.evidence import ledger
from include.evidence.check import SignedSums
from include.evidence.checkpoint import checkpoints
from include.evidence.names import (
    DEPTH,
    LARGEST_RESULT,
    LARGEST_SIGNATURE,
    LARGEST_SUMS,
    RESULT,
    SIGNATURE,
    SUMS,
    folder_name,
)
from include.evidence.signing import TrustedKeys
from include.evidence.sums import Link, Sums
from include.services.objectstore.base import (
    ObjectDamaged,
    ObjectMissing,
    ObjectStore,
    ObjectVersion,
)

MONTHS = 24  # of the store that are searched at most
LONGEST_RUN = 2  # months by which a run may have begun before the newest bundle was sealed
MOST_VERSIONS = 16  # older versions of an object that are tried, from the oldest on
MOST_FORGED = 2000  # objects that are read of folders without a trusted signature
MOST_FORGED_BYTES = 256 * 1024 * 1024  # of these objects

_Versions = Mapping[str, Sequence[ObjectVersion]]


@dataclass(frozen=True)
class UnrecordedBundle:
    """A bundle that a trusted key signed and that the ledger lacks.

    Attributes:
        name: its folder.
        signed: its SHA256SUMS, after the signature was checked.
        signed_at: when the store took the signature.
        results: version ids of its result.json, in the order in which they are tried.
    """

    name: str
    signed: SignedSums
    signed_at: datetime
    results: tuple[str, ...]

    def read_result(self, store: ObjectStore) -> bytes | None:
        """Return the result.json that was sealed; None when no version of it is stored.

        Raises:
            StoreError: the store cannot be read.
        """
        for version_id in self.results:
            content = _read(store, f"{self.name}/{RESULT}", version_id, LARGEST_RESULT)
            digest = hashlib.sha256(content or b"").hexdigest()
            if content is not None and digest == self.signed.sums.files.get(RESULT):
                return content
        return None


@dataclass(frozen=True)
class UnrecordedBundles:
    """The result of a search.

    Attributes:
        bundles: that were found, the newest signature first.
        unchecked: how many folders, or versions of their objects, were left: there were too many
            without a trusted signature.
    """

    bundles: tuple[UnrecordedBundle, ...]
    unchecked: int = 0

    def after(self, link: Link | None) -> list[UnrecordedBundle]:
        """Return the bundles that say they follow a link: one, its copies, or a fork."""
        return [bundle for bundle in self.bundles if bundle.signed.sums.previous == link]

    def chain_after(self, link: Link | None) -> list[UnrecordedBundle]:
        """Return the bundles that continue the chain from a link, in the chain's order."""
        chain: list[UnrecordedBundle] = []
        following = self.after(link)
        while following:
            chain.append(following[0])
            links = [Link(bundle.name, bundle.signed.sha256) for bundle in following]
            following = [bundle for bundle in self.bundles if bundle.signed.sums.previous in links]
        return chain


def search_unrecorded(
    store: ObjectStore,
    conn: Connection,
    keys: TrustedKeys,
    prefixes: Collection[str],
    *,
    most_forged: int | None,
) -> UnrecordedBundles:
    """Search parts of the store for signed bundles that the ledger lacks.

    Reads each signature that could be one. Only folders without a trusted signature count against
    the bounds: forged ones make the search incomplete, and it says so.

    Args:
        store: the evidence store.
        conn: the state database. Without the evidence lock, a bundle that is sealed meanwhile is
            recorded before its signature is stored, so it is not returned either.
        keys: public keys whose seals count.
        prefixes: of keys in the store; an empty one for all of it.
        most_forged: objects that are read of folders without a trusted signature; None for no
            bound, also on their bytes.

    Raises:
        StoreError: the store cannot be read.
    """
    folders = _signed_folders(store, prefixes)
    rows = ledger.of_bundles(conn, list(folders))
    recorded = {row.bundle for row in rows if row.is_authentic(keys)}
    recorded |= {mark.bundle for mark in checkpoints(conn) if mark.is_authentic(keys)}
    bundles, unchecked = [], 0
    objects = total = 0
    # An intruder's large files are the last to be read.
    for name in sorted(folders.keys() - recorded, key=lambda name: (_size(folders[name]), name)):
        if most_forged is not None and (objects >= most_forged or total >= MOST_FORGED_BYTES):
            unchecked += 1
            continue
        bundle = _signed_bundle(store, name, folders[name], keys)
        if bundle is not None:
            bundles.append(bundle)
        else:
            objects += sum(len(_tried(folders[name], each)) for each in (SIGNATURE, SUMS))
            total += _size(folders[name])
            unchecked += _has_more(folders[name])
    bundles.sort(key=lambda bundle: (bundle.signed_at, bundle.name), reverse=True)
    return UnrecordedBundles(tuple(bundles), unchecked)


def month_prefixes(
    workflows: Iterable[str], since: datetime | None, now: datetime
) -> Collection[str]:
    """Return the folders of the store in which bundles since a moment lie; all for None.

    A folder has the month in which its run began, by the clock of another machine.
    """
    if since is None:
        return [""]
    newest = _month(now + timedelta(days=1))
    oldest = max(min(newest, _month(since)) - LONGEST_RUN, newest - MONTHS + 1)
    months = [f"{at // 12:04}/{at % 12 + 1:02}" for at in range(oldest, newest + 1)]
    return [f"{folder_name(name)}/{month}/" for name in sorted(set(workflows)) for month in months]


def _month(moment: datetime) -> int:
    moment = moment.astimezone(UTC)
    return moment.year * 12 + moment.month - 1


def _signed_folders(store: ObjectStore, prefixes: Collection[str]) -> dict[str, _Versions]:
    """Return the folders that hold a signature and a SHA256SUMS, with the versions of both.

    A version that is larger than a seal writes is left out, and so are delete markers.
    """
    largest = {SIGNATURE: LARGEST_SIGNATURE, SUMS: LARGEST_SUMS, RESULT: LARGEST_RESULT}
    folders: dict[str, dict[str, list[ObjectVersion]]] = {}
    for prefix in _disjoint(prefixes):
        for version in store.list_versions(prefix):
            *folder, name = version.key.split("/")
            if len(folder) != DEPTH or version.is_marker or version.size > largest.get(name, -1):
                continue
            folders.setdefault("/".join(folder), {}).setdefault(name, []).append(version)
    return {name: files for name, files in folders.items() if {SIGNATURE, SUMS} <= files.keys()}


def _disjoint(prefixes: Collection[str]) -> Iterator[str]:
    for prefix in sorted(set(prefixes)):
        if not any(prefix != other and prefix.startswith(other) for other in prefixes):
            yield prefix


def _signed_bundle(
    store: ObjectStore, name: str, files: _Versions, keys: TrustedKeys
) -> UnrecordedBundle | None:
    """Return a bundle when one version of its signature fits one of its SHA256SUMS."""
    signatures = [
        (version, _read(store, f"{name}/{SIGNATURE}", version.version_id, LARGEST_SIGNATURE))
        for version in _tried(files, SIGNATURE)
    ]
    for listed in _tried(files, SUMS):
        content = _read(store, f"{name}/{SUMS}", listed.version_id, LARGEST_SUMS)
        for version, signature in signatures:
            if content is None or signature is None:
                continue
            signed_by = keys.who_signed(signature, content)
            if signed_by is None:
                continue
            try:
                signed = SignedSums(
                    Sums.parse(content), hashlib.sha256(content).hexdigest(), signed_by
                )
            except ValueError:
                continue
            results = tuple(version.version_id for version in _tried(files, RESULT))
            return UnrecordedBundle(name, signed, version.modified_at, results)
    return None


def _tried(files: _Versions, name: str) -> list[ObjectVersion]:
    """Return the versions that are tried: the current one, then from the oldest on.

    A seal writes each object once or twice, so versions that somebody puts on top hide nothing.
    """
    versions = files.get(name, ())
    current = [version for version in versions if version.is_current]
    older = [version for version in reversed(versions) if not version.is_current]
    return current + older[:MOST_VERSIONS]


def _has_more(files: _Versions) -> bool:
    """Return whether versions were left that could be genuine."""
    return any(len(files[name]) > len(_tried(files, name)) for name in (SIGNATURE, SUMS))


def _size(files: _Versions) -> int:
    return sum(version.size for name in (SIGNATURE, SUMS) for version in _tried(files, name))


def _read(store: ObjectStore, key: str, version_id: str, limit: int) -> bytes | None:
    try:
        return store.get(key, version_id=version_id, limit=limit)
    except (ObjectMissing, ObjectDamaged):
        return None
