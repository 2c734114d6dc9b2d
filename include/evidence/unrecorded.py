"""Find signed bundles of the evidence store that have no row in the evidence ledger.

Such bundles exist if an older backup of the state database was restored or if rows of the ledger
were deleted. The module reads all versions of the stored objects, so it finds a bundle even if
newer versions or delete markers hide its files.
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
from include.evidence.check import SignedSums, is_result_of_folder
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
    """A bundle that a trusted key signed, but that has no ledger row.

    Attributes:
        name: folder of the bundle.
        signed: SHA256SUMS of the bundle, whose signature was checked.
        folder: reads the sealed versions of the bundle's files.
    """

    name: str
    signed: SignedSums
    folder: SealedFolder


@dataclass(frozen=True)
class UnrecordedBundles:
    """The result of a search for signed bundles without a ledger row.

    Attributes:
        bundles: the bundles, newest signature first. A bundle that was copied to other folders is
            listed once for each folder.
        unchecked: number of folders that were not read, or not read completely, because the search
            reached a limit.
    """

    bundles: tuple[UnrecordedBundle, ...]
    unchecked: int = 0

    def has_bundle_of(self, row: LedgerRow) -> bool:
        """Return whether the search found the bundle that a ledger row describes.

        A copy of another bundle in the folder that the row names does not count.

        Raises:
            StoreError: the store cannot be read.
        """
        of_row = (bundle for bundle in self.bundles if bundle.name == row.bundle)
        results = (bundle.folder.read_result() for bundle in of_row)
        return any(
            result is not None and is_result_of_folder(result, row.bundle) for result in results
        )

    def direct_followers(self, link: Link | None) -> list[UnrecordedBundle]:
        """Return the bundles whose SHA256SUMS links to a given predecessor.

        More than one bundle is returned if a bundle was copied to other folders, or if two bundles
        were sealed after the same predecessor.

        Args:
            link: the link to the predecessor; None for bundles without a predecessor.
        """
        return self._followers.get(link, [])

    def chain_after(self, link: Link | None) -> list[UnrecordedBundle]:
        """Return the bundles that follow a given bundle in the chain of bundles, in chain order.

        Each bundle links to its predecessor. Several bundles can have the same position in the
        chain: copies of a bundle, or bundles that were sealed after the same predecessor. For each
        position, only one bundle is returned: the one with the newest signature, or the one whose
        predecessor has the newest signature.

        Args:
            link: the link to the given bundle; None for the start of the chain.
        """
        chain: list[UnrecordedBundle] = []
        following = self.direct_followers(link)
        while following:
            chain.append(following[0])
            links = dict.fromkeys(Link(bundle.name, bundle.signed.sha256) for bundle in following)
            following = [
                bundle for next_link in links for bundle in self.direct_followers(next_link)
            ]
        return chain

    def newest_first(self, link: Link | None) -> list[list[UnrecordedBundle]]:
        """Return all bundles, newest first. Each inner list contains a bundle and its copies.

        The bundles that follow `link` in the chain of bundles come before all other bundles,
        because they are certainly newer: an intruder can store copies of old bundles, but cannot
        append them to the chain.

        Args:
            link: the link to the last bundle that has a ledger row; None for the start of the
                chain.
        """
        copies: dict[str, list[UnrecordedBundle]] = {
            bundle.signed.sha256: [] for bundle in reversed(self.chain_after(link))
        }
        for bundle in self.bundles:
            copies.setdefault(bundle.signed.sha256, []).append(bundle)
        return list(copies.values())

    def joined(self, other: UnrecordedBundles) -> UnrecordedBundles:
        """Return the bundles that this search or another search found, without duplicates.

        The number of unchecked folders is taken from the other search.

        Args:
            other: result of a search that covers more folders of the store.
        """
        names = {(bundle.name, bundle.signed.sha256) for bundle in self.bundles}
        further = [
            bundle for bundle in other.bundles if (bundle.name, bundle.signed.sha256) not in names
        ]
        return _sorted([*self.bundles, *further], other.unchecked)

    @cached_property
    def _followers(self) -> dict[Link | None, list[UnrecordedBundle]]:
        """Return the bundles by the link in their SHA256SUMS: link -> bundles with this link."""
        followers: dict[Link | None, list[UnrecordedBundle]] = {}
        for bundle in self.bundles:
            followers.setdefault(bundle.signed.sums.previous, []).append(bundle)
        return followers


@dataclass(frozen=True)
class StoreParts:
    """The parts of the evidence store in which a search looks for bundles.

    Attributes:
        prefixes: prefixes of object keys. An empty prefix means the whole store.
        unlisted: number of folders that the search leaves out, because there are too many; 0 if the
            search covers everything.
    """

    prefixes: tuple[str, ...]
    unlisted: int = 0


def search_unrecorded(
    store: ObjectStore,
    conn: Connection,
    keys: TrustedKeys,
    prefixes: Collection[str],
    *,
    object_limit: int | None,
    unlisted: int = 0,
) -> UnrecordedBundles:
    """Search folders of the store for signed bundles that have no ledger row.

    The search reads every file that may be a signature. For folders without a trusted signature and
    for copies of bundles, the number of objects and bytes is limited. If the limit is reached, the
    search is incomplete, and `unchecked` of the result is above 0. If a bundle has a ledger row,
    its copies in other folders are not returned.

    Args:
        store: the evidence store.
        conn: connection to the state database. The caller does not need the lock
            `StateLock.EVIDENCE`: a seal that runs at the same time commits its ledger row before it
            stores the signature, so its bundle is not returned.
        keys: public keys whose seals are accepted.
        prefixes: prefixes of object keys. An empty prefix means the whole store.
        object_limit: maximum number of objects that are read from folders without a trusted
            signature and from copies. None for no limit on objects and bytes.
        unlisted: number of folders that the prefixes leave out. It is added to `unchecked`.

    Raises:
        StoreError: the store cannot be read.
    """
    folders = _signed_folders(store, prefixes)
    rows = ledger.rows_of_bundles(conn, list(folders))
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
        if object_limit is not None and (objects >= object_limit or total >= MOST_FORGED_BYTES):
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
            # A caller may also read the result.json of each copy.
            total += sum(version.size for version in versions_to_try(folders[name].get(RESULT, ())))
            unchecked += _has_more(folders[name])
    return _sorted(bundles, unchecked)


def _sorted(bundles: Iterable[UnrecordedBundle], unchecked: int) -> UnrecordedBundles:
    newest = sorted(
        bundles, key=lambda bundle: (bundle.folder.signed_at, bundle.name), reverse=True
    )
    return UnrecordedBundles(tuple(newest), unchecked)


def _recorded_sums(
    conn: Connection, keys: TrustedKeys, pruned: Collection[str]
) -> Callable[[str], bool]:
    """Return a function that checks whether a SHA256SUMS digest is recorded in the state database.

    A digest is recorded if an authentic ledger row contains it or if it is one of `pruned`.

    Args:
        conn: connection to the state database.
        keys: public keys whose signatures are accepted.
        pruned: digests in the checkpoints.
    """
    seqs: dict[str, int] = {}

    @cache
    def is_recorded(sums_sha256: str) -> bool:
        if not seqs:
            seqs.update(ledger.seqs_by_digest(conn))
        row = ledger.row_at(conn, seqs[sums_sha256]) if sums_sha256 in seqs else None
        return sums_sha256 in pruned or (row is not None and row.is_authentic(keys))

    return is_recorded


def recent_parts(
    store: ObjectStore, workflows: Iterable[str], since: datetime | None, now: datetime
) -> StoreParts:
    """Return the parts of the store that can contain bundles sealed since a given time.

    The path of a bundle contains the month in which its run started, by the clock of the machine
    that ran it. A bundle may be sealed up to 6 months after this start. The search therefore begins
    6 months before the earlier of `since` and `now`, and includes all later months. The function
    lists the folders of the store to find workflows that are not in `workflows`.

    Args:
        store: the evidence store.
        workflows: workflow names under which bundles are sealed. Their folders are always included.
            Of all other workflows together, at most 2000 folders are included.
        since: when the last bundle of the ledger was sealed; None for the whole store.
        now: the current time by this machine's clock, which may be wrong.

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
            # Interim bundles: each document of an incident has a folder with few bundles.
            months, left_out = [f"{name.partition('.')[0]}."], 0
        else:
            months, left_out = _months_of(store, name, oldest)
        prefixes += months
        unlisted += left_out
        listed += 1 + len(months) if name not in expected else 0
    return StoreParts(tuple(dict.fromkeys(prefixes)), unlisted)


