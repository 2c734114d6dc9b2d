"""``parcelseal roles``: who may do what in Airflow, and writing it into Airflow's database."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from include.cli.answers import who_is_asked
from include.cli.console import json_row, new_log, output_to, print_json, results, tell
from include.cli.options import AsJson
from include.cli.stack import local_stack, make_home, workplace
from include.cli.table import fields, print_list, print_table
from include.orchestration.access.roles import ACTS, all_roles

if TYPE_CHECKING:
    from include.orchestration.access.asked import AskedPerson
    from include.orchestration.access.roles import Role
    from include.orchestration.access.sync import RoleChange
    from include.orchestration.access.users import UserChanges

app = typer.Typer(help="Roles of people in Airflow.", no_args_is_help=True)


@app.command("list")
def list_roles(
    as_json: AsJson = False,
) -> None:
    """Show each role: the workflows that it reads, starts, answers, and its compliance pages."""
    roles = all_roles(workplace().pack)
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
        typer.Option(help="YAML or JSON list of users: id, name, mail and roles of each."),
    ] = None,
    passwords: Annotated[
        Path | None,
        typer.Option(
            help="JSON file of passwords of new users; those that it lacks are made and added."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the roles, and users of a file, into Airflow's database. Safe to repeat."""
    place = workplace()
    pack = place.pack
    make_home(place)
    with output_to(new_log(place.home / "logs", "roles", place.clock.now())):
        changed, people = _written(all_roles(pack), users, passwords)
    if as_json:
        print_json(
            {
                "roles": [_change(one) for one in changed],
                "users": json_row(people, "created", "updated"),
            }
        )
        return
    for one in changed:
        for permission in one.granted:
            results.print(f"{one.role}: + {permission.action} on {permission.resource}")
        for permission in one.revoked:
            results.print(f"{one.role}: - {permission.action} on {permission.resource}")
    for name in people.created:
        results.print(f"user {name}: made")
    for name in people.updated:
        results.print(f"user {name}: changed")
    tell(
        f"{len(changed)} roles, {len(people.created)} new users and {len(people.updated)} known "
        "ones were changed. A running Airflow follows within half a minute."
    )


@app.command("asked")
def asked(
    as_json: AsJson = False,
) -> int:
    """Show whom workflows would ask and who of them could not answer.

    The exit code is 1 where a duty has nobody who could: its questions would wait for ever.
    """
    from include.orchestration.access.asked import unanswerable

    place = workplace()
    pack = place.pack
    with local_stack(place), output_to(new_log(place.home / "logs", "roles", place.clock.now())):
        groups = who_is_asked(place)
        people = {
            workflow: list(dict.fromkeys(one for group in duties for one in group))
            for workflow, duties in groups.items()
        }
        found = _looked_at(people, all_roles(pack))
    nobody = unanswerable(groups, found)
    if as_json:
        print_json({"asked": [vars(one) for one in found], "nobody": nobody})
    else:
        unable = [person for person in found if person.obstacle]
        if unable:
            print_table(
                unable,
                {
                    **fields("workflow", "account"),
                    "why no answer": lambda person: person.obstacle,
                },
            )
        for workflow, accounts in people.items():
            count = sum(one.workflow == workflow and not one.obstacle for one in found)
            results.print(f"{workflow}: {count} of {len(accounts)} people could answer")
    for workflow in nobody:
        tell(
            f"{workflow}: a duty has nobody who could answer, and its questions would wait for "
            "ever. Give people users and roles (docs/roles.md), or name others in the pack."
        )
    return 1 if nobody else 0


def _looked_at(asked: dict[str, list[str]], roles: tuple[Role, ...]) -> list[AskedPerson]:
    from include.orchestration.access.asked import look
    from include.orchestration.access.database import fab_session

    with fab_session() as session:
        return look(session, asked, roles)


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


def _names(found: frozenset[Any]) -> str:
    return ", ".join(sorted(found))


def _as_json(role: Role) -> dict[str, Any]:
    return {
        "name": role.name,
        "duty": role.duty,
        **{act: sorted(role.dags(act)) for act in ACTS},
        "pages": sorted(role.pages),
        "permissions": [list(one) for one in sorted(role.permissions)],
    }


def _change(change: RoleChange) -> dict[str, Any]:
    return json_row(change, "role", "created") | {
        "granted": [list(one) for one in change.granted],
        "revoked": [list(one) for one in change.revoked],
    }
