"""Roles and users are synchronised with FAB repeatedly; other roles and users do not change."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import Session

from include.orchestration.access.permissions import Action, Permission
from include.orchestration.access.roles import ROLES, all_roles, department_roles, table
from include.policy import SHIPPED
from include.registry import load_pack
from include.services.errors import UsageError
from tests.support.fab import ADMIN, FabAirflow, account_of, rows

pytestmark = pytest.mark.airflow
GRANTED = """
    SELECT r.name, a.name, v.name FROM ab_role r
    JOIN ab_permission_view_role x ON x.role_id = r.id
    JOIN ab_permission_view p ON p.id = x.permission_view_id
    JOIN ab_view_menu v ON v.id = p.view_menu_id JOIN ab_permission a ON a.id = p.permission_id
"""


def granted_permissions(database: str) -> dict[str, set[tuple[object, ...]]]:
    """Return the permissions of each role in FAB's tables, by role name."""
    found: dict[str, set[tuple[object, ...]]] = {}
    for role, *permission in rows(database, GRANTED):
        found.setdefault(str(role), set()).add(tuple(permission))
    return found


def test_airflow_does_not_change_roles_when_it_parses_dags_or_starts(
    airflow: FabAirflow,
) -> None:
    roles = all_roles(load_pack(SHIPPED))
    granted = granted_permissions(airflow.database)
    assert {role.name: granted[role.name] for role in roles} == {
        role.name: set(map(tuple, role.permissions)) for role in roles
    }
    log = (airflow.folder / "api-server.log").read_text()
    assert "Updating permission on all DAG views" in log


def test_admin_may_open_every_page(airflow: FabAirflow) -> None:
    """FAB grants all permissions to Admin when a server starts."""
    opened = {resource for _action, resource in granted_permissions(airflow.database)[ADMIN]}
    assert {page for role in ROLES for page in role.pages} <= opened


def test_second_call_of_sync_roles_changes_nothing(session: Session) -> None:
    from include.orchestration.access.sync import sync_roles

    assert sync_roles(session, all_roles(load_pack(SHIPPED))) == []


def test_sync_roles_revokes_removed_and_grants_new_permissions(session: Session) -> None:
    from include.orchestration.access.sync import sync_roles

    other = replace(
        ROLES[0], triggers=frozenset({"check_quality"}), answers=frozenset({"review_intake"})
    )
    (change,) = sync_roles(session, [other, *all_roles(load_pack(SHIPPED))[1:]])
    assert change.role == ROLES[0].name
    assert change.granted == ((Action.EDIT, "HITL Detail:review_intake"),)
    assert Permission(Action.CREATE, "DAG Run:enforce_retention") in change.revoked
    assert len(change.revoked) == len(ROLES[0].triggers) - 1
    session.flush()
    session.expire_all()
    assert sync_roles(session, [other, *all_roles(load_pack(SHIPPED))[1:]]) == []
    (restored,) = sync_roles(session, all_roles(load_pack(SHIPPED)))
    assert (restored.granted, restored.revoked) == (change.revoked, change.granted)


def test_sync_roles_revokes_manual_grants_only_of_parcelseal_roles(session: Session) -> None:
    from airflow.providers.fab.auth_manager.models import Role as FabRole
    from sqlalchemy import select

    from include.orchestration.access.sync import sync_roles

    all_permissions = session.scalars(select(FabRole).where(FabRole.name == ADMIN)).unique().one()
    company_role = FabRole(name="Our Own", permissions=list(all_permissions.permissions))
    session.add(company_role)
    auditor = session.scalars(select(FabRole).where(FabRole.name == "Auditor")).unique().one()
    auditor.permissions = list({*auditor.permissions, *all_permissions.permissions})
    session.flush()
    (change,) = sync_roles(session, all_roles(load_pack(SHIPPED)))
    assert change.role == "Auditor"
    assert Permission(Action.CREATE, "Connections") in change.revoked
    assert change.granted == ()
    assert len(auditor.permissions) == len(table(ROLES)["Auditor"].permissions)
    assert set(company_role.permissions) == set(all_permissions.permissions)


def test_sync_roles_revokes_dag_permissions_from_the_role_of_a_removed_department(
    session: Session,
) -> None:
    """The users of the department keep the role, which has no more permissions."""
    from include.orchestration.access.sync import sync_roles

    pack = load_pack(SHIPPED)
    kept = [role for role in department_roles(pack) if "human" not in role.name]
    (change,) = sync_roles(session, [*ROLES, *kept])
    assert change.role == "Department Reader: human_resources"
    assert Permission(Action.READ, "DAG:remind_training") in change.revoked
    assert Permission(Action.READ, "Website") not in change.revoked


