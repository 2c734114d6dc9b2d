"""``parcelseal verify``: does the evidence hold?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from include.cli.console import errors, json_row, print_json, print_line, results
from include.cli.options import AsJson
from include.cli.stack import local_stack, workplace
from include.evidence.folder import DEPTH
from include.services.errors import UsageError

if TYPE_CHECKING:
    from include.evidence.folder import Folder
    from include.evidence.verify import Verification
    from include.workplace import Workplace


def verify(
    path: Annotated[str | None, typer.Argument(help="One bundle: its folder.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every bundle and the chain.")] = False,
    as_json: AsJson = False,
) -> int:
    """Verify files, signatures and the chain; name the first bad bundle."""
    if bool(path) == every:
        raise UsageError("Say which bundle to verify, or --all.", "See ./parcelseal verify --help.")
    checked = check(path)
    if as_json:
        print_json(json_row(checked, "verified", "bundles", "first_bad", "reason"))
    else:
        _show(checked)
    return 0 if checked.verified else 1


def check(path: str | None) -> Verification:
    """Verify one bundle, or all of them where no path is given."""
    from include.evidence.verify import verify_all, verify_one, verify_path

    with local_stack(workplace()) as place:
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
    from include.evidence.folder import DiskFolder, StoreFolder, is_bundle_path

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

    from include.messages import in_english
    from include.reports.i18n import visible

    # A bundle from elsewhere may name its files as it likes.
    if checked.verified:
        results.print(f"verified: {checked.bundles} bundles")
    else:
        bad = visible(str(checked.first_bad))
        errors.print(Text.assemble(("not verified", "bold red"), f": {bad}"), soft_wrap=True)
        errors.print(Text(f"  {visible(str(checked.reason))}"), soft_wrap=True)
    for remark in checked.remarks:
        errors.print(Text(f"  remark: {visible(in_english(remark))}"), soft_wrap=True)
    if checked.commands:
        results.print("Check it without ParcelSeal:")
        for line in checked.commands:
            print_line(f"  {line}")


def recover_ledger(
    accept_losses: Annotated[
        bool,
        typer.Option(help="Go on without the rows that the state database lost; needs --by."),
    ] = False,
    by: Annotated[str, typer.Option(help="Who accepts the loss.")] = "",
    because: Annotated[str, typer.Option(help="Why the rows cannot be brought back.")] = "",
) -> int:
    """Enter bundles of the store that the ledger lost, after state_db was restored from a backup.

    Only bundles that carry a trusted seal and continue the chain are taken. Then name the erasures,
    holds, requests and findings that bundles sealed and the state database lacks, and entries of
    the erasure ledger that are gone or were changed: no bundle can bring them back.
    """
    from include.evidence.adopt import lock_end
    from include.evidence.adopt import recover_ledger as recover
    from include.evidence.signing import TrustedKeys

    with local_stack(workplace()) as place:
        store = place.store("evidence_store")
        with place.state.connect() as conn:
            entered = recover(
                store,
                conn,
                place.signer,
                TrustedKeys(place.trusted),
                place.clock,
                lock_end(store, place.clock, place.pack.evidence),
            )
        for bundle in entered:
            results.print(f"entered  {bundle}", soft_wrap=True)
        results.print(f"{len(entered)} bundles entered")
        if accept_losses:
            return _accept_losses(place, by, because)
        return _show_losses(place)


def _show_losses(place: Workplace) -> int:
    """Print what the state database lacks; 1 where it lacks anything."""
    from include.messages import in_english

    reader = place.registers()
    sealed = reader.sealed_states(place.clock.now())
    entries_lost = _show_lost_entries(place)
    if not sealed.states and not sealed.unreadable and not sealed.unchecked:
        results.print("no bundle says what the state database held: compare it with the reports")
        return 1 if entries_lost else 0
    lost = reader.losses(sealed)
    if sealed.unchecked:
        errors.print(
            f"{sealed.unchecked} folders of the evidence store could not be checked: too many "
            "others hold a signature that no trusted key made. Find out who writes to the store, "
            "and remove these folders.",
            soft_wrap=True,
        )
    for bundle in sealed.unreadable:
        cause = "no trusted key signed its ledger row" if bundle in sealed.untrusted else ""
        errors.print(
            f"[bold red]not read[/bold red]  {bundle}: {cause or 'it does not verify'}, so its "
            "figures are unknown",
            soft_wrap=True,
        )
    for gap in sealed.gaps:
        errors.print(
            f"[bold red]missing[/bold red]  rows {gap.first} to {gap.last} of the evidence ledger: "
            "the store has no bundle that fits",
            soft_wrap=True,
        )
    for loss in lost:
        errors.print(f"[bold red]lost[/bold red]  {in_english(loss.message)}", soft_wrap=True)
    incomplete = bool(lost or sealed.unchecked or sealed.unreadable or sealed.gaps or entries_lost)
    if sealed.states:
        newest = max(state.read_at for state in sealed.states)
        begin = "what else" if incomplete else "nothing that was sealed is missing; what"
        results.print(
            f"{begin} was entered after {newest:%Y-%m-%d %H:%M:%S %Z}, when the newest bundle was "
            "sealed, is in no figure. "
            "Approvals, incidents, reviews of partners, training, the quarantine register and "
            "messages have no figures: compare them with the reports of the bundles.",
            soft_wrap=True,
        )
    if lost or sealed.unreadable:
        errors.print(
            "Drills, restores, retention and pruning refuse to rely on these registers. Restore "
            "the state database from a newer backup, put the files of bundles back, and trust the "
            "keys that signed them. If that cannot be done: find the rows in reports "
            "and files, enter holds and requests again, then accept the loss with "
            '--accept-losses --by NAME --because "..."',
            soft_wrap=True,
        )
    return 1 if incomplete else 0


def _show_lost_entries(place: Workplace) -> bool:
    """Print the entries of the erasure ledger that are lost or changed; return whether any are."""
    from include.erasure.ledger import entry_losses

    with place.state.connect() as conn:
        losses = entry_losses(conn)
    for loss in losses:
        kind = "lost" if loss.missing else "changed"
        gone = f"{loss.missing} entries of the erasure ledger are missing; " if loss.missing else ""
        errors.print(
            f"[bold red]{kind}[/bold red]  {loss.database}/{loss.collection}: {gone}"
            f"{loss.changed_batches} batches have other entries than were settled",
            soft_wrap=True,
        )
    if losses:
        errors.print(
            "Sealed figures cover batches, not entries, so --accept-losses does not accept these "
            "losses. Drills and restores refuse to rely on the erasure ledger, and retention does "
            "while entries are missing. Restore the state database from a backup that has the "
            'entries. If none has them: docs/evidence.md, "When no backup has the entries".',
            soft_wrap=True,
        )
    return bool(losses)


def _accept_losses(place: Workplace, by: str, because: str) -> int:
    """Accept rows that sealed figures lack; return 1 if entries are lost, which stay unaccepted."""
    from include.evidence.registers import accept_losses

    accepted = accept_losses(place.registers(), place.signer, place.clock, by=by, because=because)
    if accepted is None:
        results.print("no row of a sealed figure is missing, so nothing was accepted")
    else:
        names = ", ".join([*sorted(accepted.lost), *accepted.unread])
        results.print(f"accepted by {accepted.accepted_by}: {names}; the next bundle says so")
    return 1 if _show_lost_entries(place) else 0
