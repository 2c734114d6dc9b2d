"""What stands in FAB is the table of roles, again and again, and nothing else is touched."""

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
GIVEN = """
    SELECT r.name, a.name, v.name FROM ab_role r
    JOIN ab_permission_view_role x ON x.role_id = r.id
    JOIN ab_permission_view p ON p.id = x.permission_view_id
    JOIN ab_view_menu v ON v.id = p.view_menu_id JOIN ab_permission a ON a.id = p.permission_id
"""


def given(database: str) -> dict[str, set[tuple[object, ...]]]:
    """What each role may do, as FAB's tables have it."""
    found: dict[str, set[tuple[object, ...]]] = {}
    for role, *permission in rows(database, GIVEN):
        found.setdefault(str(role), set()).add(tuple(permission))
    return found


def test_fab_keeps_what_was_written(airflow: FabAirflow) -> None:
    """After every DAG was parsed, somebody called `airflow sync-perm`, and a server has started.

    All three write roles by themselves.
    """
    roles = all_roles(load_pack(SHIPPED))
    found = given(airflow.database)
    assert {one.name: found[one.name] for one in roles} == {
        one.name: set(map(tuple, one.permissions)) for one in roles
    }
    log = (airflow.folder / "api-server.log").read_text()
    assert "Updating permission on all DAG views" in log


def test_admin_may_open_every_page(airflow: FabAirflow) -> None:
    """By FAB's own rule: Admin gets what there is when a server starts."""
    opened = {resource for _action, resource in given(airflow.database)[ADMIN]}
    assert {one for role in ROLES for one in role.pages} <= opened


def test_writing_again_changes_nothing(session: Session) -> None:
    """The command may stand in a start-up script."""
    from include.orchestration.access.sync import sync_roles

    assert sync_roles(session, all_roles(load_pack(SHIPPED))) == []


def test_what_the_table_no_longer_gives_is_taken_away(session: Session) -> None:
    """And what it gives anew is given; each change is named."""
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
    (back,) = sync_roles(session, all_roles(load_pack(SHIPPED)))
    assert (back.granted, back.revoked) == (change.revoked, change.granted)


def test_a_right_that_somebody_gave_by_hand_is_taken_back(session: Session) -> None:
    """Of our roles only; Viewer, and what a company made itself, stay as they are."""
    from airflow.providers.fab.auth_manager.models import Role as FabRole
    from sqlalchemy import select

    from include.orchestration.access.sync import sync_roles

    everything = session.scalars(select(FabRole).where(FabRole.name == ADMIN)).unique().one()
    own = FabRole(name="Our Own", permissions=list(everything.permissions))
    session.add(own)
    ours = session.scalars(select(FabRole).where(FabRole.name == "Auditor")).unique().one()
    ours.permissions = list({*ours.permissions, *everything.permissions})
    session.flush()
    (change,) = sync_roles(session, all_roles(load_pack(SHIPPED)))
    assert change.role == "Auditor"
    assert Permission(Action.CREATE, "Connections") in change.revoked
    assert change.granted == ()
    assert len(ours.permissions) == len(table(ROLES)["Auditor"].permissions)
    assert set(own.permissions) == set(everything.permissions)


def test_a_department_that_is_gone_reads_nothing(session: Session) -> None:
    """Its people keep an empty role until an administrator takes it from them."""
    from include.orchestration.access.sync import sync_roles

    pack = load_pack(SHIPPED)
    kept = [one for one in department_roles(pack) if "human" not in one.name]
    (change,) = sync_roles(session, [*ROLES, *kept])
    assert change.role == "Department Reader: human_resources"
    assert Permission(Action.READ, "DAG:remind_training") in change.revoked
    assert Permission(Action.READ, "Website") not in change.revoked


