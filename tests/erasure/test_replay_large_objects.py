"""Large objects of erased records in a restored copy."""

from __future__ import annotations

import psycopg
from sqlalchemy import Engine

from tests.erasure.test_replay import entered
from tests.erasure.test_replay_schema import CUSTOMERS, replayed, rows, state

__all__ = ["state"]  # a fixture


def test_replay_deletes_large_objects_of_erased_records(
    copy: psycopg.Connection, state: Engine
) -> None:
    """The trigger of the extension lo fires: without it the scan of an ID card would stay."""
    copy.execute(
        CUSTOMERS
        + """ALTER TABLE customer ADD scan oid;
        UPDATE customer SET scan = lo_from_bytea(0, 'scan');
        CREATE FUNCTION lo_manage() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN PERFORM lo_unlink(OLD.scan); RETURN OLD; END $$;
        CREATE TRIGGER scans BEFORE DELETE ON customer
            FOR EACH ROW EXECUTE FUNCTION lo_manage(scan);"""
    )
    ((before,),) = rows(copy, "SELECT count(*) FROM pg_largeobject_metadata")
    entered(state, {"customer": [["2"]]})
    assert replayed(copy, state).remaining == 0
    assert rows(copy, "SELECT count(*) FROM pg_largeobject_metadata") == [(before - 1,)]
