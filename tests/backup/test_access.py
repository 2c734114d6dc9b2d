"""A restored database is closed until its erasures were replayed; then owners and grants come."""

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
    """The roles of the backup, and nothing of theirs afterwards."""
    run(server, 'CREATE ROLE clerk_of_owners; CREATE ROLE "reader ""of"" owners"')
    yield
    for address in (target, server):
        drop_owned(address)
    run(server, 'DROP ROLE clerk_of_owners, "reader ""of"" owners"')


def drop_owned(address: DatabaseAddress) -> None:
    """Drop what the roles own or may do, one after the other: both at once is an internal error."""
    for role in ("clerk_of_owners", '"reader ""of"" owners"'):
        run(address, f"DROP OWNED BY {role} CASCADE")


@pytest.fixture
def origin(new_database: Callable[..., DatabaseAddress], roles: None) -> Iterator[DatabaseAddress]:
    """A database whose objects belong to others."""
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


def test_owners_and_grants_are_restored_only_when_the_target_opens(
    source: Source, origin: DatabaseAddress, target: DatabaseAddress
) -> None:
    """Of tables, columns, functions, views, large objects and publications, as in the original."""
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


def test_a_restore_without_owners_opens_the_target_as_it_was(
    source: Source, target: DatabaseAddress
) -> None:
    """Everything belongs to the restoring role; who may connect is as before."""
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


def test_a_target_that_is_in_use_keeps_its_connections(
    source: Source, target: DatabaseAddress
) -> None:
    """Its people were there before."""
    access = TargetAccess(target, owners=False, is_new=False)
    restore(source, target, prepare=access.close)
    assert rows(target, CONNECT) == [(True,)]


def test_a_missing_role_is_refused_by_name_before_anything_is_loaded(
    source: Source, target: DatabaseAddress, server: DatabaseAddress
) -> None:
    """A restore that takes hours does not end with it."""
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
def test_a_target_that_grants_by_default_is_refused(
    source: Source, target: DatabaseAddress, is_new: bool
) -> None:
    """Each table would be open as soon as it is created."""
    run(target, 'ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO "reader ""of"" owners"')
    access = TargetAccess(target, owners=False, is_new=is_new)
    with pytest.raises(UsageError, match="grants rights on new tables by default"):
        restore(source, target, prepare=access.close)
    assert rows(target, "SELECT FROM pg_class WHERE relname = 't'") == []


def test_default_privileges_that_open_no_restored_table_are_accepted(
    target: DatabaseAddress, roles: None
) -> None:
    """Default privileges of other roles, and on objects without records."""
    run(
        target,
        """ALTER DEFAULT PRIVILEGES FOR ROLE clerk_of_owners GRANT SELECT ON TABLES TO PUBLIC;
        ALTER DEFAULT PRIVILEGES GRANT USAGE ON TYPES TO clerk_of_owners""",
    )
    TargetAccess(target, owners=False, is_new=False).close(b"", [])


def test_a_role_that_does_not_own_the_target_closes_nothing_and_says_so(
    target: DatabaseAddress, roles: None
) -> None:
    run(target, "ALTER ROLE clerk_of_owners LOGIN PASSWORD 'x'")
    access = TargetAccess(as_user(target, "clerk_of_owners"), owners=False, is_new=True)
    access.close(b"", [])
    assert rows(target, CONNECT) == [(True,)]
    assert access.connect_state.startswith("Others may connect to it as before")


