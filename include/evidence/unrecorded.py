"""Find signed bundles of the evidence store that the ledger does not have.

Such bundles exist after an older state database was restored, or after rows of the ledger were
deleted. The search reads all versions, so neither a delete marker nor an overwrite hides a bundle.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from itertools import islice

from sqlalchemy import Connection

from include.evidence import ledger
from include.evidence.check import SignedSums, is_of_folder
from include.evidence.checkpoint import checkpoints
from include.evidence.folder import (
    DEPTH,
    LARGEST_RESULT,
    LARGEST_SIGNATURE,
    LARGEST_SUMS,
    RESULT,
    SIGNATURE,
    SUMS,
    Link,
    folder_name,
)
from include.evidence.ledger import LedgerRow
from include.evidence.signing import TrustedKeys
from include.evidence.versions import SealedFolder, Versions, sealed_folders
from include.services.objectstore.base import ObjectStore, ObjectVersion, versions_to_try

MONTHS = 36  # months of a workflow that a search reads, the oldest first
LONGEST_RUN = 6  # months from the begin of a run to its seal
MOST_PARTS = 2000  # folders of unknown workflows that a search lists
MOST_FORGED = 2000  # objects read from folders without a trusted signature, and from copies
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
        bundles: newest signature first; copies of a bundle are included.
        unchecked: number of folders, or versions of their objects, that were not read because too
            many others have no trusted signature or are copies.
    """

    bundles: tuple[UnrecordedBundle, ...]
    unchecked: int = 0

    def has_bundle_of(self, row: LedgerRow) -> bool:
        """Return whether the bundle of a row is among these; a copy of another bundle is not.

        Raises:
            StoreError: the store cannot be read.
        """
        of_row = (bundle for bundle in self.bundles if bundle.name == row.bundle)
        results = (bundle.folder.read_result() for bundle in of_row)
        return any(result is not None and is_of_folder(result, row.bundle) for result in results)

    def after(self, link: Link | None) -> list[UnrecordedBundle]:
        """Return the bundles whose SHA256SUMS names a link: one bundle, its copies, or a fork."""
        return self._followers.get(link, [])

    def chain_after(self, link: Link | None) -> list[UnrecordedBundle]:
        """Return the bundles that continue the chain from a link, in the chain's order."""
        chain: list[UnrecordedBundle] = []
        following = self.after(link)
        while following:
            chain.append(following[0])
            links = dict.fromkeys(Link(each.name, each.signed.sha256) for each in following)
            following = [bundle for each in links for bundle in self.after(each)]
        return chain

    def newest_first(self, link: Link | None) -> list[list[UnrecordedBundle]]:
        """Return the copies of each bundle, the newest bundle first.

        Bundles that continue the chain from a link come before others. An intruder who has copies
        of old bundles can store them, but cannot make them continue the chain.
        """
        copies: dict[str, list[UnrecordedBundle]] = {
            bundle.signed.sha256: [] for bundle in reversed(self.chain_after(link))
        }
        for bundle in self.bundles:
            copies.setdefault(bundle.signed.sha256, []).append(bundle)
        return list(copies.values())

    def joined(self, other: UnrecordedBundles) -> UnrecordedBundles:
        """Return the bundles of two searches; the other search is the wider of the two."""
        names = {(bundle.name, bundle.signed.sha256) for bundle in self.bundles}
        further = [each for each in other.bundles if (each.name, each.signed.sha256) not in names]
        return _sorted([*self.bundles, *further], other.unchecked)

    @cached_property
    def _followers(self) -> dict[Link | None, list[UnrecordedBundle]]:
        """The bundles by the link that their SHA256SUMS names."""
        followers: dict[Link | None, list[UnrecordedBundle]] = {}
        for bundle in self.bundles:
            followers.setdefault(bundle.signed.sums.previous, []).append(bundle)
        return followers


@dataclass(frozen=True)
class StoreParts:
    """Parts of the store that a search lists.

    Attributes:
        prefixes: of keys; an empty prefix stands for the whole store.
        unlisted: number of folders that are left out because there are too many.
    """

    prefixes: tuple[str, ...]
    unlisted: int = 0


