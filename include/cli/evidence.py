"""Commands ``parcelseal verify`` and ``parcelseal recover-ledger`` for bundles and their ledger."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from include.cli.console import errors, json_row, print_json, print_line, results
from include.cli.options import AsJson
from include.cli.stack import command_services, local_stack
from include.evidence.folder import DEPTH
from include.services.errors import UsageError

if TYPE_CHECKING:
    from include.evidence.folder import Folder
    from include.evidence.verify import Verification
    from include.service_container import Services


def verify(
    path: Annotated[
        str | None, typer.Argument(help="Folder of the bundle to verify; without it, use --all.")
    ] = None,
    every: Annotated[
        bool,
        typer.Option("--all", help="Verify every bundle, and the chain that links the bundles."),
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Verify the files, signatures and chain of bundles, and print the first invalid bundle.

    Exit code 1: a bundle is invalid.
    """
    if bool(path) == every:
        raise UsageError(
            "Name a bundle to verify, or use --all.", "See ./parcelseal verify --help."
        )
    checked = check(path)
    if as_json:
        print_json(json_row(checked, "verified", "bundles", "first_bad", "reason"))
    else:
        _show(checked)
    return 0 if checked.verified else 1


def check(path: str | None) -> Verification:
    """Verify one evidence bundle, or all bundles of the evidence store.

    Args:
        path: folder of the bundle; None to verify all bundles.
    """
    from include.evidence.verify import verify_all, verify_one, verify_path

    with local_stack(command_services()) as services:
        store = services.store("evidence_store")
        if path is None:
            with services.state.connect() as conn:
                return verify_all(store, conn, services.trusted)
        inside = _inside(path, store.description)
        if inside is not None:
            with services.state.connect() as conn:
                return verify_one(store, inside, services.trusted, conn)
        return verify_path(Path(path), services.trusted)


def folder_of(path: str) -> Folder:
    """Return an object that reads the files of an evidence bundle.

    Args:
        path: folder of the bundle in the evidence store, or any other folder on a disk.

    Raises:
        UsageError: the folder does not exist.
    """
    from include.evidence.folder import DiskFolder, StoreFolder

    services = command_services()
    store = services.store("evidence_store")
    inside = _inside(path, store.description)
    if inside is not None:
        return StoreFolder(store, inside.strip("/"))
    if not Path(path).is_dir():
        raise UsageError(f"The folder {path} does not exist.")
    return DiskFolder(Path(path))


def other_bundle_folder(path: str, other: str) -> Folder | None:
    """Return the folder of the bundle `other`, which is in the same store as the bundle at `path`.

    Return None if the folder does not exist.

    Args:
        path: path of a bundle in the evidence store, or in a copy of the evidence store on a disk.
            In a copy, `other` is looked up relative to this path.
        other: path of the other bundle's folder, relative to the evidence store.
    """
    from include.evidence.folder import DiskFolder, StoreFolder, is_bundle_path

    if not is_bundle_path(other):
        return None
    store = command_services().store("evidence_store")
    if _inside(path, store.description) is not None:
        folder = StoreFolder(store, other)
        return folder if folder.names() else None
    near = Path(path).absolute().parents
    neighbour = near[DEPTH - 1] / other if len(near) >= DEPTH else Path(path) / other
    return DiskFolder(neighbour) if neighbour.is_dir() else None


def _inside(path: str, store: str) -> str | None:
    """Return the relative path of a folder in the evidence store; None if the folder is not in it.

    Args:
        path: path of the folder, or its address that starts with ``s3://``.
        store: path or address of the evidence store.
    """
    if path.startswith("s3://"):
        return path.removeprefix(store.rstrip("/")).strip("/")
    full = Path(path).absolute()
    base = Path(store)
    return full.relative_to(base).as_posix() if full.is_relative_to(base) else None


def _show(checked: Verification) -> None:
    from rich.text import Text

    from include.messages import in_english
    from include.reports.i18n import visible

    # File names in a bundle of another origin may contain markup.
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
        typer.Option(
            help="Accept that the state database lost rows, so that runs continue without "
            "them. Needs --by."
        ),
    ] = False,
    by: Annotated[str, typer.Option(help="User id of the person who accepts the loss.")] = "",
    because: Annotated[str, typer.Option(help="Reason why the rows cannot be restored.")] = "",
) -> int:
    """Add missing bundles to the evidence ledger, after state_db was restored from a backup.

    A bundle is added only if it has a trusted seal and continues the chain of bundles. Then the
    command compares the state database with the figures in sealed bundles, and lists the erasures,
    legal holds and erasure requests that are missing. Bundles that the history of controls lacks
    are added to it.

    Exit code 1: the state database still lacks entries.
    """
    from include.evidence.control_index import fill_index
    from include.evidence.ledger_recovery import lock_end
    from include.evidence.ledger_recovery import recover_ledger as recover
    from include.evidence.signing import TrustedKeys

    with local_stack(command_services()) as services:
        store = services.store("evidence_store")
        with services.state.connect() as conn:
            entered = recover(
                store,
                conn,
                services.signer,
                TrustedKeys(services.trusted),
                services.clock,
                lock_end(store, services.clock, services.pack.evidence),
            )
            indexed = 0
            while added := fill_index(store, conn, TrustedKeys(services.trusted)):
                indexed += added
        for bundle in entered:
            results.print(f"entered  {bundle}", soft_wrap=True)
        results.print(f"{len(entered)} bundles entered")
        if indexed:
            results.print(f"{indexed} bundles added to the history of controls")
        if accept_losses:
            return _accept_losses(services, by, because)
        return _show_losses(services)