def test_nothing_is_open_when_a_grant_fails(
    source: Source, target: DatabaseAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Owners, grants and connections come in one transaction."""
    access = TargetAccess(target, owners=True, is_new=True)
    restore(source, target, prepare=access.close)
    run(target, "DROP MATERIALIZED VIEW m")
    with pytest.raises(ServiceError, match="Owners and grants cannot be restored"):
        access.open()
    assert rows(target, CONNECT) == [(False,)]
    assert {owner for _, owner, _ in rows(target, ACCESS)} == {"postgres", ""}


def test_no_row_is_readable_by_others_while_it_is_loaded(
    source: Source, target: DatabaseAddress
) -> None:
    """Their owners and readers may not even connect."""
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
    """Close the target as a restore does that is killed afterwards."""
    access = TargetAccess(target, owners=False, is_new=is_new)
    access.close(b"", [])
    return access


@pytest.mark.parametrize("text", ["plain", "  two\nlines \n", "", CLOSED.rstrip(".") + ", maybe"])
def test_second_try_keeps_the_comment_of_the_target(target: DatabaseAddress, text: str) -> None:
    comment_on(target, text)
    close_and_end(target)
    assert rows(target, COMMENT)[0][0].startswith(CLOSED)
    close_and_end(target).open()
    assert rows(target, CONNECT) == [(True,)]
    assert rows(target, COMMENT) == [(text,)]


def test_second_try_opens_a_target_whose_comment_was_extended(target: DatabaseAddress) -> None:
    """The mark is recognised anywhere in the comment."""
    close_and_end(target)
    comment_on(target, f"Do not touch! {CLOSED} Wang is at it.")
    close_and_end(target).open()
    assert rows(target, CONNECT) == [(True,)]
    assert rows(target, COMMENT) == [("Do not touch! Wang is at it.",)]


def test_second_try_reports_a_target_whose_comment_was_replaced(target: DatabaseAddress) -> None:
    """Nothing says any more that a restore closed it, so it stays closed."""
    assert not close_and_end(target).keeps_public_out
    comment_on(target, "being restored")
    access = close_and_end(target)
    access.open()
    assert (access.keeps_public_out, rows(target, CONNECT)) == (True, [(False,)])


def test_close_removes_the_mark_of_a_target_that_was_opened_by_hand(
    target: DatabaseAddress,
) -> None:
    """Its comment would call it closed for ever."""
    comment_on(target, "orders of May")
    close_and_end(target)
    run(target, f"GRANT CONNECT ON DATABASE {target.name} TO PUBLIC")
    close_and_end(target, is_new=False)
    assert rows(target, COMMENT) == [("orders of May",)]


def test_two_restores_into_one_target_exclude_each_other(
    target: DatabaseAddress, new_database: Callable[..., DatabaseAddress]
) -> None:
    with sole_restore(target) as confirm:
        confirm()
        with pytest.raises(UsageError, match="Another restore"), sole_restore(target):
            pass
        with sole_restore(new_database("SELECT")):
            pass


def test_restore_can_follow_another_whose_session_the_server_has_not_ended_yet(
    target: DatabaseAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy server ends a session some time after the client has closed it."""
    not_ended: list[psycopg.Connection] = []
    with monkeypatch.context() as patch, sole_restore(target):
        patch.setattr(psycopg.Connection, "close", lambda session: not_ended.append(session))
    with sole_restore(target):
        pass
    for connection in not_ended:
        connection.close()


def test_restore_that_lost_its_lock_does_not_open_the_target(target: DatabaseAddress) -> None:
    with sole_restore(target) as confirm:
        run(target, END_LOCKS)
        with pytest.raises(ServiceError, match="was not opened"):
            confirm()


@pytest.mark.parametrize("kind", ["TABLES", "LARGE OBJECTS"])
def test_target_that_opens_new_records_by_default_is_refused(
    target: DatabaseAddress, roles: None, kind: str
) -> None:
    """PostgreSQL has such default privileges of large objects since version 18."""
    try:
        run(target, f"ALTER DEFAULT PRIVILEGES GRANT SELECT ON {kind} TO clerk_of_owners")
    except psycopg.errors.SyntaxError:
        pytest.skip("this PostgreSQL has no default privileges on large objects")
    with pytest.raises(UsageError, match="by default"):
        close_and_end(target)


def test_sole_restore_notices_that_its_session_no_longer_has_the_lock(
    target: DatabaseAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pooler between may give the next statement to another session."""
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
