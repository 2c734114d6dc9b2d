"""Test that a comparison with the manifest reports every difference.

Another order of rows does not count as a difference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from include.backup.compare import Definitions, check_foreign_keys, compare
from include.backup.restore import restore
from include.encryption.recipients import Recipient
from include.evidence.signing import Signer
from include.services.database import DatabaseAddress
from include.services.errors import ServiceError, UsageError
from include.services.objectstore.directory import DirectoryStore
from tests.backup.support import Taken, run, take
from tests.support.holders import Holder

FILL = r"""
CREATE TABLE customer (id int PRIMARY KEY, name text, at timestamptz DEFAULT '2026-11-24 10:00+08');
INSERT INTO customer SELECT n, 'name ' || n FROM generate_series(1, 50) n;
CREATE TABLE "odd ""one" (line text);
INSERT INTO "odd ""one" VALUES (''), (''), (E'\\.'), ('x');
CREATE TABLE empty (id int);
SELECT lo_from_bytea(901, 'one'), lo_from_bytea(902, 'two');
"""


@pytest.fixture(scope="module")
def plain(
    new_database: Callable[..., DatabaseAddress],
    tmp_path_factory: pytest.TempPathFactory,
    recipients: list[Recipient],
    signer: Signer,
) -> Taken:
    return take(
        new_database(FILL), DirectoryStore(tmp_path_factory.mktemp("plain")), recipients, signer
    )


@pytest.fixture
def copy(plain: Taken, target: DatabaseAddress, operations: Holder) -> DatabaseAddress:
    restore(plain.source(operations.opening), target)
    return target


def test_compare_reports_table_with_changed_added_or_deleted_row_or_large_object(
    plain: Taken, copy: DatabaseAddress, operations: Holder
):
    """The test makes and undoes one change at a time. The comparison reports only that change."""
    source = plain.source(operations.opening)
    odd = '"odd ""one"'
    for change, undo, different in [
        ("UPDATE customer SET name = 'namE 7' WHERE id = 7",
         "UPDATE customer SET name = 'name 7' WHERE id = 7", "public.customer"),
        ("UPDATE customer SET name = NULL WHERE id = 7",
         "UPDATE customer SET name = 'name 7' WHERE id = 7", "public.customer"),
        ("UPDATE customer SET id = 0 WHERE id = 7",
         "UPDATE customer SET id = 7 WHERE id = 0", "public.customer"),
        ("UPDATE customer SET at = at + interval '1 us' WHERE id = 50",
         "UPDATE customer SET at = at - interval '1 us' WHERE id = 50", "public.customer"),
        (f"INSERT INTO {odd} VALUES ('')",
         f"DELETE FROM {odd} WHERE ctid = (SELECT max(ctid) FROM {odd} WHERE line = '')",
         'public.odd "one'),
        (f"DELETE FROM {odd} WHERE ctid = (SELECT min(ctid) FROM {odd})",
         f"INSERT INTO {odd} VALUES ('')", 'public.odd "one'),
        (f"UPDATE {odd} SET line = 'x' WHERE line = E'\\\\.'",
         f"UPDATE {odd} SET line = E'\\\\.' WHERE ctid = (SELECT max(ctid) FROM {odd})",
         'public.odd "one'),
        ("INSERT INTO empty VALUES (NULL)", "DELETE FROM empty", "public.empty"),
        ("SELECT lo_put(902, 0, 'tvo')", "SELECT lo_put(902, 0, 'two')",
         "pg_catalog.pg_largeobject"),
        ("SELECT lo_unlink(901)", "SELECT lo_from_bytea(901, 'one')", "pg_catalog.pg_largeobject"),
    ]:  # fmt: skip
        run(copy, change)
        assert compare(source, copy).different == (different,), change
        run(copy, undo)
    assert compare(source, copy).different == ()


def test_compare_reports_missing_table_and_changed_schema(
    plain: Taken, copy: DatabaseAddress, operations: Holder
):
    """Added and changed definitions are differences too."""
    source = plain.source(operations.opening)
    run(copy, "CREATE INDEX added ON customer (name)")
    comparison = compare(source, copy)
    assert comparison.different == ()
    assert comparison.definitions != Definitions()
    run(copy, "DROP INDEX added; DROP TABLE empty")
    comparison = compare(source, copy)
    assert comparison.missing == ("public.empty",)
    assert comparison.compared == 2
    assert comparison.definitions != Definitions()
    run(copy, "CREATE TABLE empty (id int)")
    assert compare(source, copy).definitions == Definitions()


def test_compare_does_not_report_reordered_rows_as_a_difference(
    plain: Taken, copy: DatabaseAddress, operations: Holder
):
    """A load may store rows in another order. Two swapped values are a difference."""
    source = plain.source(operations.opening)
    run(copy, "CREATE INDEX r ON customer (name DESC); CLUSTER customer USING r; DROP INDEX r")
    comparison = compare(source, copy)
    assert comparison.reordered == ("public.customer",)
    assert comparison.different == ()
    run(copy, "UPDATE customer SET name = 'name ' || 3 - id WHERE id IN (1, 2)")
    comparison = compare(source, copy)
    assert (comparison.reordered, comparison.different) == ((), ("public.customer",))


def test_compare_reports_no_difference_if_timezone_and_datestyle_of_copy_differ(
    plain: Taken, copy: DatabaseAddress, operations: Holder, server: DatabaseAddress
):
    """The server of the copy may print timestamps in another format."""
    for setting in ("timezone = 'Asia/Shanghai'", "datestyle = 'German'", "extra_float_digits = 0"):
        with server.connect(autocommit=True) as conn:
            conn.execute(f"ALTER DATABASE {copy.name} SET {setting}")
    comparison = compare(plain.source(operations.opening), copy)
    assert (comparison.different, comparison.reordered) == ((), ())


def test_compare_raises_service_error_if_archive_does_not_match_manifest(
    plain: Taken, copy: DatabaseAddress, operations: Holder
):
    """Rows are compared singly only if the archive has the checksum that the manifest records."""
    tables = tuple(
        table.model_copy(update={"sha256": "0" * 64}) if table.name == "customer" else table
        for table in plain.manifest.tables
    )
    source = replace(
        plain.source(operations.opening),
        manifest=plain.manifest.model_copy(update={"tables": tables}),
    )
    with pytest.raises(ServiceError, match=r"does not match its own manifest in public\.customer"):
        compare(source, copy)


def test_compare_raises_error_if_restored_copy_cannot_be_read(
    plain: Taken, copy: DatabaseAddress, operations: Holder
):
    """Cases: a role without rights, and a database that does not exist."""
    source = plain.source(operations.opening)
    run(copy, "CREATE ROLE without_rights LOGIN PASSWORD 'x'")
    try:
        parameters = {**copy.parameters, "user": "without_rights"}
        with pytest.raises(ServiceError, match=r"The restored copy .* cannot be read"):
            compare(source, DatabaseAddress(parameters, "x"))
    finally:
        run(copy, "DROP ROLE without_rights")
    with pytest.raises(UsageError, match="no_such_copy"):
        compare(source, copy.with_database("no_such_copy"))


PARENTS = """
CREATE TABLE parent (a int, b int, PRIMARY KEY (a, b));
INSERT INTO parent VALUES (1, 1), (2, 2);
CREATE TABLE heir () INHERITS (parent);
"""
BREAK = "SET session_replication_role = replica;"


@pytest.mark.parametrize(
    ("tables", "broken"),
    [
        ("CREATE TABLE c (a int, b int, FOREIGN KEY (a, b) REFERENCES parent);"
         "INSERT INTO c VALUES (1, 1), (1, 2), (9, 9), (NULL, 9), (NULL, NULL), (9, NULL)", 2),
        ("CREATE TABLE c (a int, b int, FOREIGN KEY (a, b) REFERENCES parent MATCH FULL);"
         "INSERT INTO c VALUES (1, 1), (9, 9), (NULL, 2), (NULL, NULL), (2, NULL)", 3),
        ("CREATE TABLE c (x int, y int, FOREIGN KEY (y, x) REFERENCES parent (a, b));"
         "INSERT INTO parent VALUES (1, 7); INSERT INTO c VALUES (7, 1), (1, 7)", 1),
        ("CREATE TABLE c (a int, b int, FOREIGN KEY (a, b) REFERENCES parent);"
         "INSERT INTO heir VALUES (5, 5); INSERT INTO c VALUES (5, 5)", 1),
        ("CREATE TABLE c (a int, b int, FOREIGN KEY (a, b) REFERENCES parent);"
         "CREATE TABLE child_heir () INHERITS (c); INSERT INTO child_heir VALUES (9, 9)", 0),
        ("CREATE TABLE c (id int PRIMARY KEY, up int REFERENCES c);"
         "INSERT INTO c VALUES (1, 2), (2, 1), (3, 4)", 1),
        ("CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id);"
         "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10);"
         "CREATE TABLE c (id int REFERENCES p) PARTITION BY LIST (id);"
         "CREATE TABLE c1 PARTITION OF c DEFAULT; INSERT INTO p VALUES (1);"
         "INSERT INTO c VALUES (1), (2), (3)", 2),
        ('CREATE TABLE c ("a ""x" int, "客户" int,'
         ' FOREIGN KEY ("a ""x", "客户") REFERENCES parent);'
         "INSERT INTO c VALUES (1, 1), (3, 3)", 1),
        ("CREATE TABLE c (a int, b int); INSERT INTO c VALUES (9, 9);"
         "ALTER TABLE c ADD FOREIGN KEY (a, b) REFERENCES parent NOT VALID", None),
        ("CREATE TABLE p (id int4range, at daterange,"
         "    PRIMARY KEY (id, at WITHOUT OVERLAPS));"
         "CREATE TABLE c (id int4range, at daterange,"
         "    FOREIGN KEY (id, PERIOD at) REFERENCES p (id, PERIOD at));"
         "INSERT INTO p VALUES ('[1,1]', '[2026-01-01,2026-02-01)'),"
         "    ('[1,1]', '[2026-02-01,2026-03-01)');"
         "INSERT INTO c VALUES ('[1,1]', '[2026-01-15,2026-02-15)'),"
         "    ('[1,1]', '[2026-02-15,2026-03-15)'),"
         "    ('[2,2]', '[2026-01-01,2026-01-02)'), (NULL, '[2026-01-01,2026-01-02)')", 2),
        ("CREATE TABLE p (id int4range, n int4range, at daterange,"
         "    PRIMARY KEY (id, n, at WITHOUT OVERLAPS));"
         "CREATE TABLE c (id int4range, n int4range, at daterange,"
         "    FOREIGN KEY (id, n, PERIOD at) REFERENCES p (id, n, PERIOD at));"
         "INSERT INTO p VALUES ('[1,1]', '[3,3]', '[2026-01-01,2026-02-01)');"
         "INSERT INTO c VALUES ('[1,1]', '[3,3]', '[2026-01-15,2026-01-20)'),"
         "    ('[1,1]', '[4,4]', '[2026-01-15,2026-01-20)'),"
         "    ('[1,1]', '[3,3]', '[2026-01-15,2026-02-20)')", 2),
    ],
)  # fmt: skip
def test_check_foreign_keys_counts_rows_whose_referenced_row_is_missing(
    source: DatabaseAddress, tables: str, broken: int | None
):
    """Cases: MATCH SIMPLE and FULL, several columns, inherited and partitioned tables, PERIOD."""
    run(source, PARENTS + BREAK + tables)
    with source.connect() as conn:
        orphans = check_foreign_keys(conn)
    assert orphans.checked == (0 if broken is None else 1)
    assert sum(orphans.broken.values()) == (broken or 0)
    assert all(name.startswith("public.c.") for name in orphans.broken)


def test_check_foreign_keys_compares_values_with_the_equality_operator_of_the_foreign_key(
    source: DatabaseAddress,
):
    """The operator of citext, for example, ignores case and may be outside of the search path."""
    names = {"<": "lt", "<=": "le", "=": "eq", ">=": "ge", ">": "gt"}
    run(
        source,
        "CREATE SCHEMA ext; CREATE FUNCTION ext.cmp(text, text) RETURNS int IMMUTABLE "
        "LANGUAGE sql AS 'SELECT bttextcmp(lower($1), lower($2))';"
        + "".join(
            f"CREATE FUNCTION ext.{name}(text, text) RETURNS bool IMMUTABLE LANGUAGE sql "
            f"AS 'SELECT lower($1) {sign} lower($2)';"
            f"CREATE OPERATOR ext.{sign} (FUNCTION = ext.{name}, LEFTARG = text, RIGHTARG = text);"
            for sign, name in names.items()
        )
        + "CREATE OPERATOR CLASS ext.caseless FOR TYPE text USING btree AS "
        + ", ".join(f"OPERATOR {n} ext.{sign}" for n, sign in enumerate(names, 1))
        + ", FUNCTION 1 ext.cmp(text, text);"
        """CREATE TABLE p (name text); CREATE UNIQUE INDEX ON p (name ext.caseless);
        CREATE TABLE c (name text REFERENCES p (name));
        INSERT INTO p VALUES ('Wang'); INSERT INTO c VALUES ('WANG');""",
    )
    with source.connect() as conn:
        orphans = check_foreign_keys(conn)
    assert (orphans.checked, orphans.broken) == (1, {})
