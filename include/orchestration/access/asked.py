"""Whether the people whom workflows ask could answer: they have a user, and a role that may."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from airflow.providers.fab.auth_manager import models as fab
from sqlalchemy import select
from sqlalchemy.orm import Session

from include.orchestration.access.permissions import Action, Part, Permission, on_dag, on_part
from include.orchestration.access.roles import Role


@dataclass(frozen=True)
class AskedPerson:
    """One person whom a workflow would ask.

    Attributes:
        workflow: its dag_id.
        account: of the person.
        obstacle: why they could not answer; empty where they could.
    """

    workflow: str
    account: str
    obstacle: str


def look(
    session: Session, asked: Mapping[str, Iterable[str]], roles: Iterable[Role]
) -> list[AskedPerson]:
    """Check for each person whom a workflow asks whether FAB lets the person answer.

    Args:
        session: on Airflow's database.
        asked: accounts by workflow.
        roles: of the table, to name the ones that would do.
    """
    fits = {
        dag_id: " or ".join(one.name for one in roles if dag_id in one.answers) for dag_id in asked
    }
    users = {one.username: one for one in session.scalars(select(fab.User)).unique()}
    return [
        AskedPerson(dag_id, account, _obstacle(users.get(account), dag_id, fits[dag_id]))
        for dag_id, accounts in asked.items()
        for account in accounts
    ]


def unanswerable(
    duties: Mapping[str, Iterable[Iterable[str]]], found: Iterable[AskedPerson]
) -> list[str]:
    """Return the workflows with a duty that nobody could answer for: such questions never end.

    Args:
        duties: by workflow, the accounts that are asked for each duty.
        found: what `look` says of all of them.
    """
    able = {(one.workflow, one.account) for one in found if not one.obstacle}
    return [
        workflow
        for workflow, groups in duties.items()
        if not all(any((workflow, account) in able for account in group) for group in groups)
    ]


def _obstacle(user: fab.User | None, dag_id: str, fitting: str) -> str:
    if user is None:
        return "has no user in Airflow"
    if not user.active:
        return "is not active in Airflow"
    given = {
        Permission(one.action.name, one.resource.name)
        for role in user.roles
        for one in role.permissions
    }
    on_this = {on_dag(Action.READ, dag_id), on_part(Action.EDIT, Part.ANSWER, dag_id)}
    on_all = {Permission(Action.EDIT, "DAGs"), Permission(Action.EDIT, Part.ANSWER)}
    return "" if given >= on_this or given >= on_all else f"needs the role {fitting}"
