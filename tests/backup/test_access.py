"""Test that a restored database stays closed until its erasures are replayed.

Only after that, the restore sets owners and grants.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import sql

from include.backup.access import CLOSED, TargetAccess, sole_restore
from include.backup.compare import Definitions, compare
from include.backup.restore import restore
from include.backup.source import Source
from include.encryption.recipients import Recipient
from include.evidence.signing import Signer
from include.services.database import DatabaseAddress
from include.services.errors import ServiceError, UsageError
from include.services.objectstore.directory import DirectoryStore
from tests.backup.support import rows, run, take
from tests.backup.test_restore_complete import as_user
from tests.support.holders import Holder

ORIGIN = """
CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t OWNER TO clerk_of_owners;
GRANT SELECT ON t TO "reader ""of"" owners" WITH GRANT OPTION;
GRANT SELECT (id) ON t TO clerk_of_owners;
CREATE FUNCTION said() RETURNS text LANGUAGE sql AS $$
SELECT '-- Name: t; Type: TABLE; Schema: public; Owner: nobody
ALTER TABLE public.t OWNER TO nobody;' $$;
ALTER FUNCTION said() OWNER TO clerk_of_owners; REVOKE EXECUTE ON FUNCTION said() FROM PUBLIC;
CREATE MATERIALIZED VIEW m AS SELECT count(*) FROM t;
ALTER MATERIALIZED VIEW m OWNER TO clerk_of_owners;
ALTER DEFAULT PRIVILEGES FOR ROLE clerk_of_owners IN SCHEMA public
    GRANT SELECT ON TABLES TO "reader ""of"" owners";
CREATE PUBLICATION pub FOR TABLE t;
SELECT lo_from_bytea(77, 'x'), lo_from_bytea(78, 'y');
ALTER LARGE OBJECT 78 OWNER TO clerk_of_owners;
GRANT SELECT ON LARGE OBJECT 77, 78 TO "reader ""of"" owners";
CREATE FUNCTION forbid() RETURNS event_trigger LANGUAGE plpgsql AS
    'BEGIN RAISE EXCEPTION ''the schema is frozen''; END';
CREATE EVENT TRIGGER frozen ON ddl_command_start WHEN TAG IN ('GRANT') EXECUTE FUNCTION forbid();
"""
ACCESS = """
SELECT 't', relowner::regrole::text, relacl::text FROM pg_class WHERE relname = 't'
UNION ALL SELECT 'm', relowner::regrole::text, relacl::text FROM pg_class WHERE relname = 'm'
UNION ALL SELECT 'id', '', attacl::text FROM pg_attribute WHERE attrelid = 't'::regclass
    AND attname = 'id'
