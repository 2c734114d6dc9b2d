"""Tests of the deletion of large objects of erased records in a restored copy."""

from __future__ import annotations

import psycopg
import pytest
from sqlalchemy import Engine

from include.erasure.masks import Mask
from include.erasure.replay import ReplayRules
from tests.erasure.test_replay import enter_erasures
from tests.erasure.test_replay_schema import CUSTOMERS, HISTORY, replayed, rows, state

__all__ = ["state"]  # a fixture


LO_MANAGE = """CREATE FUNCTION lo_manage() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM lo_unlink(OLD.scan); RETURN OLD; END $$;
"""
# The test server lacks the extension lo, so another extension gets its name and its function.
EXTENSION = """CREATE EXTENSION vector;
UPDATE pg_extension SET extname = 'lo' WHERE extname = 'vector';
ALTER EXTENSION lo ADD FUNCTION lo_manage();
"""


@pytest.mark.parametrize("extension", ["", EXTENSION], ids=["application", "extension"])
def test_replay_deletes_large_objects_of_erased_records(
    copy: psycopg.Connection, state: Engine, extension: str
) -> None:
    """With the extension lo, the trigger of the extension deletes the objects.

    Without the extension, the replay deletes the objects.
    """
    copy.execute(
        (
            CUSTOMERS
            + LO_MANAGE
            + extension
            + """ALTER TABLE customer ADD scan oid;
            UPDATE customer SET scan = lo_from_bytea(0, 'scan');
            CREATE TRIGGER scans BEFORE DELETE ON customer
                FOR EACH ROW EXECUTE FUNCTION lo_manage(scan);"""
        ).encode()
    )
    ((before,),) = rows(copy, "SELECT count(*) FROM pg_largeobject_metadata")
    enter_erasures(state, {"customer": [["2"]]})
    result = replayed(copy, state)
    assert (result.remaining, result.large_objects) == (0, 0 if extension else 1)
    assert rows(copy, "SELECT count(*) FROM pg_largeobject_metadata") == [(before - 1,)]


def test_replay_does_not_fire_an_application_trigger_whose_function_is_named_lo_manage(
    copy: psycopg.Connection, state: Engine
) -> None:
    """Only the function lo_manage of the extension lo may fire during a replay."""
    copy.execute(
        (
            CUSTOMERS
            + HISTORY.replace("remember()", "lo_manage()")
            + """CREATE TRIGGER history AFTER DELETE OR UPDATE ON customer
                FOR EACH ROW EXECUTE FUNCTION lo_manage();"""
        ).encode()
    )
    enter_erasures(state, {"customer": [["2"]]})
    enter_erasures(state, {"customer": [["3"]]}, action="mask")
    result = replayed(copy, state, ReplayRules({"c": Mask({"name": "erase"})}))
    assert (result.replayed, result.remasked) == (1, 1)
    assert rows(copy, "SELECT * FROM customer_history") == []


DOCUMENTS = (
    CUSTOMERS
    + """
CREATE DOMAIN lo AS oid;
ALTER TABLE customer ADD scan lo, ADD photo oid;
UPDATE customer SET scan = lo_create(1000 + customer_id), photo = lo_create(2000 + customer_id);
CREATE TABLE contract (contract_id int PRIMARY KEY, scan oid);
INSERT INTO contract VALUES (1, 1003);
CREATE MATERIALIZED VIEW scans AS SELECT scan FROM customer;
CREATE FUNCTION clear_away() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM lo_unlink(OLD.scan), lo_unlink(OLD.photo); RETURN OLD; END';
CREATE TRIGGER clear_away AFTER DELETE ON customer FOR EACH ROW EXECUTE FUNCTION clear_away();
SELECT lo_create(9999);
"""
)


def test_replay_deletes_large_objects_that_a_suspended_trigger_would_have_deleted(
    copy: psycopg.Connection, state: Engine
) -> None:
    """The replay keeps objects of other records, and objects to which no record referred."""
    copy.execute(DOCUMENTS.encode())
    enter_erasures(state, {"customer": [["2"], ["3"]]})
    assert replayed(copy, state).large_objects == 3
    numbers = {number for (number,) in rows(copy, "SELECT oid FROM pg_largeobject_metadata")}
    assert not numbers & {1002, 2002, 2003}
    assert {1001, 1003, 1004, 1005, 2001, 2004, 2005, 9999} <= numbers
    copy.execute("SELECT lo_unlink(oid) FROM pg_largeobject_metadata")


