"""Check that the people whom workflows ask have an Airflow user with a role that may answer."""

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
    """A person whom a workflow may ask for a decision.

    Attributes:
        workflow: DAG id of the workflow.
        account: account of the person.
        obstacle: why the person cannot answer; empty if the person can answer.
    """

    workflow: str
    account: str
    obstacle: str


def check_respondents(
    session: Session, accounts: Mapping[str, Iterable[str]], roles: Iterable[Role]
) -> list[AskedPerson]:
    """Return, for each person whom a workflow may ask, whether FAB lets the person answer.

    Args:
        session: database session on Airflow's database.
        accounts: DAG id -> accounts that the workflow may ask.
        roles: ParcelSeal's roles. If a person lacks the right to answer, `AskedPerson.obstacle`
            names the roles that have it.
    """
    suitable_roles = {
        dag_id: " or ".join(role.name for role in roles if dag_id in role.answers)
        for dag_id in accounts
    }
    users = {user.username: user for user in session.scalars(select(fab.User)).unique()}
    return [
        AskedPerson(dag_id, account, _obstacle(users.get(account), dag_id, suitable_roles[dag_id]))
        for dag_id, workflow_accounts in accounts.items()
        for account in workflow_accounts
    ]


def unanswerable(
    duties: Mapping[str, Iterable[Iterable[str]]], people: Iterable[AskedPerson]
) -> list[str]:
    """Return the DAG ids of workflows with a duty for which no person can answer.

    A workflow needs an answer from one person of each duty that it asks, such as the incident lead.

    Args:
        duties: DAG id -> one collection of accounts for each duty that the workflow asks.
        people: result of `check_respondents` for all of these accounts.
    """
    able = {(person.workflow, person.account) for person in people if not person.obstacle}
    return [
        workflow
        for workflow, groups in duties.items()
        if not all(any((workflow, account) in able for account in group) for group in groups)
    ]


def _obstacle(user: fab.User | None, dag_id: str, roles: str) -> str:
    if user is None:
        return "has no user in Airflow"
    if not user.active:
        return "is not active in Airflow"
    permissions = {
        Permission(permission.action.name, permission.resource.name)
        for role in user.roles
        for permission in role.permissions
    }
    on_this_dag = {on_dag(Action.READ, dag_id), on_part(Action.EDIT, Part.ANSWER, dag_id)}
    on_all_dags = {Permission(Action.EDIT, "DAGs"), Permission(Action.EDIT, Part.ANSWER)}
    can_answer = permissions >= on_this_dag or permissions >= on_all_dags
    return "" if can_answer else f"needs the role {roles}"