def people(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "users.yaml"
    path.write_text(json.dumps(content))
    return path


ONE = {"id": "E00012", "name": "陈静", "mail": "e00012@courier.example", "roles": ["On Call"]}


def test_a_new_user_gets_a_password_that_only_the_file_knows(
    session: Session, tmp_path: Path
) -> None:
    """Mode 0600, added to those that stand there; written again, nothing changes."""
    from include.orchestration.access.users import read_people, sync_users

    passwords = tmp_path / "passwords.json"
    passwords.write_text(json.dumps({"somebody": "else"}))
    found = read_people(people(tmp_path, [ONE]))
    made = sync_users(session, found, passwords)
    assert (made.created, made.updated) == (["E00012"], [])
    kept = json.loads(passwords.read_text())
    assert kept == {"somebody": "else", **made.passwords}
    assert len(kept["E00012"]) >= 24
    assert stat.S_IMODE(passwords.stat().st_mode) == 0o600
    again = sync_users(session, found, passwords)
    assert (again.created, again.updated, again.passwords) == ([], [], {})


def test_a_password_that_is_there_already_is_used(session: Session, tmp_path: Path) -> None:
    """So a secret that was made elsewhere, and cannot be written, serves too."""
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


def test_a_known_user_changes_roles_and_keeps_the_password(
    session: Session, tmp_path: Path
) -> None:
    """The file's roles replace those that the user had; others are not touched."""
    from airflow.providers.fab.auth_manager.models import User
    from sqlalchemy import select

    from include.orchestration.access.users import read_people, sync_users

    account = account_of("Supervisor")
    mail = f"{account}@courier.example"
    change = {"id": account, "name": "Supervisor", "mail": mail, "roles": ["Auditor"]}
    query = select(User).where(User.username == account)
    before = session.scalars(query).unique().one().password
    done = sync_users(session, read_people(people(tmp_path, [change])), None)
    assert (done.created, done.updated) == ([], [account])
    user = session.scalars(query).unique().one()
    assert ([one.name for one in user.roles], user.password) == (["Auditor"], before)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ([{**ONE, "roles": ["Boss"]}], "E00012 has roles that do not exist: Boss"),
        ([{**ONE, "mail": "on_call@courier.example"}], "has the address of user on_call"),
        ([{**ONE, "roles": []}], "0.roles"),
        ([{**ONE, "password": "secret"}], "0.password"),
        ([{**ONE, "mail": "nowhere"}], "0.mail"),
        ([ONE, {**ONE, "mail": "b@courier.example"}], "1.id stands there twice"),
        ({"users": []}, "the file: "),
    ],
)
def test_a_file_of_users_that_is_wrong_is_refused(
    session: Session, tmp_path: Path, content: object, fault: str
) -> None:
    """With the place in the file and what is wrong; never with a value that may be a password."""
    from include.orchestration.access.users import read_people, sync_users

    with pytest.raises(UsageError) as refused:
        sync_users(session, read_people(people(tmp_path, content)), tmp_path / "passwords.json")
    assert fault in refused.value.message
    assert "secret" not in str(refused.value)
    assert not (tmp_path / "passwords.json").exists()


def test_new_users_without_a_file_for_passwords_are_refused(
    session: Session, tmp_path: Path
) -> None:
    """A password that nobody can read would be lost."""
    from include.orchestration.access.users import read_people, sync_users

    with pytest.raises(UsageError, match="no file for their passwords"):
        sync_users(session, read_people(people(tmp_path, [ONE])), None)


def test_another_auth_manager_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """FAB's own too: by its numbers, nobody who is asked could answer."""
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


def test_a_database_that_is_not_migrated_is_refused(database: str) -> None:
    """With the command that migrates it."""
    from include.orchestration.access.database import require_migrated

    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(database))
    with Session(engine) as empty, pytest.raises(UsageError, match="not migrated") as refused:
        require_migrated(empty)
    assert "airflow db migrate" in refused.value.action
    engine.dispose()


def test_roles_are_listed_without_airflow(airflow: FabAirflow) -> None:
    """For whoever asks what a role gives; the same as was written."""
    code = "import sys; from include.cli.app import _run; _run(sys.argv[1:])"
    code += "; assert not any(one.split('.')[0] == 'airflow' for one in sys.modules), 'airflow'"
    shown = json.loads(airflow.run("-c", code, "roles", "list", "--json").stdout)["roles"]
    assert {one["name"]: len(one["permissions"]) for one in shown} == {
        one.name: len(one.permissions) for one in all_roles(load_pack(SHIPPED))
    }
