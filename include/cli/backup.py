"""``parcelseal backup`` and ``parcelseal restore``. In an emergency, they work without Airflow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from include.cli.console import complain, errors, print_json, results, tell
from include.cli.erasures_of_restore import (
    count_erasures,
    is_complete,
    replay_erasures,
    require_findable_records,
    state_is_blank,
)
from include.cli.options import AsJson
from include.cli.stack import command_services, local_stack
from include.cli.table import print_table
from include.service_container import Services
from include.services import stopping
from include.services.errors import ParcelSealError, UsageError

if TYPE_CHECKING:
    from include.backup.access import TargetAccess
    from include.backup.archive_entry import Entry
    from include.backup.manifest import Rejected, RestorePoint
    from include.backup.operations import KnownOperations
    from include.backup.point_folder import HiddenObject
    from include.encryption.recipients import OpeningKey
    from include.services.objectstore.base import ObjectStore

COLUMNS = ("id", "database", "taken_at", "bytes", "tables", "rows", "held", "expires_at")

app = typer.Typer(help="Restore points in the off-site store.", no_args_is_help=True)


@app.callback()
def backups() -> None:
    """List the restore points in the off-site store."""


@app.command("list")
def list_(
    database: Annotated[
        str | None, typer.Option(help="List only the restore points of this mapped database.")
    ] = None,
    as_json: AsJson = False,
) -> int:
    """List every restore point that has a manifest with a valid signature.

    Exit code 1: a manifest was refused, or an object of a restore point was deleted or overwritten.
    """
    from include.backup.listing import listed_points

    services = command_services()
    names = [services.pack.database(database).name] if database else list(services.pack.databases)
    with local_stack(services):
        store = services.store("offsite_store")
        listed: list[dict[str, Any]] = []
        refused, hidden = [], []
        for name in names:
            read_operations = _operations_reader(services, name, store)
            points, rejected = listed_points(
                store, name, services.trusted_for_manifests, read_operations
            )
            refused += rejected
            hidden += [hidden_object for point in points for hidden_object in point.hidden]
            held = _held(services, name, [point.id for point in points])
            listed += [_row(point, held) for point in points]
    _report_refused(refused)
    _report_hidden(hidden)
    if as_json:
        print_json({"restore_points": listed})
    else:
        _show(listed)
    return 1 if refused or hidden else 0


def restore(
    database: Annotated[str, typer.Option(help="Name of the mapped database that was backed up.")],
    into: Annotated[
        str,
        typer.Option(
            help="Database into which the backup is restored: "
            "postgresql://user:password@host/database."
        ),
    ],
    key: Annotated[
        str,
        typer.Option(
            help="Private key of one of the backup's recipients: a PEM file, or the ARN of a "
            "KMS key."
        ),
    ],
    point: Annotated[
        str, typer.Option(help="Id of a restore point, as `backup list` shows it, or `latest`.")
    ] = "latest",
    jobs: Annotated[
        int,
        typer.Option(
            min=1, max=64, help="Number of tables and indexes that are loaded in parallel."
        ),
    ] = 2,
    owners: Annotated[
        bool, typer.Option(help="Restore the owners of objects and the grants too.")
    ] = False,
    into_existing: Annotated[
        bool, typer.Option(help="Load the backup although the target already has tables.")
    ] = False,
    skip_erasures: Annotated[
        bool,
        typer.Option(help="Do not replay erasures. Use this only if state_db is permanently lost."),
    ] = False,
    incomplete_ledger: Annotated[
        bool,
        typer.Option(
            help="Replay the erasures in the erasure ledger, although it lacks erasures that "
            "sealed bundles prove."
        ),
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Restore a database from a restore point, compare it with the original, and replay erasures.

    Exit code 1: the restored copy differs from the original, or it still contains an erased record.
    """
    from include.backup.access import TargetAccess, sole_restore
    from include.backup.listing import raising_point_removed
    from include.backup.restore import refuse_live
    from include.backup.restore import restore as load
    from include.backup.scratch import without_event_triggers
    from include.backup.source import Source
    from include.services.database import DatabaseAddress

    services = command_services()
    address = DatabaseAddress.from_conninfo(into)
    mapped = services.pack.database(database)
    with local_stack(services), sole_restore(address) as confirm_alone, ExitStack() as stack:
        target = without_event_triggers(address)
        refuse_live(target, services.database(mapped.connection))
        chosen = _choose(services, database, point)
        keep_closed = skip_erasures
        if not skip_erasures:
            count_erasures(services, database, incomplete_is_accepted=incomplete_ledger)
            keep_closed = not is_complete(
                services, database, incomplete_is_accepted=incomplete_ledger
            )
        tell(f"restore point {chosen.id}, taken {chosen.manifest.taken_at:%Y-%m-%d %H:%M:%S %Z}")
        source = Source(services.store("offsite_store"), chosen.manifest, _key(services, key))
        access = TargetAccess(target, owners=owners, is_new=not into_existing)
        stack.enter_context(_report_interrupted_copy(access))

        def prepare(head: bytes, entries: Sequence[Entry]) -> None:
            if not skip_erasures:
                require_findable_records(services, mapped, chosen, entries)
            access.close(head, entries)

        read_operations = _operations_reader(services, database, source.store)
        with raising_point_removed(source.store, database, chosen.id, read_operations):
            restored = load(
                source,
                target,
                jobs=jobs,
                owners=owners,
                allow_content=into_existing,
                progress=tell,
                prepare=prepare,
            )
        # Read again now: a long restore may have begun before the newest erasures.
        # A loss that happened since the restore began is refused.
        done = (
            None
            if skip_erasures
            else replay_erasures(services, mapped, target, incomplete_is_accepted=keep_closed)
        )
        if skip_erasures:
            errors.print(
                "[bold red]erasures were not replayed[/bold red]: the copy may contain erased "
                "people; keep it closed until the erasures are replayed.",
                soft_wrap=True,
            )
        is_opened = not (restored.differences or keep_closed)
        if not is_opened:
            errors.print(
                f"The copy was not opened: owners and grants are not set. {access.connect_state}",
                soft_wrap=True,
            )
        else:
            confirm_alone()
            access.open()
            if access.keeps_public_out:
                errors.print(
                    "As before this restore, only roles with their own grant may connect to the "
                    "target. To let all roles connect, GRANT CONNECT to PUBLIC.",
                    soft_wrap=True,
                )
    replayed, remasked = (done.replayed, done.remasked) if done else (0, 0)
    report = {
        "restore_point": chosen.id,
        "tables": restored.tables,
        "rows": restored.rows,
        "seconds": round(restored.seconds, 3),
        "erasures_replayed": replayed,
        "remasked": remasked,
        "matches_manifest": not restored.differences,
        "left_out": list(restored.left_out),
        "checked_by": source.checked_by,
        "opened": is_opened,
    }
    if as_json:
        print_json(report)
    else:
        results.print(
            f"{restored.tables} tables, {restored.rows:,} rows in {restored.seconds:.1f} s; "
            f"{replayed} erasures replayed, {remasked} records masked again"
        )
    if restored.left_out:
        errors.print(
            f"not restored, create by hand (docs/how-to/restore.md, After the restore): "
            f"{'; '.join(restored.left_out)}",
            soft_wrap=True,
        )
    if restored.differences:
        errors.print(
            f"[bold red]differs from its manifest[/bold red]: "
            f"{', '.join(restored.differences[:10])}. Do not use this database."
        )
        return 1
    return 0


