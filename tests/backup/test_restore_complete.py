"""A restore brings back what the backup holds, or names what it leaves out."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from include.backup.compare import compare
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
    """Create roles that are dropped with all that they own on the databases that were named."""
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


def test_restore_brings_back_comments_and_grants_of_large_objects(
    new_database: Callable[..., DatabaseAddress],
    target: DatabaseAddress,
    store: DirectoryStore,
    recipients: list[Recipient],
    signer: Signer,
    operations: Holder,
    role: Callable[..., str],
) -> None:
    """Comments always, grants with owners; they belong to no section of the archive."""
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
    assert compare(source, target).same_schema
    run(target, "DROP TABLE t; SELECT lo_unlink(oid) FROM pg_largeobject_metadata")
    restore(source, target, owners=True)
    assert rows(target, COMMENTS) == [(77, "signature"), (79, "photo")]
    ((grants,),) = rows(target, acl)
    assert f"{reader}=r" in str(grants)


def test_restore_into_server_without_the_tablespace(
    new_database: Callable[..., DatabaseAddress],
    server: DatabaseAddress,
    target: DatabaseAddress,
    store: DirectoryStore,
    recipients: list[Recipient],
    signer: Signer,
    operations: Holder,
) -> None:
    """Tablespaces belong to the server and are left out."""
    with server.connect(autocommit=True) as conn:
        conn.execute("SET allow_in_place_tablespaces = on")
        conn.execute("CREATE TABLESPACE fast LOCATION ''")
    origin = new_database("CREATE TABLE t (id int) TABLESPACE fast; INSERT INTO t VALUES (1)")
    source = take(origin, store, recipients, signer).source(operations.opening)
    with server.connect(autocommit=True) as conn:
        conn.execute("ALTER TABLESPACE fast RENAME TO gone")
        try:
            assert restore(source, target).differences == ()
            assert compare(source, target).same_schema
            assert rows(target, "SELECT reltablespace::int FROM pg_class WHERE relname = 't'") == [
                (0,)
            ]
        finally:
            run(origin, "DROP TABLE t")
            conn.execute("DROP TABLESPACE gone")


@pytest.mark.parametrize("reads_catalogue", [True, False])
def test_restore_leaves_policies_of_tables_that_were_there_before(
    new_database: Callable[..., DatabaseAddress],
    server: DatabaseAddress,
    store: DirectoryStore,
    recipients: list[Recipient],
    signer: Signer,
    operations: Holder,
    role: Callable[..., str],
) -> None:
    """Only tables that the restore creates are unprotected while they are loaded."""
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