def _show_losses(services: Services) -> int:
    """Print which rows the registers of the state database have lost.

    Sealed bundles state how many rows the registers had. The rows that are now missing are lost.

    Returns:
        Exit code: 1 if rows are missing or bundles could not be checked, otherwise 0.
    """
    from include.messages import in_english

    reader = services.registers()
    sealed = reader.sealed_states(services.clock.now())
    entries_lost = _show_lost_entries(services)
    if not sealed.states and not sealed.unreadable and not sealed.unchecked:
        results.print("no bundle has figures of the state database: compare it with the reports")
        return 1 if entries_lost else 0
    lost = reader.losses(sealed)
    if sealed.unchecked:
        errors.print(
            f"{sealed.unchecked} folders of the evidence store could not be checked, because too "
            "many other folders have a signature of an unknown key. Find out who writes to the "
            "store, and remove these folders.",
            soft_wrap=True,
        )
    for bundle in sealed.unreadable:
        cause = (
            "its ledger row is not signed by a trusted key" if bundle in sealed.untrusted else ""
        )
        errors.print(
            f"[bold red]not read[/bold red]  {bundle}: {cause or 'it is not valid'}, so its "
            "figures are unknown",
            soft_wrap=True,
        )
    for gap in sealed.gaps:
        errors.print(
            f"[bold red]missing[/bold red]  rows {gap.first} to {gap.last} of the evidence ledger: "
            "the store has no matching bundle",
            soft_wrap=True,
        )
    for loss in lost:
        errors.print(f"[bold red]lost[/bold red]  {in_english(loss.message)}", soft_wrap=True)
    incomplete = bool(lost or sealed.unchecked or sealed.unreadable or sealed.gaps or entries_lost)
    if sealed.states:
        newest = max(state.read_at for state in sealed.states)
        complete = "" if incomplete else "all sealed entries are present; "
        results.print(
            f"{complete}figures do not cover entries after {newest:%Y-%m-%d %H:%M:%S %Z}, when the "
            "newest bundle was sealed. Approvals, incidents, reviews of partners, training, the "
            "quarantine register and messages have no figures: compare them with the reports of "
            "the bundles.",
            soft_wrap=True,
        )
    if lost or sealed.unreadable:
        errors.print(
            "Drills, restores, retention and pruning stop until these registers are complete. "
            "Restore the state database from a newer backup, restore the files of the bundles, and "
            "trust the keys that signed them. If this is not possible, find the rows in reports "
            "and files, enter holds and requests again, then accept the loss with "
            '--accept-losses --by NAME --because "..."',
            soft_wrap=True,
        )
    return 1 if incomplete else 0


def _show_lost_entries(services: Services) -> bool:
    """Print how many entries of the erasure ledger are missing or changed.

    Returns:
        True if at least one entry is missing or changed.
    """
    from include.erasure.ledger import find_entry_losses

    with services.state.connect() as conn:
        losses = find_entry_losses(conn)
    for loss in losses:
        kind = "lost" if loss.missing else "changed"
        gone = f"{loss.missing} entries of the erasure ledger are missing; " if loss.missing else ""
        errors.print(
            f"[bold red]{kind}[/bold red]  {loss.database}/{loss.collection}: {gone}"
            f"{loss.changed_batches} batches have other entries than when they were settled",
            soft_wrap=True,
        )
    if losses:
        errors.print(
            "--accept-losses does not accept these losses, because sealed figures cover batches "
            "and not entries. Drills and restores stop until the erasure ledger is complete; "
            "retention stops while entries are missing. Restore the state database from a "
            "backup that has "
            'the entries. If no backup has them, see "When no backup has the entries" in '
            "docs/how-to/recover-lost-records.md.",
            soft_wrap=True,
        )
    return bool(losses)


def _accept_losses(services: Services, by: str, because: str) -> int:
    """Record that a person accepts that rows of the state database are lost.

    These are rows of registers that were counted when bundles were sealed and that are now missing.
    A loss of entries of the erasure ledger cannot be accepted.

    Args:
        services: connections and policy pack.
        by: user id of the person who accepts the loss.
        because: reason why the rows cannot be restored.

    Returns:
        Exit code: 1 if entries of the erasure ledger are missing or changed, otherwise 0.
    """
    from include.evidence.registers import accept_losses

    accepted = accept_losses(
        services.registers(), services.signer, services.clock, by=by, because=because
    )
    if accepted is None:
        results.print("no sealed row is missing, so no loss was accepted")
    else:
        names = ", ".join([*sorted(accepted.lost), *accepted.unread])
        results.print(f"accepted by {accepted.accepted_by}: {names}; the next bundle records it")
    return 1 if _show_lost_entries(services) else 0
