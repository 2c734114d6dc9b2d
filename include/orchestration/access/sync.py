"""Writes the table of roles into FAB, so that Airflow's database gives what it says and no more."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from airflow.providers.fab.auth_manager import models as fab
from sqlalchemy import select
from sqlalchemy.orm import Session

from include.orchestration.access.permissions import Action, Permission
from include.orchestration.access.roles import DEPARTMENT, Role, table

# FAB gives this to every role that it finds, one that should have nothing too.
OF_FAB = frozenset({Permission(Action.READ, "Website")})


@dataclass(frozen=True)
class RoleChange:
    """What was changed of one role.

    Attributes:
        role: its name.
        created: whether there was none of that name.
        granted: what it may do from now on.
        revoked: what it may no longer do.
    """

    role: str
    created: bool
    granted: tuple[Permission, ...]
    revoked: tuple[Permission, ...]


def sync_roles(session: Session, roles: Iterable[Role]) -> list[RoleChange]:
    """Make roles in FAB be as the table has them; those of other names are not touched.

    A reader of a department that the pack has no more keeps its name, and its people, and may do
    nothing.

    Args:
        session: on Airflow's database; what is changed is seen once it is committed.
        roles: all of the table.
    """
    wanted = {name: one.permissions for name, one in table(roles).items()}
    found = session.scalars(select(fab.Role).with_for_update(of=fab.Role)).unique()
    existing = {one.name: one for one in found}
    for name in existing:
        if name.startswith(DEPARTMENT):
            wanted.setdefault(name, OF_FAB)
    known = _permissions(session, frozenset().union(*wanted.values()))
    changes = [_sync(session, name, existing, wanted[name], known) for name in sorted(wanted)]
    return [one for one in changes if one.created or one.granted or one.revoked]


def _sync(
    session: Session,
    name: str,
    existing: Mapping[str, fab.Role],
    wanted: frozenset[Permission],
    known: Mapping[Permission, fab.Permission],
) -> RoleChange:
    role = existing.get(name)
    created = role is None
    if role is None:
        role = fab.Role(name=name)
        session.add(role)
    had = {_named(one): one for one in role.permissions if one.action and one.resource}
    granted, revoked = sorted(wanted - set(had)), sorted(set(had) - wanted)
    if granted or revoked:
        kept = [one for key, one in had.items() if key in wanted]
        role.permissions = [*kept, *(known[one] for one in granted)]
    return RoleChange(name, created, tuple(granted), tuple(revoked))


def _permissions(
    session: Session, wanted: frozenset[Permission]
) -> dict[Permission, fab.Permission]:
    """Return permissions as FAB has them, after making those that it has not."""
    actions = {one.name: one for one in session.scalars(select(fab.Action))}
    resources = {one.name: one for one in session.scalars(select(fab.Resource))}
    query = select(fab.Permission).join(fab.Permission.action).join(fab.Permission.resource)
    found = {_named(one): one for one in session.scalars(query).unique()}
    for one in sorted(wanted - set(found)):
        action = actions.setdefault(one.action, fab.Action(name=one.action))
        resource = resources.setdefault(one.resource, fab.Resource(name=one.resource))
        found[one] = fab.Permission(action=action, resource=resource)
        session.add(found[one])
    return found


def _named(permission: fab.Permission) -> Permission:
    return Permission(permission.action.name, permission.resource.name)
