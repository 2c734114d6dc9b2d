"""``parcelseal backup`` and ``parcelseal restore``: what you need on the worst day; no Airflow."""

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
from include.cli.stack import local_stack, workplace
from include.cli.table import print_table
from include.services import stopping
from include.services.errors import ParcelSealError, UsageError
from include.workplace import Workplace

if TYPE_CHECKING:
    from include.backup.access import TargetAccess
    from include.backup.archive_entry import Entry
    from include.backup.listing import KnownWork
    from include.backup.manifest import Rejected, RestorePoint
    from include.backup.point_folder import HiddenObject
    from include.encryption.recipients import OpeningKey
    from include.services.objectstore.base import ObjectStore

COLUMNS = ("id", "database", "taken_at", "bytes", "tables", "rows", "held", "expires_at")

app = typer.Typer(help="Restore points in the off-site store.", no_args_is_help=True)


@app.callback()
def backups() -> None:
    """Restore points in the off-site store."""


@app.command("list")
def list_(
    database: Annotated[str | None, typer.Option(help="Only this mapped database.")] = None,
    as_json: AsJson = False,
) -> int:
    """List every restore point that has a valid signed manifest."""
    from include.backup.listing import listed_points

    place = workplace()
    names = [place.pack.database(database).name] if database else list(place.pack.databases)
    with local_stack(place):
        store = place.store("offsite_store")
        listed: list[dict[str, Any]] = []
        refused, hidden = [], []
        for name in names:
            work = _work_reader(place, name, store)
            points, rejected = listed_points(store, name, place.trusted_for_manifests, work)
            refused += rejected
            hidden += [each for point in points for each in point.hidden]
            held = _held(place, name, [point.id for point in points])
            listed += [_row(point, held) for point in points]
    _report_refused(refused)
    _report_hidden(hidden)
    if as_json:
        print_json({"restore_points": listed})
    else:
        _show(listed)
    return 1 if refused or hidden else 0


