"""``parcelseal keys``: create and list the keys of backup recipients."""

from __future__ import annotations

import os
from operator import itemgetter
from pathlib import Path
from typing import Annotated

import typer

from include.cli.console import errors, json_row, results
from include.cli.options import AsJson
from include.cli.stack import command_services, local_stack
from include.cli.table import print_list
from include.services.errors import UsageError

COLUMNS = ("name", "kind", "key_id", "expires_at")

app = typer.Typer(help="Keys that open backups.", no_args_is_help=True)


@app.callback()
def keys() -> None:
    """Manage the keys that decrypt backups."""


@app.command("new")
def new(
    name: Annotated[
        str, typer.Argument(help="Name of the recipient, such as operations or escrow.")
    ],
    folder: Annotated[
        Path, typer.Option(help="Folder into which NAME.key and NAME.crt are written.")
    ] = Path(),
) -> int:
    """Create a key pair for a recipient of backups.

    Store the certificate on the backup host. Never store the private key there.
    """
    from include.encryption.recipients import new_pair

    private_file, public_file = folder / f"{name}.key", folder / f"{name}.crt"
    for path in (private_file, public_file):
        if path.exists():
            raise UsageError(f"The file {path} exists already.", "Choose another name or folder.")
    if not folder.is_dir():
        raise UsageError(f"The folder {folder} does not exist.")
    private, certificate = new_pair(name, command_services().clock.now())
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
    """List the recipients to which new backups are encrypted.

    Exit code 1: a certificate cannot be read.
    """
    with local_stack(command_services()) as services:
        from include.backup.offsite import offsite_of

        offsite = offsite_of(services)
    listed = [json_row(recipient, *COLUMNS) for recipient in offsite.recipients]
    for bad in offsite.unreadable:
        errors.print(f"[bold red]unreadable:[/bold red] {bad.name}: {bad.reason}", soft_wrap=True)
    columns = {name: itemgetter(name) for name in COLUMNS}
    print_list(as_json, {"recipients": listed}, listed, columns)
    return 1 if offsite.unreadable else 0