def test_replay_keeps_large_objects_of_records_that_it_masks(
    copy: psycopg.Connection, state: Engine
) -> None:
    """The rows of masked records still refer to the objects."""
    copy.execute(DOCUMENTS.encode())
    enter_erasures(state, {"customer": [["2"]]}, action="mask")
    rules = ReplayRules({"c": Mask({"name": "erase"})})
    result = replayed(copy, state, rules)
    assert (result.remasked, result.large_objects) == (1, 0)
    assert rows(copy, "SELECT count(*) FROM pg_largeobject_metadata WHERE oid < 3000") == [(10,)]
    copy.execute("SELECT lo_unlink(oid) FROM pg_largeobject_metadata")


REFERRING = [
    "CREATE TABLE contract (scan scan_number); INSERT INTO contract VALUES (1002)",
    "CREATE TABLE contract (scans oid[]); INSERT INTO contract VALUES ('{1,1002}')",
    "CREATE TABLE contract (scans scan_number[]); INSERT INTO contract VALUES ('{1002}')",
    "CREATE TABLE contract (p paper); INSERT INTO contract VALUES (ROW('4294967296', '{1002}'))",
    "CREATE MATERIALIZED VIEW contract AS SELECT 1002::oid AS scan",
]
TYPES = """
CREATE DOMAIN lo AS oid; CREATE DOMAIN scan_number AS lo;
CREATE TYPE paper AS (title text, scans scan_number[]);
"""


def take_large_objects(copy: psycopg.Connection) -> set[object]:
    """Return the oids of the large objects, and delete the objects."""
    numbers = {number for (number,) in rows(copy, "SELECT oid FROM pg_largeobject_metadata")}
    copy.execute("SELECT lo_unlink(oid) FROM pg_largeobject_metadata")
    copy.commit()
    return numbers


@pytest.mark.parametrize("reference", REFERRING)
def test_replay_keeps_large_objects_to_which_another_record_refers_in_a_column_of_any_type(
    copy: psycopg.Connection, state: Engine, reference: str
) -> None:
    """The references are in domains of domains, arrays, composite types, and views."""
    scans = "ALTER TABLE customer ADD scan oid; UPDATE customer SET scan = lo_create(1000 + "
    copy.execute((TYPES + CUSTOMERS + f"{scans} customer_id); {reference}").encode())
    enter_erasures(state, {"customer": [["2"], ["3"]]})
    assert replayed(copy, state).large_objects == 1
    assert take_large_objects(copy) == {1001, 1002, 1004, 1005}


OF_CUSTOMERS = [
    """ALTER TABLE customer ADD scan scan_number; UPDATE customer SET scan = lo_create(1000 +
    customer_id)""",
    """ALTER TABLE customer ADD scans scan_number[]; UPDATE customer SET scans =
    ARRAY[lo_create(1000 + customer_id)]""",
    """ALTER TABLE customer ADD paper paper; UPDATE customer SET paper =
    ROW('1001', ARRAY[lo_create(1000 + customer_id)]::scan_number[])""",
    """DROP TABLE customer; CREATE TABLE everybody (customer_id int PRIMARY KEY, scan oid)
    PARTITION BY RANGE (customer_id);
    CREATE TABLE customer PARTITION OF everybody FOR VALUES FROM (0) TO (100);
    INSERT INTO everybody SELECT n, lo_create(1000 + n) FROM generate_series(1, 5) n""",
    """DROP TABLE customer; CREATE TABLE customer (customer_id int PRIMARY KEY);
    CREATE TABLE company (scan oid, PRIMARY KEY (customer_id)) INHERITS (customer);
    CREATE TABLE old_company () INHERITS (company);
    INSERT INTO company SELECT n, lo_create(1000 + n) FROM generate_series(1, 4) n;
    INSERT INTO old_company VALUES (5, lo_create(1005))""",
]


@pytest.mark.parametrize("scans", OF_CUSTOMERS)
def test_replay_deletes_large_objects_of_erased_records_for_any_column_or_table_type(
    copy: psycopg.Connection, state: Engine, scans: str
) -> None:
    """The references are in columns of any type, in a partition, and in inheriting tables."""
    copy.execute((TYPES + CUSTOMERS + scans).encode())
    enter_erasures(state, {"customer": [["2"], ["5"]]})
    assert replayed(copy, state).large_objects == 2
    assert take_large_objects(copy) == {1001, 1003, 1004}


def test_replay_deletes_large_objects_after_masking_the_column_that_refers_to_them(
    copy: psycopg.Connection, state: Engine
) -> None:
    """After the mask has set the column to null, the record no longer refers to the objects."""
    copy.execute(DOCUMENTS.encode())
    enter_erasures(state, {"customer": [["2"]]}, action="mask")
    result = replayed(copy, state, ReplayRules({"c": Mask({"name": "erase", "scan": "erase"})}))
    assert (result.remasked, result.large_objects) == (1, 1)
    assert {1001, 2002} <= (left := take_large_objects(copy))
    assert 1002 not in left
