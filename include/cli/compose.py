"""``parcelseal compose``: the production stack's secrets, and what its init container does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from include.cli.console import print_line, results, tell
from include.cli.stack import DEFAULT_CUSTOMERS, workplace
from include.policy import SHIPPED
from include.services.errors import ServiceError, UsageError
from include.workplace import ROOT

PRIVATE = Path("deploy") / "private"

app = typer.Typer(help="The production stack of docker-compose.yaml.", no_args_is_help=True)


@app.callback()
def compose() -> None:
    """The production stack of docker-compose.yaml."""


@app.command("init")
def init(
    folder: Annotated[
        Path, typer.Option(help="Folder of docker-compose.yaml; .env is written there.")
    ] = ROOT,
    sample: Annotated[
        bool, typer.Option(help="With the sample customer database, to try the stack.")
    ] = False,
) -> int:
    """Make keys, passwords, certificates and connections. Never overwrites; repeat it freely."""
    from include.deployment import private

    if not (folder / "docker-compose.yaml").exists():
        raise UsageError(
            f"There is no docker-compose.yaml in {folder}.", "Name its folder with --folder."
        )
    dotenv = folder / private.DOTENV
    wanted = private.new_settings(f"./{PRIVATE}", sample=sample)
    added = private.add_settings(dotenv, wanted)
    here = workplace()
    if private.set_setting(dotenv, private.REVISION, here.code_version):
        added.append(private.REVISION)
    known = private.read_settings(dotenv)
    place = folder / known["PARCELSEAL_PRIVATE"]
    with_sample = "sample" in known.get("COMPOSE_PROFILES", "").split(",")
    if sample and not with_sample:
        raise UsageError(
            f"{dotenv} is of a stack without the sample.", "Set COMPOSE_PROFILES=sample there."
        )
    made = private.PrivateFolder(place, here.clock.now(), with_sample, SHIPPED).write()
    private.close_to_others(place)
    if os.geteuid() == 0:
        private.hand_over(place, *_owner(known))
    for name in added:
        results.print(f"{dotenv}: {name}", soft_wrap=True)
    for name in made:
        print_line(f"{place / name}")
    if not added and not made:
        tell("everything was there already; nothing was changed")
        return 0
    _say_what_next(place, private.OFFLINE, with_sample=with_sample)
    return 0


def _owner(known: dict[str, str]) -> tuple[int, int]:
    try:
        return int(known["PARCELSEAL_UID"]), int(known["PARCELSEAL_GID"])
    except (KeyError, ValueError):
        raise UsageError(
            "PARCELSEAL_UID and PARCELSEAL_GID in .env are no numbers.", "Name user and group."
        ) from None


def _say_what_next(place: Path, offline: str, *, with_sample: bool) -> None:
    tell(f"now move {place / offline} to a safe place off this machine: who has it opens backups")
    tell(f"the administrator's password is in {place / 'passwords.json'}")
    if not with_sample:
        tell(f"add your databases to {place / 'connections.json'}, and their data maps to")
        tell(f"{place / 'policy' / 'datamap'}: docs/production.md")
    tell("then: docker compose build; docker compose up --wait")


@app.command("prepare")
def prepare(
    secrets: Annotated[Path, typer.Option(help="Folder of the secrets.")] = Path("/run/secrets"),
) -> int:
    """What the init container does: roles, databases, migrations, buckets, people."""
    from include.deployment.prepare import Preparation, grant_pages

    place = workplace()
    _ = place.pack  # a bad pack is reported before anything is changed
    work = Preparation(secrets, tell, {})
    work.databases()
    work.buckets()
    tell("migrating the state database")
    _run([sys.executable, "-m", "include.cli", "migrate"], "The state database was not migrated.")
    grant_pages(place.database("state_db"))
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
        int, typer.Option(min=1, help="Size of the sample, when it is made.")
    ] = DEFAULT_CUSTOMERS,
    secrets: Annotated[Path, typer.Option(help="Folder of the secrets.")] = Path("/run/secrets"),
) -> int:
    """Load the sample customer database of the stack; a later day brings it up to date."""
    from include.deployment.prepare import Preparation

    Preparation(secrets, tell, {}).sample(customers, workplace().clock.now())
    results.print("sample loaded")
    return 0


def _run(command: list[str], failed: str) -> None:
    """Run a program whose output goes to the container's log."""
    if subprocess.run(command, check=False, stdout=sys.stderr).returncode:
        raise ServiceError(failed, "See the lines above.")