@contextmanager
def _report_interrupted_copy(access: TargetAccess) -> Iterator[None]:
    """Print the state of the target database if a signal interrupts a restore.

    Nothing is printed if the restore has not changed the target database.
    """
    from include.backup.restore import interrupted_copy

    try:
        yield
    except BaseException:
        if stopping.interruption() and access.is_unfinished:
            with suppress(ParcelSealError):
                left = interrupted_copy(
                    access.target, had_content=not access.is_new, was_closed=access.is_closed
                )
                if left:
                    complain(left.message, left.action)
        raise


def _choose(services: Services, database: str, point: str) -> RestorePoint:
    from include.backup import manifest as manifests
    from include.backup.listing import listed_points, raising_point_removed

    store = services.store("offsite_store")
    read_operations = _operations_reader(services, database, store)
    if point != "latest":
        with raising_point_removed(store, database, point, read_operations):
            chosen = manifests.load(store, database, point, services.trusted_for_manifests)
        _report_changes(chosen)
        return chosen
    points, rejected = listed_points(
        store, database, services.trusted_for_manifests, read_operations
    )
    _report_refused(rejected)
    if not points:
        raise UsageError(
            f"There is no restore point of {database} in {store.description}.",
            "List the restore points with ./parcelseal backup list.",
        )
    _report_changes(points[-1])
    return points[-1]