def search_unrecorded(
    store: ObjectStore,
    conn: Connection,
    keys: TrustedKeys,
    prefixes: Collection[str],
    *,
    most_forged: int | None,
    unlisted: int = 0,
) -> UnrecordedBundles:
    """Search parts of the store for signed bundles that the ledger lacks.

    The search reads every file that may be a signature. Only folders without a trusted signature,
    and copies of a bundle, count against the bounds: too many of them make the search incomplete
    (`unchecked`). Copies of recorded bundles are not returned.

    Args:
        store: the evidence store.
        conn: the state database. Without the evidence lock, a bundle that is sealed meanwhile is
            recorded before its signature is stored, so it is not returned either.
        keys: public keys whose seals count.
        prefixes: of keys in the store; an empty prefix stands for the whole store.
        most_forged: objects read from folders without a trusted signature and from copies; None
            for no bound, also on their bytes.
        unlisted: number of folders that the prefixes leave out.

    Raises:
        StoreError: the store cannot be read.
    """
    folders = _signed_folders(store, prefixes)
    rows = ledger.of_bundles(conn, list(folders))
    recorded = {row.bundle for row in rows if row.is_authentic(keys)}
    marks = [mark for mark in checkpoints(conn) if mark.is_authentic(keys)]
    recorded |= {mark.bundle for mark in marks}
    is_recorded = _recorded_sums(conn, keys, [mark.sums_sha256 for mark in marks])
    bundles: list[UnrecordedBundle] = []
    digests: set[str] = set()
    unchecked = unlisted
    objects = total = 0
    # Smallest first, so that an intruder's large files use up the bounds last.
    for name in sorted(folders.keys() - recorded, key=lambda name: (_size(folders[name]), name)):
        if most_forged is not None and (objects >= most_forged or total >= MOST_FORGED_BYTES):
            unchecked += 1
            continue
        lacking = [
            UnrecordedBundle(name, sealed.signed, sealed)
            for sealed in sealed_folders(store, name, keys, folders[name])
            if not is_recorded(sealed.signed.sha256)
        ]
        bundles += lacking
        if not {bundle.signed.sha256 for bundle in lacking} <= digests:
            digests |= {bundle.signed.sha256 for bundle in lacking}
        else:
            objects += len(_signed_objects(folders[name]))
            total += _size(folders[name])
            # A reader of copies may read the result.json of each.
            total += sum(each.size for each in versions_to_try(folders[name].get(RESULT, ())))
            unchecked += _has_more(folders[name])
    return _sorted(bundles, unchecked)


def _sorted(bundles: Iterable[UnrecordedBundle], unchecked: int) -> UnrecordedBundles:
    newest = sorted(bundles, key=lambda each: (each.folder.signed_at, each.name), reverse=True)
    return UnrecordedBundles(tuple(newest), unchecked)


def _recorded_sums(
    conn: Connection, keys: TrustedKeys, pruned: Collection[str]
) -> Callable[[str], bool]:
    """Return a function that tells whether an authentic row or checkpoint has a digest."""
    places: dict[str, int] = {}

    @cache
    def is_recorded(sums_sha256: str) -> bool:
        if not places:
            places.update(ledger.places(conn))
        row = ledger.at(conn, places[sums_sha256]) if sums_sha256 in places else None
        return sums_sha256 in pruned or (row is not None and row.is_authentic(keys))

    return is_recorded


def recent_parts(
    store: ObjectStore, workflows: Iterable[str], since: datetime | None, now: datetime
) -> StoreParts:
    """Return the parts of the store that hold the bundles that were sealed since a moment.

    A folder's name has the month in which its run began, by the clock of another machine. So the
    months have no end, and begin before both moments. Folders tell which workflows there are.

    Args:
        store: the evidence store.
        workflows: names under which bundles are sealed. They are always searched; of others at
            most `MOST_PARTS` folders are listed.
        since: when the last bundle that is known was sealed; None for the whole store.
        now: the moment by this machine's clock, which may be wrong.

    Raises:
        StoreError: the store cannot be read.
    """
    if since is None:
        return StoreParts(("",))
    oldest = _month(min(since, now)) - LONGEST_RUN
    expected = {folder_name(workflow) for workflow in workflows}
    names = list(islice(store.folders(), MOST_PARTS + 1))
    is_complete = len(names) <= MOST_PARTS
    names = names[:MOST_PARTS]
    unlisted = 0 if is_complete else 1
    searched = expected & {*names} if is_complete else expected
    prefixes: list[str] = []
    listed = 0
    for name in [*sorted(searched), *(name for name in names if name not in expected)]:
        if name not in expected and listed >= MOST_PARTS:
            unlisted += 1
            continue
        if "." in name:
            # Interim bundles: each letter of an incident has a folder, which holds few of them.
            months, left_out = [f"{name.partition('.')[0]}."], 0
        else:
            months, left_out = _months_of(store, name, oldest)
        prefixes += months
        unlisted += left_out
        listed += 1 + len(months) if name not in expected else 0
    return StoreParts(tuple(dict.fromkeys(prefixes)), unlisted)


def _months_of(store: ObjectStore, name: str, oldest: int) -> tuple[list[str], int]:
    """Return prefixes of a workflow's months, oldest first, and how many folders are left out."""
    years = [year for year in store.folders(f"{name}/") if re.fullmatch("[0-9]{4}", year)]
    years = [year for year in sorted(years) if int(year) * 12 + 11 >= oldest]
    months = [
        (int(year) * 12 + int(month) - 1, f"{name}/{year}/{month}/")
        for year in years[:MONTHS]
        for month in store.folders(f"{name}/{year}/")
        if re.fullmatch("0[1-9]|1[0-2]", month)
    ]
    prefixes = [prefix for month, prefix in sorted(months) if month >= oldest]
    left_out = len(prefixes[MONTHS:]) + len(years[MONTHS:])
    return prefixes[:MONTHS], left_out


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