UNION ALL SELECT 'said', proowner::regrole::text, proacl::text FROM pg_proc WHERE proname = 'said'
UNION ALL SELECT oid::text, lomowner::regrole::text, lomacl::text FROM pg_largeobject_metadata
UNION ALL SELECT 'default', defaclrole::regrole::text, defaclacl::text FROM pg_default_acl
UNION ALL SELECT pubname, pubowner::regrole::text, '' FROM pg_publication
ORDER BY 1
"""
CONNECT = "SELECT has_database_privilege('public', current_database(), 'CONNECT')"


@pytest.fixture
def roles(server: DatabaseAddress, target: DatabaseAddress) -> Iterator[None]:
    """Create the roles of the backup. After the test, drop the roles and their objects."""
    run(server, 'CREATE ROLE clerk_of_owners; CREATE ROLE "reader ""of"" owners"')
    yield
    for address in (target, server):
        drop_owned(address)
    run(server, 'DROP ROLE clerk_of_owners, "reader ""of"" owners"')


def drop_owned(address: DatabaseAddress) -> None:
    """Drop the objects and the rights of each role in separate statements.

    PostgreSQL fails if one statement names both roles.
    """
    for role in ("clerk_of_owners", '"reader ""of"" owners"'):
        run(address, f"DROP OWNED BY {role} CASCADE")


@pytest.fixture
def origin(new_database: Callable[..., DatabaseAddress], roles: None) -> Iterator[DatabaseAddress]:
    """Return a database whose objects belong to several roles."""
    address = new_database(ORIGIN)
    yield address
    drop_owned(address)


@pytest.fixture
def source(
    origin: DatabaseAddress,
    store: DirectoryStore,
    recipients: list[Recipient],
    signer: Signer,
    operations: Holder,
) -> Source:
    return take(origin, store, recipients, signer).source(operations.opening)


def test_restored_database_gets_owners_and_grants_of_original_only_when_it_is_opened(
    source: Source, origin: DatabaseAddress, target: DatabaseAddress
) -> None:
    access = TargetAccess(target, owners=True, is_new=True)
    restore(source, target, prepare=access.close)
    assert rows(target, CONNECT) == [(False,)]
    for name, owner, grants in rows(target, ACCESS):
        assert (owner, grants) in (("postgres", None), ("", None)), name
    access.open()
    assert rows(target, CONNECT) == [(True,)]
    assert rows(target, ACCESS) == rows(origin, ACCESS)
    assert len(rows(target, ACCESS)) == 8
    comparison = compare(source, target)
    assert (comparison.definitions, comparison.different) == (Definitions(), ())


def test_restore_target_has_its_previous_connect_privileges_again_after_it_is_opened(
    source: Source, target: DatabaseAddress
) -> None:
    access = TargetAccess(target, owners=False, is_new=True)
    restore(source, target, prepare=access.close)
    assert rows(target, CONNECT) == [(False,)]
    access.open()
    assert rows(target, CONNECT) == [(True,)]
    assert {owner for _, owner, _ in rows(target, ACCESS)} == {"postgres", ""}
    run(target, "REVOKE CONNECT ON DATABASE " + target.name + " FROM PUBLIC")
    again = TargetAccess(target, owners=False, is_new=True)
    again.close(b"", [])
    again.open()
    assert rows(target, CONNECT) == [(False,)]


def test_closing_restore_target_that_is_not_new_does_not_revoke_connect_privileges(
    source: Source, target: DatabaseAddress
) -> None:
    access = TargetAccess(target, owners=False, is_new=False)
    restore(source, target, prepare=access.close)
    assert rows(target, CONNECT) == [(True,)]


def test_restore_raises_usage_error_before_load_if_server_lacks_a_role_of_the_original(
    source: Source, target: DatabaseAddress, server: DatabaseAddress
) -> None:
    run(server, "ALTER ROLE clerk_of_owners RENAME TO clerk_elsewhere")
    try:
        access = TargetAccess(target, owners=True, is_new=True)
        with pytest.raises(UsageError, match='role "clerk_of_owners" does not exist'):
            restore(source, target, prepare=access.close)
    finally:
        run(server, "ALTER ROLE clerk_elsewhere RENAME TO clerk_of_owners")
    assert rows(target, "SELECT FROM pg_class WHERE relname = 't'") == []
    assert rows(target, CONNECT) == [(True,)]


@pytest.mark.parametrize("is_new", [True, False])
def test_closing_target_database_raises_usage_error_if_default_privileges_open_new_tables(
    source: Source, target: DatabaseAddress, is_new: bool
) -> None:
    """Default privileges would open each table as soon as the restore creates it."""
    run(target, 'ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO "reader ""of"" owners"')
    access = TargetAccess(target, owners=False, is_new=is_new)
    with pytest.raises(UsageError, match="grants rights on new tables by default"):
        restore(source, target, prepare=access.close)
    assert rows(target, "SELECT FROM pg_class WHERE relname = 't'") == []


def test_closing_target_database_succeeds_if_default_privileges_do_not_affect_restored_tables(
    target: DatabaseAddress, roles: None
) -> None:
    run(
        target,
        """ALTER DEFAULT PRIVILEGES FOR ROLE clerk_of_owners GRANT SELECT ON TABLES TO PUBLIC;
        ALTER DEFAULT PRIVILEGES GRANT USAGE ON TYPES TO clerk_of_owners""",
    )
    TargetAccess(target, owners=False, is_new=False).close(b"", [])


def test_closing_target_database_of_another_owner_reports_that_other_roles_may_still_connect(
    target: DatabaseAddress, roles: None
) -> None:
    run(target, "ALTER ROLE clerk_of_owners LOGIN PASSWORD 'x'")
    access = TargetAccess(as_user(target, "clerk_of_owners"), owners=False, is_new=True)
    access.close(b"", [])
    assert rows(target, CONNECT) == [(True,)]
    assert access.connect_state.startswith("Other roles may connect to it as before")


def test_restore_target_stays_closed_to_other_roles_if_a_grant_cannot_be_restored(
    source: Source, target: DatabaseAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Owners, grants and connect rights are restored in one transaction."""
    access = TargetAccess(target, owners=True, is_new=True)
    restore(source, target, prepare=access.close)
    run(target, "DROP MATERIALIZED VIEW m")
    with pytest.raises(ServiceError, match="Owners and grants cannot be restored"):
        access.open()
    assert rows(target, CONNECT) == [(False,)]
    assert {owner for _, owner, _ in rows(target, ACCESS)} == {"postgres", ""}


def test_restored_rows_are_not_readable_by_other_roles_before_target_database_is_opened(
    source: Source, target: DatabaseAddress
) -> None:
    """Even the future owners of the tables can neither read them nor connect."""
    access = TargetAccess(target, owners=True, is_new=True)
    restore(source, target, prepare=access.close)
    with target.connect() as connection:
        connection.execute("SET ROLE clerk_of_owners")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute("SELECT * FROM t")


COMMENT = """
SELECT coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database
WHERE datname = current_database()
"""


