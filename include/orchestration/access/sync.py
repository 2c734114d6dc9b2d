"""Update FAB's roles to match ParcelSeal's roles: grant missing permissions, revoke all others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from airflow.providers.fab.auth_manager import models as fab
from sqlalchemy import select
from sqlalchemy.orm import Session

from include.orchestration.access.permissions import Action, Permission
from include.orchestration.access.roles import DEPARTMENT, Role, table

# FAB grants this permission to every role, so removed roles keep it.
OF_FAB = frozenset({Permission(Action.READ, "Website")})


@dataclass(frozen=True)
class RoleChange:
    """The changes that a synchronisation made to a role.

    Attributes:
        role: name of the role.
        created: whether the role is new.
        granted: permissions that were added.
        revoked: permissions that were removed.
    """

    role: str
    created: bool
    granted: tuple[Permission, ...]
    revoked: tuple[Permission, ...]


def sync_roles(session: Session, roles: Iterable[Role]) -> list[RoleChange]:
    """Create or update FAB's roles so that they match ParcelSeal's roles.

    FAB's own roles, and roles that the company added, are not changed. If a department is no longer
    in the policy pack, its reader role keeps its name and users, but loses its permissions.

    Args:
        session: database session on Airflow's database. The caller commits the transaction.
        roles: all of ParcelSeal's roles.

    Returns:
        The changes of each role that was created or changed.
    """
    target = {name: role.permissions for name, role in table(roles).items()}
    fab_roles = session.scalars(select(fab.Role).with_for_update(of=fab.Role)).unique()
    existing = {role.name: role for role in fab_roles}
    for name in existing:
        if name.startswith(DEPARTMENT):
            target.setdefault(name, OF_FAB)
    fab_permissions = _permissions(session, frozenset().union(*target.values()))
    changes = [
        _sync(session, name, existing, target[name], fab_permissions) for name in sorted(target)
    ]
    return [change for change in changes if change.created or change.granted or change.revoked]


def _sync(
    session: Session,
    name: str,
    existing: Mapping[str, fab.Role],
    target: frozenset[Permission],
    fab_permissions: Mapping[Permission, fab.Permission],
) -> RoleChange:
    role = existing.get(name)
    created = role is None
    if role is None:
        role = fab.Role(name=name)
        session.add(role)
    current = {
        _permission_of(permission): permission
        for permission in role.permissions
        if permission.action and permission.resource
    }
    granted, revoked = sorted(target - set(current)), sorted(set(current) - target)
    if granted or revoked:
        unchanged = [permission for key, permission in current.items() if key in target]
        role.permissions = [*unchanged, *(fab_permissions[key] for key in granted)]
    return RoleChange(name, created, tuple(granted), tuple(revoked))


def _permissions(
    session: Session, target: frozenset[Permission]
) -> dict[Permission, fab.Permission]:
    """Return FAB's database object for each permission; create the permissions that FAB lacks."""
    actions = {action.name: action for action in session.scalars(select(fab.Action))}
    resources = {resource.name: resource for resource in session.scalars(select(fab.Resource))}
    query = select(fab.Permission).join(fab.Permission.action).join(fab.Permission.resource)
    existing = {
        _permission_of(permission): permission for permission in session.scalars(query).unique()
    }
    for key in sorted(target - set(existing)):
        action = actions.setdefault(key.action, fab.Action(name=key.action))
        resource = resources.setdefault(key.resource, fab.Resource(name=key.resource))
        existing[key] = fab.Permission(action=action, resource=resource)
        session.add(existing[key])
    return existing


def _permission_of(permission: fab.Permission) -> Permission:
    return Permission(permission.action.name, permission.resource.name)
