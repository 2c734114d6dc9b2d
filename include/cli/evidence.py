"""``parcelseal verify``: does the evidence hold?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from include.cli.console import errors, print_json, results
from include.cli.stack import local_stack, workplace
from include.evidence.names import DEPTH
from include.services.errors import UsageError

if TYPE_CHECKING:
    from include.evidence.folder import Folder
    from include.evidence.verify import Verification


def verify(
    path: Annotated[str | None, typer.Argument(help="One bundle: its folder.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every bundle and the chain.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> int:
    """Verify files, signatures and the chain; name the first bad bundle."""
    if bool(path) == every:
        raise UsageError("Say which bundle to verify, or --all.", "See ./parcelseal verify --help.")
    checked = check(path)
    if as_json:
        print_json(
            {
                "verified": checked.verified,
                "bundles": checked.bundles,
                "first_bad": checked.first_bad,
                "reason": checked.reason,
            }
        )
    else:
        _show(checked)
    return 0 if checked.verified else 1


def check(path: str | None) -> Verification:
    """Verify one bundle, or all of them where no path is given."""
    from include.evidence.verify import verify_all, verify_one, verify_path

    place = workplace()
    with local_stack(place):
        store = place.store("evidence_store")
        if path is None:
            with place.state.connect() as conn:
                return verify_all(store, conn, place.trusted)
        inside = _inside(path, store.description)
        if inside is not None:
            with place.state.connect() as conn:
                return verify_one(store, inside, place.trusted, conn)
        return verify_path(Path(path), place.trusted)


def folder_of(path: str) -> Folder:
    """Return a bundle's folder, in the evidence store or on a disk.

    Raises:
        UsageError: there is no such folder.
    """
    from include.evidence.folder import DiskFolder, StoreFolder

    place = workplace()
    store = place.store("evidence_store")
    inside = _inside(path, store.description)
    if inside is not None:
        return StoreFolder(store, inside.strip("/"))
    if not Path(path).is_dir():
        raise UsageError(f"There is no folder {path}.")
    return DiskFolder(Path(path))


def beside(path: str, other: str) -> Folder | None:
    """Return another bundle of the store that a bundle lies in; None where it is not at hand."""
    from include.evidence.folder import DiskFolder, StoreFolder
    from include.evidence.names import is_bundle_path

    if not is_bundle_path(other):
        return None
    store = workplace().store("evidence_store")
    if _inside(path, store.description) is not None:
        folder = StoreFolder(store, other)
        return folder if folder.names() else None
    near = Path(path).absolute().parents
    found = near[DEPTH - 1] / other if len(near) >= DEPTH else Path(path) / other
    return DiskFolder(found) if found.is_dir() else None


def _inside(path: str, store: str) -> str | None:
    """Return the bundle's key when the path lies in the evidence store."""
    if path.startswith("s3://"):
        return path.removeprefix(store.rstrip("/")).strip("/")
    full = Path(path).absolute()
    base = Path(store)
    return full.relative_to(base).as_posix() if full.is_relative_to(base) else None


def _show(checked: Verification) -> None:
    from rich.text import Text

    from include.reports.i18n import visible

    # A bundle from elsewhere may name its files as it likes.
    if checked.verified:
        results.print(f"verified: {checked.bundles} bundles")
    else:
        bad = visible(str(checked.first_bad))
        errors.print(Text.assemble(("not verified", "bold red"), f": {bad}"), soft_wrap=True)
        errors.print(Text(f"  {visible(str(checked.reason))}"), soft_wrap=True)
    for remark in checked.remarks:
        told = visible(remark.text.format(**remark.values))
        errors.print(Text(f"  remark: {told}"), soft_wrap=True)
    if checked.commands:
        results.print("Check it without ParcelSeal:")
        for line in checked.commands:
            results.print(f"  {line}", soft_wrap=True, markup=False)


def recover_ledger() -> int:
    """Enter bundles of the store that the ledger lost, after state_db was restored from a backup.

    Only bundles that carry a trusted seal and continue the chain are taken.
    """
    from include.evidence.adopt import recover_ledger as recover
    from include.evidence.signing import TrustedKeys

    place = workplace()
    with local_stack(place), place.state.connect() as conn:
        entered = recover(
            place.store("evidence_store"),
            conn,
            place.signer,
            TrustedKeys(place.trusted),
            place.clock,
        )
    for bundle in entered:
        results.print(f"entered  {bundle}", soft_wrap=True)
    results.print(f"{len(entered)} bundles entered")
    return 0
