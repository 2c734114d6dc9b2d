"""Test that a restore loads all objects of the backup, or names those that it omits."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from include.backup.access import TargetAccess
from include.backup.compare import Definitions, compare
from include.backup.restore import restore
from include.encryption.recipients import Recipient
from include.evidence.signing import Signer
from include.services.database import DatabaseAddress
from include.services.objectstore.directory import DirectoryStore
from tests.backup.support import rows, run, take
from tests.support.holders import Holder

COMMENTS = """
SELECT objoid::int, description FROM pg_description
WHERE classoid = 'pg_largeobject'::regclass ORDER BY 1
"""


@pytest.fixture
def role(server: DatabaseAddress) -> Iterator[Callable[..., str]]:
    """Create roles. After the test, drop them and their objects in the named databases."""
    created: dict[str, tuple[DatabaseAddress, ...]] = {}

    def create(options: str = "", *databases: DatabaseAddress) -> str:
        name = f"role_{uuid.uuid4().hex[:8]}"
        run(server, f"CREATE ROLE {name} {options}")
        created[name] = databases
        return name

    yield create
    for name, databases in created.items():
        for database in databases:
            run(database, f"DROP OWNED BY {name} CASCADE")
        run(server, f"DROP OWNED BY {name} CASCADE; DROP ROLE {name}")


def as_user(address: DatabaseAddress, user: str) -> DatabaseAddress:
    return replace(address, parameters={**address.parameters, "user": user}, password="x")


def test_restore_keeps_comments_and_grants_of_large_objects(
    new_database: Callable[..., DatabaseAddress],
    target: DatabaseAddress,
    store: DirectoryStore,
    recipients: list[Recipient],
    signer: Signer,
    operations: Holder,
    role: Callable[..., str],
) -> None:
    """Comments are always restored, and grants only together with owners.

    In the archive, the entries of these comments and grants name no section of pg_restore.
    """
    origin = new_database()
    reader = role("", origin, target)
    run(
        origin,
        f"""CREATE TABLE t (id int); INSERT INTO t VALUES (1);
        SELECT lo_from_bytea(77, 'x'), lo_from_bytea(78, 'y'), lo_from_bytea(79, 'z');
        COMMENT ON LARGE OBJECT 77 IS 'signature'; COMMENT ON LARGE OBJECT 79 IS 'photo';
        GRANT SELECT ON LARGE OBJECT 78 TO {reader};""",
    )
    source = take(origin, store, recipients, signer).source(operations.opening)
    restore(source, target, jobs=2)
    assert rows(target, COMMENTS) == [(77, "signature"), (79, "photo")]
    acl = "SELECT lomacl::text FROM pg_largeobject_metadata WHERE oid = 78"
    assert rows(target, acl) == [(None,)]
    assert compare(source, target).definitions == Definitions()
    run(target, "DROP TABLE t; SELECT lo_unlink(oid) FROM pg_largeobject_metadata")
    access = TargetAccess(target, owners=True, is_new=True)
    restore(source, target, owners=True, prepare=access.close)
    access.open()
    assert rows(target, COMMENTS) == [(77, "signature"), (79, "photo")]
    ((grants,),) = rows(target, acl)
    assert f"{reader}=r" in str(grants)


def test_backup_leaves_out_transient_login_and_restores_with_owners(
    new_database: Callable[..., DatabaseAddress],
    target: DatabaseAddress,
    store: DirectoryStore,
    recipients: list[Recipient],
    signer: Signer,
    operations: Holder,
) -> None:
    """The role of the login is dropped before the restore, as after the end of an access."""
    login = "parcelseal_use_17_0123456789ab"
    origin = new_database("CREATE TABLE t (id int PRIMARY KEY, x text); INSERT INTO t VALUES (1)")
    run(
        origin,
        f"""CREATE ROLE {login} LOGIN; CREATE SCHEMA {login};
        CREATE TABLE {login}.approved_key AS SELECT id FROM t;
        CREATE VIEW {login}.t WITH (security_barrier) AS SELECT t.id FROM t;
        GRANT USAGE ON SCHEMA {login} TO {login}; GRANT SELECT ON {login}.t TO {login};""",
    )
    taken = take(origin, store, recipients, signer)
    run(origin, f"DROP SCHEMA {login} CASCADE; DROP OWNED BY {login}; DROP ROLE {login}")
    assert [(table.schema_name, table.name) for table in taken.manifest.tables] == [("public", "t")]
    source = taken.source(operations.opening)
    access = TargetAccess(target, owners=True, is_new=True)
    assert restore(source, target, owners=True, prepare=access.close).differences == ()
    access.open()
    assert compare(source, target).definitions == Definitions()
    assert rows(target, f"SELECT FROM pg_namespace WHERE nspname = '{login}'") == []


def test_restore_into_server_without_tablespace_succeeds(
    new_database: Callable[..., DatabaseAddress],
    server: DatabaseAddress,
    target: DatabaseAddress,
    store: DirectoryStore,
    recipients: list[Recipient],
    signer: Signer,
    operations: Holder,
) -> None:
    """Tablespaces belong to the server and are omitted."""
    with server.connect(autocommit=True) as conn:
        conn.execute("SET allow_in_place_tablespaces = on")
        conn.execute("CREATE TABLESPACE fast LOCATION ''")
    origin = new_database("CREATE TABLE t (id int) TABLESPACE fast; INSERT INTO t VALUES (1)")
    source = take(origin, store, recipients, signer).source(operations.opening)
    with server.connect(autocommit=True) as conn:
        conn.execute("ALTER TABLESPACE fast RENAME TO gone")
        try:
            assert restore(source, target).differences == ()
            assert compare(source, target).definitions == Definitions()
            assert rows(target, "SELECT reltablespace::int FROM pg_class WHERE relname = 't'") == [
                (0,)
            ]
        finally:
            run(origin, "DROP TABLE t")
            conn.execute("DROP TABLESPACE gone")


def test_restore_of_table_with_forced_row_level_security_reports_no_difference(
    new_database: Callable[..., DatabaseAddress],
    server: DatabaseAddress,
    store: DirectoryStore,
    recipients: list[Recipient],
    signer: Signer,
    operations: Holder,
    role: Callable[..., str],
) -> None:
    """The policies apply to the restoring role, which owns the tables."""
    origin = new_database(
        """CREATE TABLE t (id int PRIMARY KEY, who text); INSERT INTO t VALUES (1, 'a'), (2, 'b');
        ALTER TABLE t ENABLE ROW LEVEL SECURITY; ALTER TABLE t FORCE ROW LEVEL SECURITY;
        CREATE POLICY mine ON t USING (who = 'a');
        CREATE TABLE child (id int REFERENCES t); INSERT INTO child VALUES (2);
        CREATE MATERIALIZED VIEW seen AS SELECT id FROM t;
        CREATE SCHEMA other; CREATE TABLE other.parts (id int) PARTITION BY LIST (id);
        CREATE TABLE other.part PARTITION OF other.parts DEFAULT;
        INSERT INTO other.parts VALUES (1);
        ALTER TABLE other.parts ENABLE ROW LEVEL SECURITY;
        ALTER TABLE other.parts FORCE ROW LEVEL SECURITY;"""
    )
    source = take(origin, store, recipients, signer).source(operations.opening)
    name = f"forced_{uuid.uuid4().hex[:8]}"
    owner = role("LOGIN PASSWORD 'x'")
    copy = new_database("", name, f"OWNER {owner}")
    try:
        restorer = as_user(copy, owner)
        assert restore(source, restorer).differences == ()
        assert rows(restorer, "SELECT id FROM t") == [(1,)]
        assert rows(restorer, "SELECT id FROM seen ORDER BY 1") == [(1,), (2,)]
        assert rows(restorer, "SELECT id FROM other.parts") == []
        comparison = compare(source, restorer)
        assert (comparison.different, comparison.missing) == ((), ())
        assert comparison.definitions == Definitions()
        state = "SELECT relrowsecurity, relforcerowsecurity FROM pg_class WHERE relname = 't'"
        assert rows(restorer, state) == [(True, True)]
        run(copy, "UPDATE t SET who = 'c' WHERE id = 2")
        assert compare(source, restorer).different == ("public.t",)
        assert rows(restorer, state) == [(True, True)]
    finally:
        run(copy, f"REASSIGN OWNED BY {owner} TO postgres")
        run(server, f"ALTER DATABASE {name} OWNER TO postgres")


def test_comparison_reports_no_difference_if_restore_omitted_publication_and_its_comment(
    new_database: Callable[..., DatabaseAddress],
    target: DatabaseAddress,
    store: DirectoryStore,
    recipients: list[Recipient],
    signer: Signer,
    operations: Holder,
) -> None:
    """A restore without owners omits publications and their comments."""
    origin = new_database(
        "CREATE TABLE t (id int); CREATE PUBLICATION p FOR TABLE t; COMMENT ON PUBLICATION p IS 'x'"
    )
    source = take(origin, store, recipients, signer).source(operations.opening)
    restore(source, target)
    assert compare(source, target).definitions == Definitions()


MAPPINGS = """
CREATE FOREIGN DATA WRAPPER none; CREATE SERVER central FOREIGN DATA WRAPPER none;
CREATE USER MAPPING FOR {role} SERVER central OPTIONS (password 'secret');
CREATE USER MAPPING FOR PUBLIC SERVER central;
"""


@pytest.mark.parametrize("reads_catalogue", [True, False])
def test_restore_reports_user_mappings_whose_options_were_not_backed_up(
    new_database: Callable[..., DatabaseAddress],
    target: DatabaseAddress,
    store: DirectoryStore,
    recipients: list[Recipient],
    signer: Signer,
    operations: Holder,
    role: Callable[..., str],
    reads_catalogue: bool,
) -> None:
    """Only a superuser can dump the options. All users can see whether a mapping has options."""
    origin = new_database()
    mapped = role("", origin, target)
    rights = "IN ROLE pg_read_all_data" if reads_catalogue else ""
    backup_role = role(f"LOGIN PASSWORD 'x' {rights}", origin)
    run(origin, MAPPINGS.format(role=mapped))
    taken = take(as_user(origin, backup_role), store, recipients, signer)
    expected = [f"{mapped} SERVER central"] + ([] if reads_catalogue else ["public SERVER central"])
    assert sorted(taken.manifest.mappings_without_options) == sorted(expected)
    assert b"secret" not in taken.manifest.as_bytes()
    source = taken.source(operations.opening)
    restored = restore(source, target)
    assert restored.left_out == tuple(
        sorted(f"options of USER MAPPING {name}" for name in expected)
    )
    assert compare(source, target).definitions == Definitions()
    by_superuser = take(origin, store, recipients, signer)
    assert by_superuser.manifest.mappings_without_options == ()
    assert b"mappings_without_options" not in by_superuser.manifest.as_bytes()
    run(target, "DROP FOREIGN DATA WRAPPER none CASCADE")
    restored = restore(by_superuser.source(operations.opening), target)
    assert restored.left_out == ()
    options = "SELECT umoptions FROM pg_user_mappings WHERE umoptions IS NOT NULL"
    assert rows(target, options) == [(["password=secret"],)]


def test_restore_reports_publications_and_database_settings_that_it_omits(
    new_database: Callable[..., DatabaseAddress],
    target: DatabaseAddress,
    store: DirectoryStore,
    recipients: list[Recipient],
    signer: Signer,
    operations: Holder,
) -> None:
    """Publications are restored only with owners. Settings of the database are never restored."""
    origin = new_database("CREATE TABLE t (id int); CREATE PUBLICATION p FOR TABLE t")
    run(origin, f"ALTER DATABASE {origin.name} SET search_path = extra")
    source = take(origin, store, recipients, signer).source(operations.opening)
    settings = f"DATABASE PROPERTIES {origin.name}"
    assert restore(source, target).left_out == (settings, "PUBLICATION p")
    run(target, "DROP TABLE t")
    assert restore(source, target, owners=True).left_out == (settings,)


def test_restore_does_not_change_row_level_security_of_existing_tables(
    new_database: Callable[..., DatabaseAddress],
    server: DatabaseAddress,
    store: DirectoryStore,
    recipients: list[Recipient],
    signer: Signer,
    operations: Holder,
    role: Callable[..., str],
) -> None:
    """Row-level security is lifted during the load only for tables that the restore creates."""
    origin = new_database("CREATE TABLE t (id int); INSERT INTO t VALUES (1)")
    source = take(origin, store, recipients, signer).source(operations.opening)
    name = f"before_{uuid.uuid4().hex[:8]}"
    owner = role("LOGIN PASSWORD 'x'")
    copy = new_database("", name, f"OWNER {owner}")
    restorer = as_user(copy, owner)
    try:
        run(
            restorer,
            "CREATE TABLE mine (id int); ALTER TABLE mine ENABLE ROW LEVEL SECURITY;"
            "ALTER TABLE mine FORCE ROW LEVEL SECURITY",
        )
        before = rows(copy, "SELECT xmin::text FROM pg_class WHERE relname = 'mine'")
        assert restore(source, restorer, allow_content=True).differences == ()
        assert rows(copy, "SELECT xmin::text FROM pg_class WHERE relname = 'mine'") == before
    finally:
        run(copy, f"REASSIGN OWNED BY {owner} TO postgres")
        run(server, f"ALTER DATABASE {name} OWNER TO postgres")