def _report_changes(point: RestorePoint) -> None:
    _report_hidden(point.hidden)
    if point.is_copy:
        errors.print(
            f"[bold]copy:[/bold] {escape(point.manifest.dump.key)} is not the version that was "
            "signed, as in a copy of the store; its digest is checked instead",
            soft_wrap=True,
        )


def _report_refused(refused: Iterable[Rejected]) -> None:
    for rejected in refused:
        text = f"[bold red]refused:[/bold red] {escape(rejected.key)}: {escape(rejected.reason)}"
        errors.print(text, soft_wrap=True)


def _report_hidden(hidden: Iterable[HiddenObject]) -> None:
    for hidden_object in hidden:
        reason = hidden_object.message.text
        text = f"[bold red]hidden:[/bold red] {escape(hidden_object.key)}: {reason}"
        errors.print(text, soft_wrap=True)


def _key(services: Services, key: str) -> OpeningKey:
    from include.encryption.recipients import KMS_KIND, OpeningKey, opening_key_from_pem

    if key.startswith("arn:"):
        from include.services.aws import kms_client

        return OpeningKey(KMS_KIND, key, client=kms_client(services.connection("offsite_store")))
    path = Path(key).expanduser()
    try:
        return opening_key_from_pem(path.read_bytes(), str(path))
    except OSError as error:
        raise UsageError(
            f"The key file {path} cannot be read: {error.strerror}.",
            "Name a readable key file with --key.",
        ) from None


def _held(services: Services, database: str, points: list[str]) -> set[str] | None:
    """Return the ids of the restore points that are on legal hold.

    Return None if the state database cannot be read, so that the command can list the restore
    points even then.
    """
    from include.holds.registry import restore_points_on_hold

    try:
        if state_is_blank(services):
            errors.print("holds are unknown: the connection state_db is not configured")
            return None
        with services.state.connect() as conn:
            return restore_points_on_hold(conn, database, points)
    except ParcelSealError as error:
        errors.print(f"holds are unknown: {error.message}", soft_wrap=True)
        return None


def _operations_reader(
    services: Services, database: str, store: ObjectStore
) -> Callable[[], KnownOperations]:
    """Return a function that reads the recorded operations of runs on a database's restore points.

    The operations show which restore points runs have removed, and which backups have not ended.
    The function reads them from the state database. Its result is empty if the state database
    cannot be read.
    """
    from include.backup.operations import KnownOperations, operations_reader

    def read_operations() -> KnownOperations:
        try:
            if state_is_blank(services):
                return KnownOperations()
            return operations_reader(services.state, database, store)()
        except ParcelSealError:
            return KnownOperations()

    return read_operations


def _row(point: RestorePoint, held: set[str] | None) -> dict[str, Any]:
    manifest = point.manifest
    return {
        "id": manifest.id,
        "database": manifest.database,
        "taken_at": manifest.taken_at.isoformat(),
        "bytes": manifest.dump.size,
        "tables": len(manifest.tables),
        "rows": manifest.rows,
        "recipients": [recipient.name for recipient in manifest.recipients],
        "hidden": [hidden_object.key for hidden_object in point.hidden],
        "copy": point.is_copy,
        "held": None if held is None else manifest.id in held,
        "expires_at": manifest.expires_at.isoformat(),
    }


def _show(listed: list[dict[str, Any]]) -> None:
    print_table(listed, {name: itemgetter(name) for name in COLUMNS})
