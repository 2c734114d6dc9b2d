"""``parcelseal keys``: pairs for recipients of backups."""

from __future__ import annotations

import os
from operator import itemgetter
from pathlib import Path
from typing import Annotated

import typer

from include.cli.console import errors, json_row, results
from include.cli.options import AsJson
from include.cli.stack import local_stack, workplace
from include.cli.table import print_list
from include.services.errors import UsageError

COLUMNS = ("name", "kind", "key_id", "expires_at")

app = typer.Typer(help="Keys that open backups.", no_args_is_help=True)


@app.callback()
def keys() -> None:
    """Keys that open backups."""


@app.command("new")
def new(
    name: Annotated[str, typer.Argument(help="Whose key: operations, escrow, ...")],
    folder: Annotated[Path, typer.Option(help="Where to write NAME.key and NAME.crt.")] = Path(),
) -> int:
    """Make a pair: the certificate goes to the backup host, the private key never does."""
    from include.encryption.recipients import new_pair

    private_file, public_file = folder / f"{name}.key", folder / f"{name}.crt"
    for path in (private_file, public_file):
        if path.exists():
            raise UsageError(f"{path} exists already.", "Choose another name or folder.")
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}.")
    private, certificate = new_pair(name, workplace().clock.now())
    descriptor = os.open(private_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(private)
    public_file.write_bytes(certificate)
    results.print(f"private key  {private_file}  keep it offline, off the backup host")
    results.print(f"certificate  {public_file}  name it in the connection offsite_store")
    return 0


@app.command("list")
def list_(
    as_json: AsJson = False,
) -> int:
    """List the recipients that new backups are encrypted to."""
    with local_stack(workplace()) as place:
        from include.backup.offsite import offsite_of

        offsite = offsite_of(place)
    listed = [json_row(recipient, *COLUMNS) for recipient in offsite.recipients]
    for bad in offsite.unreadable:
        errors.print(f"[bold red]unreadable:[/bold red] {bad.name}: {bad.reason}", soft_wrap=True)
    columns = {name: itemgetter(name) for name in COLUMNS}
    print_list(as_json, {"recipients": listed}, listed, columns)
    return 1 if offsite.unreadable else 0