def restore(
    database: Annotated[str, typer.Option(help="The mapped database that was backed up.")],
    into: Annotated[str, typer.Option(help="Where to: postgresql://user:password@host/database.")],
    key: Annotated[str, typer.Option(help="Private key of a recipient: a PEM file, or a KMS ARN.")],
    point: Annotated[str, typer.Option(help="Id from `backup list`, or latest.")] = "latest",
    jobs: Annotated[int, typer.Option(min=1, max=64, help="Tables and indexes at once.")] = 2,
    owners: Annotated[bool, typer.Option(help="Restore owners and grants too.")] = False,
    into_existing: Annotated[
        bool, typer.Option(help="Load although the target has tables already.")
    ] = False,
    skip_erasures: Annotated[
        bool, typer.Option(help="Do not replay erasures: only when state_db is lost for good.")
    ] = False,
    incomplete_ledger: Annotated[
        bool,
        typer.Option(help="Replay the erasures that are there, although sealed ones are missing."),
    ] = False,
    as_json: AsJson = False,
) -> int:
    """Restore for real: check, decrypt, load, compare, and erase again what was erased."""
    from include.backup.access import TargetAccess, sole_restore
    from include.backup.listing import naming_removals
    from include.backup.restore import refuse_live
    from include.backup.restore import restore as load
    from include.backup.scratch import without_event_triggers
    from include.backup.source import Source
    from include.services.database import DatabaseAddress

    place = workplace()
    address = DatabaseAddress.from_conninfo(into)
    mapped = place.pack.database(database)
    with local_stack(place), sole_restore(address) as confirm_alone, ExitStack() as stack:
        target = without_event_triggers(address)
        refuse_live(target, place.database(mapped.connection))
        chosen = _choose(place, database, point)
        keep_closed = skip_erasures
        if not skip_erasures:
            count_erasures(place, database, incomplete_is_accepted=incomplete_ledger)
            keep_closed = not is_complete(place, database, incomplete_is_accepted=incomplete_ledger)
        tell(f"restore point {chosen.id}, taken {chosen.manifest.taken_at:%Y-%m-%d %H:%M:%S %Z}")
        source = Source(place.store("offsite_store"), chosen.manifest, _key(place, key))
        access = TargetAccess(target, owners=owners, is_new=not into_existing)
        stack.enter_context(_naming_interrupted_copy(access))

        def prepare(head: bytes, entries: Sequence[Entry]) -> None:
            if not skip_erasures:
                require_findable_records(place, mapped, chosen, entries)
            access.close(head, entries)

        work = _work_reader(place, database, source.store)
        with naming_removals(source.store, database, chosen.id, work):
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
            else replay_erasures(place, mapped, target, incomplete_is_accepted=keep_closed)
        )
        if skip_erasures:
            errors.print(
                "[bold red]erasures were not replayed[/bold red]: people who were erased "
                "may be back; keep the copy closed until they are.",
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
                    "PUBLIC may not connect to the target, as before this restore: only roles with "
                    "a grant of their own may. If that is not wanted, GRANT CONNECT.",
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
            f"left out, see to it by hand (docs/restore-runbook.md, Afterwards): "
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
def _naming_interrupted_copy(access: TargetAccess) -> Iterator[None]:
    """Print what a restore leaves in its target if a signal ends it after its first change."""
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


def _choose(place: Workplace, database: str, point: str) -> RestorePoint:
    from include.backup import manifest as manifests
    from include.backup.listing import listed_points, naming_removals

    store = place.store("offsite_store")
    work = _work_reader(place, database, store)
    if point != "latest":
        with naming_removals(store, database, point, work):
            chosen = manifests.load(store, database, point, place.trusted_for_manifests)
        _report_changes(chosen)
        return chosen
    points, rejected = listed_points(store, database, place.trusted_for_manifests, work)
    _report_refused(rejected)
    if not points:
        raise UsageError(
            f"There is no restore point of {database} in {store.description}.",
            "See ./parcelseal backup list.",
        )
    _report_changes(points[-1])
    return points[-1]


def _report_changes(point: RestorePoint) -> None:
    _report_hidden(point.hidden)
    if point.is_copy:
        errors.print(
            f"[bold]copy:[/bold] {escape(point.manifest.dump.key)} is not the version that was "
            "signed, as in a copy of the store; it is checked by its digest",
            soft_wrap=True,
        )


def _report_refused(refused: Iterable[Rejected]) -> None:
    for each in refused:
        text = f"[bold red]refused:[/bold red] {escape(each.key)}: {escape(each.reason)}"
        errors.print(text, soft_wrap=True)


def _report_hidden(hidden: Iterable[HiddenObject]) -> None:
    for each in hidden:
        text = f"[bold red]hidden:[/bold red] {escape(each.key)}: {each.message.text}"
        errors.print(text, soft_wrap=True)


def _key(place: Workplace, given: str) -> OpeningKey:
    from include.encryption.recipients import KMS_KIND, OpeningKey, opening_key_from_pem

    if given.startswith("arn:"):
        from include.services.aws import kms_client

        return OpeningKey(KMS_KIND, given, client=kms_client(place.connection("offsite_store")))
    path = Path(given).expanduser()
    try:
        return opening_key_from_pem(path.read_bytes(), str(path))
    except OSError as error:
        raise UsageError(
            f"The key file {path} cannot be read: {error.strerror}.", "Give --key FILE."
        ) from None


def _held(place: Workplace, database: str, points: list[str]) -> set[str] | None:
    """Return the held ids; None when state cannot be read, which must not hide the backups."""
    from include.holds.registry import restore_points_held

    try:
        if state_is_blank(place):
            errors.print("holds are unknown: the connection state_db is not configured")
            return None
        with place.state.connect() as conn:
            return restore_points_held(conn, database, points)
    except ParcelSealError as error:
        errors.print(f"holds are unknown: {error.message}", soft_wrap=True)
        return None


def _work_reader(place: Workplace, database: str, store: ObjectStore) -> Callable[[], KnownWork]:
    """Return what reads the runs' work on restore points; none when state cannot be read."""
    from include.backup.listing import KnownWork, work_reader

    def read_work() -> KnownWork:
        try:
            if state_is_blank(place):
                return KnownWork()
            return work_reader(place.state, database, store)()
        except ParcelSealError:
            return KnownWork()

    return read_work


def _row(point: RestorePoint, held: set[str] | None) -> dict[str, Any]:
    manifest = point.manifest
    return {
        "id": manifest.id,
        "database": manifest.database,
        "taken_at": manifest.taken_at.isoformat(),
        "bytes": manifest.dump.size,
        "tables": len(manifest.tables),
        "rows": manifest.rows,
        "recipients": [one.name for one in manifest.recipients],
        "hidden": [each.key for each in point.hidden],
        "copy": point.is_copy,
        "held": None if held is None else manifest.id in held,
        "expires_at": manifest.expires_at.isoformat(),
    }


def _show(listed: list[dict[str, Any]]) -> None:
    print_table(listed, {name: itemgetter(name) for name in COLUMNS})