END_LOCKS = """
SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


def comment_on(target: DatabaseAddress, text: str) -> None:
    statement = sql.SQL("COMMENT ON DATABASE {} IS {}")
    with target.connect() as connection:
        connection.execute(statement.format(sql.Identifier(target.name), sql.Literal(text)))


def close_and_end(target: DatabaseAddress, *, is_new: bool = True) -> TargetAccess:
    """Close the target like a restore that is killed afterwards, and return the `TargetAccess`."""
    access = TargetAccess(target, owners=False, is_new=is_new)
    access.close(b"", [])
    return access


@pytest.mark.parametrize("text", ["plain", "  two\nlines \n", "", CLOSED.rstrip(".") + ", maybe"])
def test_second_restore_resets_database_comment_to_its_text_before_the_first_restore(
    target: DatabaseAddress, text: str
) -> None:
    comment_on(target, text)
    close_and_end(target)
    assert rows(target, COMMENT)[0][0].startswith(CLOSED)
    close_and_end(target).open()
    assert rows(target, CONNECT) == [(True,)]
    assert rows(target, COMMENT) == [(text,)]


def test_second_restore_opens_target_database_if_text_was_added_around_closed_marker_in_comment(
    target: DatabaseAddress,
) -> None:
    """The marker of a closed database is recognised anywhere in the comment."""
    close_and_end(target)
    comment_on(target, f"Do not touch! {CLOSED} Wang is at it.")
    close_and_end(target).open()
    assert rows(target, CONNECT) == [(True,)]
    assert rows(target, COMMENT) == [("Do not touch! Wang is at it.",)]


def test_second_restore_leaves_target_database_closed_if_its_comment_has_lost_the_closed_marker(
    target: DatabaseAddress,
) -> None:
    """The new comment lacks the marker of a closed database, so the target stays closed."""
    assert not close_and_end(target).keeps_public_out
    comment_on(target, "being restored")
    access = close_and_end(target)
    access.open()
    assert (access.keeps_public_out, rows(target, CONNECT)) == (True, [(False,)])


def test_closing_target_database_that_was_opened_by_hand_removes_closed_marker_from_its_comment(
    target: DatabaseAddress,
) -> None:
    """Otherwise the comment would describe the target as closed forever."""
    comment_on(target, "orders of May")
    close_and_end(target)
    run(target, f"GRANT CONNECT ON DATABASE {target.name} TO PUBLIC")
    close_and_end(target, is_new=False)
    assert rows(target, COMMENT) == [("orders of May",)]


def test_second_restore_into_same_database_raises_usage_error_while_another_restore_runs(
    target: DatabaseAddress, new_database: Callable[..., DatabaseAddress]
) -> None:
    with sole_restore(target) as confirm:
        confirm()
        with pytest.raises(UsageError, match="Another restore"), sole_restore(target):
            pass
        with sole_restore(new_database("SELECT")):
            pass


def test_restore_can_start_before_server_has_ended_session_of_previous_restore(
    target: DatabaseAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy server may end a session some time after the client closed it."""
    not_ended: list[psycopg.Connection] = []
    with monkeypatch.context() as patch, sole_restore(target):
        patch.setattr(psycopg.Connection, "close", lambda session: not_ended.append(session))
    with sole_restore(target):
        pass
    for connection in not_ended:
        connection.close()


def test_sole_restore_raises_service_error_if_the_session_of_its_lock_was_ended(
    target: DatabaseAddress,
) -> None:
    with sole_restore(target) as confirm:
        run(target, END_LOCKS)
        with pytest.raises(ServiceError, match="was not opened"):
            confirm()


@pytest.mark.parametrize("kind", ["TABLES", "LARGE OBJECTS"])
def test_closing_target_database_raises_usage_error_if_default_privileges_open_large_objects(
    target: DatabaseAddress, roles: None, kind: str
) -> None:
    """Default privileges of large objects exist since PostgreSQL 18."""
    try:
        run(target, f"ALTER DEFAULT PRIVILEGES GRANT SELECT ON {kind} TO clerk_of_owners")
    except psycopg.errors.SyntaxError:
        pytest.skip("this PostgreSQL has no default privileges on large objects")
    with pytest.raises(UsageError, match="by default"):
        close_and_end(target)


def test_sole_restore_raises_service_error_if_its_session_lost_the_lock(
    target: DatabaseAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a connection pooler, the next statement may run in a session without the lock."""
    sessions: list[psycopg.Connection] = []
    connect = DatabaseAddress.connect

    def noted(address: DatabaseAddress, **options: bool) -> psycopg.Connection:
        sessions.append(connect(address, **options))
        return sessions[-1]

    monkeypatch.setattr(DatabaseAddress, "connect", noted)
    with sole_restore(target) as confirm:
        confirm()
        sessions[0].execute("SELECT pg_advisory_unlock_all()")
        with pytest.raises(ServiceError, match=r"keeps other restores out .* was lost"):
            confirm()