def _months_of(store: ObjectStore, name: str, oldest: int) -> tuple[list[str], int]:
    """Return the key prefixes of a workflow's month folders, from a given month on, oldest first.

    Args:
        store: the evidence store.
        name: folder of the workflow.
        oldest: the given month, counted in months since the year 0.

    Returns:
        At most 36 prefixes, and the number of folders that are left out.
    """
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
    """Return the folders with a signature and SHA256SUMS, and the versions of their files.

    Delete markers are left out, and so are versions that are too large to be written by a seal.
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
    """Return whether a search leaves versions of a folder's signature or SHA256SUMS unread.

    Of each file, `search_unrecorded` reads only the current version and a limited number of the
    oldest versions.

    Args:
        files: file name -> stored versions of the file.
    """
    return sum(len(files[name]) for name in (SIGNATURE, SUMS)) > len(_signed_objects(files))


def _size(files: Versions) -> int:
    return sum(version.size for version in _signed_objects(files))


def _signed_objects(files: Versions) -> list[ObjectVersion]:
    """Return the versions of the signature and of SHA256SUMS that `search_unrecorded` reads.

    Args:
        files: file name -> stored versions of the file in one folder.
    """
    return [version for name in (SIGNATURE, SUMS) for version in versions_to_try(files[name])]
