"""Find signed bundles of the evidence store that the ledger does not have.

Such bundles exist after an older state database was restored, or after rows of the ledger were
deleted. The search reads all versions, so neither a delete marker nor an overwrite hides a bundle.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
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
from include.evidence.sums import Link
from include.evidence.versions import SealedFolder, Versions, find_sealed
from include.services.objectstore.base import ObjectStore, ObjectVersion, versions_to_try

MONTHS = 24  # newest months of the store that a search reads
LONGEST_RUN = 2  # months from the begin of a run to its seal
MOST_FORGED = 2000  # objects read from folders without a trusted signature
MOST_FORGED_BYTES = 256 * 1024 * 1024  # bytes of these objects


@dataclass(frozen=True)
class UnrecordedBundle:
    """A bundle that a trusted key signed and that the ledger lacks.

    Attributes:
        name: its folder.
        signed: its SHA256SUMS, with a checked signature.
        folder: reads the sealed versions of its files.
    """

    name: str
    signed: SignedSums
    folder: SealedFolder


@dataclass(frozen=True)
class UnrecordedBundles:
    """The result of a search.

    Attributes:
        bundles: newest signature first.
        unchecked: number of folders, or versions of their objects, that were not read because too
            many others have no trusted signature.
    """

    bundles: tuple[UnrecordedBundle, ...]
    unchecked: int = 0

    def after(self, link: Link | None) -> list[UnrecordedBundle]:
        """Return the bundles whose SHA256SUMS names a link: one bundle, its copies, or a fork."""
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

    The search reads every file that may be a signature. Only folders without a trusted signature
    count against the bounds: too many of them make the search incomplete (`unchecked`).

    Args:
        store: the evidence store.
        conn: the state database. Without the evidence lock, a bundle that is sealed meanwhile is
            recorded before its signature is stored, so it is not returned either.
        keys: public keys whose seals count.
        prefixes: of keys in the store; an empty prefix stands for the whole store.
        most_forged: objects read from folders without a trusted signature; None for no bound, also
            on their bytes.

    Raises:
        StoreError: the store cannot be read.
    """
    folders = _signed_folders(store, prefixes)
    rows = ledger.of_bundles(conn, list(folders))
    recorded = {row.bundle for row in rows if row.is_authentic(keys)}
    recorded |= {mark.bundle for mark in checkpoints(conn) if mark.is_authentic(keys)}
    bundles, unchecked = [], 0
    objects = total = 0
    # Smallest first, so that an intruder's large files use up the bounds last.
    for name in sorted(folders.keys() - recorded, key=lambda name: (_size(folders[name]), name)):
        if most_forged is not None and (objects >= most_forged or total >= MOST_FORGED_BYTES):
            unchecked += 1
            continue
        sealed = find_sealed(store, name, keys, folders[name])
        if sealed is not None:
            bundles.append(UnrecordedBundle(name, sealed.signed, sealed))
        else:
            objects += len(_signed_objects(folders[name]))
            total += _size(folders[name])
            unchecked += _has_more(folders[name])
    bundles.sort(key=lambda bundle: (bundle.folder.signed_at, bundle.name), reverse=True)
    return UnrecordedBundles(tuple(bundles), unchecked)


def month_prefixes(
    workflows: Iterable[str], since: datetime | None, now: datetime
) -> Collection[str]:
    """Return prefixes of the bundles that were sealed since a moment; for None, of all bundles.

    A folder's name has the month in which its run began, by the clock of another machine.
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


def _signed_folders(store: ObjectStore, prefixes: Collection[str]) -> dict[str, Versions]:
    """Return the folders that hold a signature and a SHA256SUMS, with the versions of both.

    Delete markers are left out, and so are versions larger than a seal writes.
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


def _has_more(files: Versions) -> bool:
    """Return whether a folder has more versions than a search reads."""
    return sum(len(files[name]) for name in (SIGNATURE, SUMS)) > len(_signed_objects(files))


def _size(files: Versions) -> int:
    return sum(version.size for version in _signed_objects(files))


def _signed_objects(files: Versions) -> list[ObjectVersion]:
    """Return the versions of the signature and of SHA256SUMS that a search reads."""
    return [version for name in (SIGNATURE, SUMS) for version in versions_to_try(files[name])]