def people(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "users.yaml"
    path.write_text(json.dumps(content))
    return path


ONE = {"id": "E00012", "name": "陈静", "mail": "e00012@courier.example", "roles": ["On Call"]}


def test_sync_users_writes_new_passwords_to_the_file(session: Session, tmp_path: Path) -> None:
    """The file has mode 0600, and its other entries do not change."""
    from include.orchestration.access.users import read_people, sync_users

    passwords = tmp_path / "passwords.json"
    passwords.write_text(json.dumps({"somebody": "else"}))
    users = read_people(people(tmp_path, [ONE]))
    changes = sync_users(session, users, passwords)
    assert (changes.created, changes.updated) == (["E00012"], [])
    kept = json.loads(passwords.read_text())
    assert kept == {"somebody": "else", **changes.passwords}
    assert len(kept["E00012"]) >= 24
    assert stat.S_IMODE(passwords.stat().st_mode) == 0o600
    again = sync_users(session, users, passwords)
    assert (again.created, again.updated, again.passwords) == ([], [], {})


def test_sync_users_sets_the_password_of_a_new_user_from_a_read_only_password_file(
    session: Session, tmp_path: Path
) -> None:
    """The file may be a read-only secret."""
    from airflow.providers.fab.auth_manager.models import User
    from sqlalchemy import select
    from werkzeug.security import check_password_hash

    from include.orchestration.access.users import read_people, sync_users

    passwords = tmp_path / "passwords.json"
    passwords.write_text(json.dumps({"E00012": "made elsewhere"}))
    passwords.chmod(0o400)
    sync_users(session, read_people(people(tmp_path, [ONE])), passwords)
    user = session.scalars(select(User).where(User.username == "E00012")).unique().one()
    assert check_password_hash(user.password, "made elsewhere")


def test_sync_users_replaces_roles_and_keeps_the_password(session: Session, tmp_path: Path) -> None:
    from airflow.providers.fab.auth_manager.models import User
    from sqlalchemy import select

    from include.orchestration.access.users import read_people, sync_users

    account = account_of("Supervisor")
    mail = f"{account}@courier.example"
    change = {"id": account, "name": "Supervisor", "mail": mail, "roles": ["Auditor"]}
    query = select(User).where(User.username == account)
    before = session.scalars(query).unique().one().password
    changes = sync_users(session, read_people(people(tmp_path, [change])), None)
    assert (changes.created, changes.updated) == ([], [account])
    user = session.scalars(query).unique().one()
    assert ([role.name for role in user.roles], user.password) == (["Auditor"], before)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ([{**ONE, "roles": ["Boss"]}], "E00012 has roles that do not exist: Boss"),
        ([{**ONE, "mail": "on_call@courier.example"}], "has the address of user on_call"),
        ([{**ONE, "roles": []}], "0.roles"),
        ([{**ONE, "password": "secret"}], "0.password"),
        ([{**ONE, "mail": "nowhere"}], "0.mail"),
        ([ONE, {**ONE, "mail": "b@courier.example"}], "1.id appears twice in the file"),
        ({"users": []}, "the file: "),
    ],
)
def test_error_about_invalid_file_of_people_contains_the_fault_and_no_password(
    session: Session, tmp_path: Path, content: object, fault: str
) -> None:
    """A value in the file may be a password."""
    from include.orchestration.access.users import read_people, sync_users

    with pytest.raises(UsageError) as refused:
        sync_users(session, read_people(people(tmp_path, content)), tmp_path / "passwords.json")
    assert fault in refused.value.message
    assert "secret" not in str(refused.value)
    assert not (tmp_path / "passwords.json").exists()


def test_sync_users_raises_usage_error_for_a_new_user_without_password_file(
    session: Session, tmp_path: Path
) -> None:
    from include.orchestration.access.users import read_people, sync_users

    with pytest.raises(UsageError, match="no file for their passwords"):
        sync_users(session, read_people(people(tmp_path, [ONE])), None)


def test_require_manager_raises_usage_error_for_another_auth_manager(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """FAB's own auth manager is refused too."""
    from include.orchestration.access.database import require_manager

    for other in (
        "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager",
        "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
        "no.such.FabAuthManager",
    ):
        monkeypatch.setenv("AIRFLOW__CORE__AUTH_MANAGER", other)
        with pytest.raises(UsageError, match="which does not know these roles") as refused:
            require_manager()
        assert "include.orchestration.access.manager.AccountFabAuthManager" in refused.value.action


def test_require_migrated_raises_usage_error_if_the_airflow_database_is_not_migrated(
    database: str,
) -> None:
    from include.orchestration.access.database import require_migrated

    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(database))
    with Session(engine) as empty, pytest.raises(UsageError, match="not migrated") as refused:
        require_migrated(empty)
    assert "airflow db migrate" in refused.value.action
    engine.dispose()


def test_roles_list_command_does_not_import_airflow(airflow: FabAirflow) -> None:
    code = "import sys; from include.cli.app import _run; _run(sys.argv[1:])"
    code += "; assert not any(one.split('.')[0] == 'airflow' for one in sys.modules), 'airflow'"
    listing = json.loads(airflow.run("-c", code, "roles", "list", "--json").stdout)["roles"]
    assert {entry["name"]: len(entry["permissions"]) for entry in listing} == {
        role.name: len(role.permissions) for role in all_roles(load_pack(SHIPPED))
    }
