"""``parcelseal compose``: create the secrets of the production stack, and prepare its databases."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from include.cli.console import print_line, results, tell
from include.cli.stack import DEFAULT_CUSTOMERS, command_services
from include.policy import SHIPPED
from include.service_container import ROOT
from include.services.errors import ServiceError, UsageError

PRIVATE = Path("deploy") / "private"

app = typer.Typer(help="The production stack of docker-compose.yaml.", no_args_is_help=True)


@app.callback()
def compose() -> None:
    """Prepare the production stack of docker-compose.yaml."""


@app.command("init")
def init(
    folder: Annotated[
        Path,
        typer.Option(
            help="Folder that contains docker-compose.yaml. The command writes the file .env "
            "into it."
        ),
    ] = ROOT,
    sample: Annotated[
        bool, typer.Option(help="Add the sample customer database, so that you can try the stack.")
    ] = False,
) -> int:
    """Create the keys, passwords, certificates and connections of the production stack.

    Existing files are never overwritten, so the command can be repeated.
    """
    from include.deployment import private

    if not (folder / "docker-compose.yaml").exists():
        raise UsageError(f"{folder} has no docker-compose.yaml.", "Name its folder with --folder.")
    dotenv = folder / private.DOTENV
    settings_wanted = private.new_settings(f"./{PRIVATE}", sample=sample)
    added = private.add_settings(dotenv, settings_wanted)
    here = command_services()
    if private.set_setting(dotenv, private.REVISION, here.code_version):
        added.append(private.REVISION)
    settings = private.read_settings(dotenv)
    private_folder = folder / settings["PARCELSEAL_PRIVATE"]
    with_sample = "sample" in settings.get("COMPOSE_PROFILES", "").split(",")
    if sample and not with_sample:
        raise UsageError(
            f"{dotenv} belongs to a stack without the sample.", "Set COMPOSE_PROFILES=sample there."
        )
    written = private.PrivateFolder(private_folder, here.clock.now(), with_sample, SHIPPED).write()
    private.close_to_others(private_folder)
    if os.geteuid() == 0:
        private.hand_over(private_folder, *_owner(settings))
    for name in added:
        results.print(f"{dotenv}: {name}", soft_wrap=True)
    for name in written:
        print_line(f"{private_folder / name}")
    if not added and not written:
        tell("all files exist already; nothing was changed")
        return 0
    _print_next_steps(private_folder, private.OFFLINE, with_sample=with_sample)
    return 0


def _owner(settings: dict[str, str]) -> tuple[int, int]:
    try:
        return int(settings["PARCELSEAL_UID"]), int(settings["PARCELSEAL_GID"])
    except (KeyError, ValueError):
        raise UsageError(
            "PARCELSEAL_UID and PARCELSEAL_GID in .env are not numbers.",
            "Set both to numeric ids of user and group.",
        ) from None


def _print_next_steps(private_folder: Path, offline: str, *, with_sample: bool) -> None:
    tell(
        f"now move {private_folder / offline} to a safe place off this machine: "
        "every person who has it can open backups"
    )
    tell(f"the administrator's password is in {private_folder / 'passwords.json'}")
    if not with_sample:
        tell(f"add your databases to {private_folder / 'connections.json'}, and their data maps to")
        tell(f"{private_folder / 'policy' / 'datamap'}: docs/tutorials/first-production-day.md")
    tell("then: docker compose build; docker compose up --wait")


@app.command("prepare")
def prepare(
    secrets: Annotated[
        Path, typer.Option(help="Folder that contains the files with the secrets.")
    ] = Path("/run/secrets"),
) -> int:
    """Create database roles, databases, buckets and users of the stack, and run all migrations.

    The init container of the stack runs this command.
    """
    from include.deployment.prepare import Preparation, grant_pages

    services = command_services()
    _ = services.pack  # faults of the pack are reported before a change
    work = Preparation(secrets, tell, {})
    work.databases()
    work.buckets()
    tell("migrating the state database")
    _run([sys.executable, "-m", "include.cli", "migrate"], "The state database was not migrated.")
    grant_pages(services.database("state_db"))
    tell("migrating Airflow's database")
    _run([sys.executable, "-m", "airflow", "db", "migrate"], "Airflow was not migrated.")
    tell("writing roles and users into Airflow")
    people = [
        "--users",
        str(secrets / "users.json"),
        "--passwords",
        str(secrets / "passwords.json"),
    ]
    _run(
        [sys.executable, "-m", "include.cli", "roles", "sync", *people],
        "Roles and users were not written.",
    )
    results.print("prepared")
    return 0


@app.command("prepare-sample")
def prepare_sample(
    customers: Annotated[
        int,
        typer.Option(
            min=1, help="Number of customers in the sample database, if the command creates it."
        ),
    ] = DEFAULT_CUSTOMERS,
    secrets: Annotated[
        Path, typer.Option(help="Folder that contains the files with the secrets.")
    ] = Path("/run/secrets"),
) -> int:
    """Load the sample customer database into the production stack.

    If the sample database already exists, the command adds waybills of today.
    """
    from include.deployment.prepare import Preparation

    Preparation(secrets, tell, {}).sample(customers, command_services().clock.now())
    results.print("sample loaded")
    return 0


def _run(command: list[str], failed: str) -> None:
    """Run a program. Its output goes to the log of the container.

    Args:
        command: program and arguments.
        failed: error message that is used if the program fails.

    Raises:
        ServiceError: the program failed.
    """
    if subprocess.run(command, check=False, stdout=sys.stderr).returncode:
        raise ServiceError(failed, "Read the output above.")
