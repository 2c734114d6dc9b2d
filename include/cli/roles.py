"""``parcelseal roles``: list the permissions of roles, and write them into Airflow's database."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from include.cli.answers import respondents_by_workflow
from include.cli.console import json_row, new_log, output_to, print_json, results, tell
from include.cli.options import AsJson
from include.cli.stack import command_services, local_stack, make_home
from include.cli.table import fields, print_list, print_table
from include.orchestration.access.roles import ACTS, all_roles

if TYPE_CHECKING:
    from include.orchestration.access.respondents import AskedPerson
    from include.orchestration.access.roles import Role
    from include.orchestration.access.sync import RoleChange
    from include.orchestration.access.users import UserChanges

app = typer.Typer(help="Roles of people in Airflow.", no_args_is_help=True)


@app.command("list")
def list_roles(
    as_json: AsJson = False,
) -> None:
    """List the roles with the workflows and compliance pages that each role may use."""
    roles = all_roles(command_services().pack)
    shown = ("reads", "triggers", "answers", "logs")
    columns: dict[str, Callable[[Role], object]] = {"role": lambda role: role.name}
    for act in shown:
        columns[act] = partial(_dags, act)
    columns["pages"] = lambda role: _names(role.pages)
    print_list(as_json, {"roles": [_as_json(role) for role in roles]}, roles, columns)


@app.command("sync")
def sync(
    users: Annotated[
        Path | None,
        typer.Option(
            help="YAML or JSON file with a list of users. Each user has the keys id, name, "
            "mail and roles."
        ),
    ] = None,
    passwords: Annotated[
        Path | None,
        typer.Option(
            help="JSON file with the passwords of new users. The command generates missing "
            "passwords and adds them to the file."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write ParcelSeal's roles into Airflow's database. With --users, also write users of a file.

    The command can be repeated.
    """
    services = command_services()
    pack = services.pack
    make_home(services)
    with output_to(new_log(services.home / "logs", "roles", services.clock.now())):
        changed, people = _written(all_roles(pack), users, passwords)
    if as_json:
        print_json(
            {
                "roles": [_change(change) for change in changed],
                "users": json_row(people, "created", "updated"),
            }
        )
        return
    for change in changed:
        for permission in change.granted:
            results.print(f"{change.role}: + {permission.action} on {permission.resource}")
        for permission in change.revoked:
            results.print(f"{change.role}: - {permission.action} on {permission.resource}")
    for name in people.created:
        results.print(f"user {name}: created")
    for name in people.updated:
        results.print(f"user {name}: changed")
    tell(
        f"{len(changed)} roles changed, {len(people.created)} users created, "
        f"{len(people.updated)} users changed. A running Airflow applies the changes within half "
        "a minute."
    )


@app.command("asked")
def asked(
    as_json: AsJson = False,
) -> int:
    """List the people to whom workflows assign required actions, and why some cannot answer them.

    Exit code 1: a workflow assigns required actions that no person can answer.
    """
    from include.orchestration.access.respondents import unanswerable

    services = command_services()
    pack = services.pack
    with (
        local_stack(services),
        output_to(new_log(services.home / "logs", "roles", services.clock.now())),
    ):
        groups = respondents_by_workflow(services)
        people = {
            workflow: list(dict.fromkeys(user_id for group in duties for user_id in group))
            for workflow, duties in groups.items()
        }
        people_asked = _checked(people, all_roles(pack))
    nobody = unanswerable(groups, people_asked)
    if as_json:
        print_json({"asked": [vars(person) for person in people_asked], "nobody": nobody})
    else:
        unable = [person for person in people_asked if person.obstacle]
        if unable:
            print_table(
                unable,
                {
                    **fields("workflow", "account"),
                    "obstacle": lambda person: person.obstacle,
                },
            )
        for workflow, accounts in people.items():
            count = sum(
                person.workflow == workflow and not person.obstacle for person in people_asked
            )
            results.print(f"{workflow}: {count} of {len(accounts)} people can answer")
    for workflow in nobody:
        tell(
            f"{workflow}: no person can answer the required actions of a duty, so they would wait "
            "for ever. Give people users and roles (docs/reference/roles.md), or name other people "
            "in the policy pack."
        )
    return 1 if nobody else 0


def _checked(duties: dict[str, list[str]], roles: tuple[Role, ...]) -> list[AskedPerson]:
    from include.orchestration.access.database import fab_session
    from include.orchestration.access.respondents import check_respondents

    with fab_session() as session:
        return check_respondents(session, duties, roles)


def _written(
    roles: tuple[Role, ...], users: Path | None, passwords: Path | None
) -> tuple[list[RoleChange], UserChanges]:
    from include.orchestration.access.database import fab_session
    from include.orchestration.access.sync import sync_roles
    from include.orchestration.access.users import UserChanges, read_people, sync_users

    people = read_people(users) if users else []
    with fab_session() as session:
        changed = sync_roles(session, roles)
        session.flush()
        return changed, sync_users(session, people, passwords) if people else UserChanges()


def _dags(act: str, role: Role) -> str:
    return _names(role.dags(act))


def _names(permissions: frozenset[Any]) -> str:
    return ", ".join(sorted(permissions))


def _as_json(role: Role) -> dict[str, Any]:
    return {
        "name": role.name,
        "duty": role.duty,
        **{act: sorted(role.dags(act)) for act in ACTS},
        "pages": sorted(role.pages),
        "permissions": [list(permission) for permission in sorted(role.permissions)],
    }


def _change(change: RoleChange) -> dict[str, Any]:
    return json_row(change, "role", "created") | {
        "granted": [list(permission) for permission in change.granted],
        "revoked": [list(permission) for permission in change.revoked],
    }
