"""Test step 7 of the restore runbook.

Its commands, as printed, replay erasures without ParcelSeal.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from include.erasure.ledger import ErasureKeys
from include.service_container import ROOT
from include.services.database import DatabaseAddress
from include.services.programs import program_folder
from tests.backup.support import rows, run
from tests.erasure.test_replay_large_objects import OF_CUSTOMERS, REFERRING, TYPES
from tests.erasure.test_views import BASE, THROUGH_FUNCTIONS

PAGES = [
    (ROOT / "docs" / "how-to" / name).read_text()
    for name in ("restore-without-parcelseal.md", "restore-erase-again.md")
]
PAGE = "\n".join(PAGES)
_BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
SETTINGS, PROGRAM = (
    block for block in _BLOCKS if block.startswith(("ELSEWHERE=", 'cat > "$work/erase.py"'))
)
STEP = SETTINGS + PROGRAM
KEYS = ErasureKeys({"1": b"k" * 32}, "1")
CUSTOMERS = """
CREATE TABLE customer (customer_id int PRIMARY KEY, name text NOT NULL, phone bigint, short char(1),
    facts jsonb);
INSERT INTO customer SELECT n, 'name ' || n, 13900000000 + n, 'x', '{"a": 1}'
FROM generate_series(1, 5) n;
CREATE TABLE customer_log (old_customer_id int, name text);
CREATE FUNCTION remember() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN INSERT INTO public.customer_log VALUES (OLD.customer_id, OLD.name);
    RETURN coalesce(NEW, OLD); END';
CREATE TRIGGER always AFTER DELETE OR UPDATE ON customer FOR EACH ROW EXECUTE FUNCTION remember();
CREATE TRIGGER off AFTER DELETE OR UPDATE ON customer FOR EACH ROW EXECUTE FUNCTION remember();
ALTER TABLE customer ENABLE ALWAYS TRIGGER always, DISABLE TRIGGER off;
CREATE RULE keep AS ON DELETE TO customer DO INSTEAD NOTHING;
CREATE MATERIALIZED VIEW z AS SELECT customer_id, name FROM customer;
CREATE MATERIALIZED VIEW a AS SELECT name FROM z;
CREATE MATERIALIZED VIEW unpopulated AS SELECT name FROM z WITH NO DATA;
"""


def followed(
    target: DatabaseAddress,
    folder: Path,
    *entries: tuple[str, str],
    types: str = "whole number",
    **settings: str,
) -> subprocess.CompletedProcess[str]:
    """Run the step with an erasure ledger for the table of customers.

    Args:
        target: restored copy.
        folder: folder for the files of the step.
        *entries: action and key of each entry of the ledger.
        types: types of the key columns, as the ledger writes them.
        **settings: variables of the step.
    """
    ledger = folder / "erasures.tsv"
    digests = [
        (action, KEYS.digest("1", "courier", "customer", [key]).hex()) for action, key in entries
    ]
    lines = [f"{action}\tcustomer\t1\t{digest}\t{types}\n" for action, digest in digests]
    ledger.write_text("".join(lines))
    keys = folder / "keys.json"
    keys.write_text(json.dumps({"current": "1", "keys": {"1": "k" * 32}}))
    step = STEP
    for name, value in settings.items():
        step, changed = re.subn(rf"^{name}=\(\).*$", f"{name}=({value})", step, flags=re.MULTILINE)
        assert changed == 1
    top = f"""set -euo pipefail
    export PGOPTIONS="{re.search(r'PGOPTIONS="(.*)"', PAGE)[1]}"
    field() {{ echo courier; }}; work={folder}; TARGET="{target.public_conninfo()}"
    LEDGER={ledger}; ERASURE_KEYS={keys}
    """  # type: ignore[index]  # the page has that line
    return subprocess.run(
        ["bash", "-c", top + step],
        check=False,
        capture_output=True,
        text=True,
        env={"PATH": f"{program_folder()}:{os.environ['PATH']}", "PGPASSWORD": target.password},
    )


def test_runbook_erases_and_masks_records_and_refreshes_views(
    target: DatabaseAddress, tmp_path: Path
) -> None:
    """Columns of any type are masked. Triggers and rules are disabled and enabled again."""
    run(target, CUSTOMERS)
    states = """SELECT tgname::text, tgenabled::text FROM pg_trigger
        UNION ALL SELECT rulename, ev_enabled::text FROM pg_rewrite WHERE rulename = 'keep'
        ORDER BY 1"""
    before = rows(target, states)
    done = followed(
        target,
        tmp_path,
        *(("delete", "2"), ("mask", "3"), ("mask", "9")),
        HIDE="customer=name,phone,short,facts",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 entries in the ledger, 0 left in the copy" in done.stdout
    assert rows(target, "SELECT * FROM customer WHERE customer_id < 4 ORDER BY 1") == [
        (1, "name 1", 13900000001, "x", {"a": 1}),
        (3, "**", None, "*", None),
    ]
    assert rows(target, "SELECT name FROM a ORDER BY 1") == [
        ("**",), ("name 1",), ("name 4",), ("name 5",)
    ]  # fmt: skip
    assert rows(target, "SELECT * FROM customer_log") == []
    assert rows(target, states) == before
    again = followed(target, tmp_path, ("mask", "3"), HIDE="customer=name,phone,short,facts")
    assert "1 entries in the ledger, 0 left" in again.stdout


@pytest.mark.parametrize("through", THROUGH_FUNCTIONS)
def test_runbook_refreshes_views_that_read_other_views_through_functions(
    target: DatabaseAddress, tmp_path: Path, through: str
) -> None:
    """The result must be the same as that of ParcelSeal's replay."""
    run(target, PLAIN_CUSTOMERS + BASE + THROUGH_FUNCTIONS[through])
    done = followed(target, tmp_path, ("delete", "2"))
    assert (done.returncode, done.stderr) == (0, "")
    assert rows(target, "SELECT FROM a_names v WHERE v::text LIKE '%name 2%'") == []
    assert rows(target, "SELECT FROM a_names v WHERE v::text LIKE '%name 3%'") == [()]


def test_runbook_deletes_large_objects_of_erased_records(
    target: DatabaseAddress, tmp_path: Path
) -> None:
    """A large object is kept if another record refers to it, or if no record referred to it."""
    run(
        target,
        CUSTOMERS
        + """ALTER TABLE customer DISABLE TRIGGER always; DROP RULE keep ON customer;
        ALTER TABLE customer ADD scan oid;
        UPDATE customer SET scan = lo_create(1000 + customer_id);
        CREATE TABLE contract (scan oid); INSERT INTO contract VALUES (1003);
        SELECT lo_create(9999);""",
    )
    done = followed(target, tmp_path, ("delete", "2"), ("delete", "3"))
    assert (done.returncode, done.stderr) == (0, "")
    numbers = {number for (number,) in rows(target, "SELECT oid FROM pg_largeobject_metadata")}
    assert numbers == {1001, 1003, 1004, 1005, 9999}


PLAIN_CUSTOMERS = """
CREATE TABLE customer (customer_id int PRIMARY KEY, name text);
INSERT INTO customer SELECT n, 'name ' || n FROM generate_series(1, 5) n;
"""


@pytest.mark.parametrize("reference", REFERRING)
def test_runbook_keeps_large_object_that_a_column_of_any_type_still_references(
    target: DatabaseAddress, tmp_path: Path, reference: str
) -> None:
    """The result must be the same as that of ParcelSeal's replay."""
    scans = "ALTER TABLE customer ADD scan oid; UPDATE customer SET scan = lo_create(1000 + "
    run(target, TYPES + PLAIN_CUSTOMERS + f"{scans} customer_id); {reference}")
    done = followed(target, tmp_path, ("delete", "2"), ("delete", "3"))
    assert (done.returncode, done.stderr) == (0, "")
    numbers = {number for (number,) in rows(target, "SELECT oid FROM pg_largeobject_metadata")}
    assert numbers == {1001, 1002, 1004, 1005}


@pytest.mark.parametrize("scans", OF_CUSTOMERS)
def test_runbook_deletes_large_objects_that_erased_records_reference_in_a_column_of_any_type(
    target: DatabaseAddress, tmp_path: Path, scans: str
) -> None:
    """The result must be the same as that of ParcelSeal's replay."""
    run(target, TYPES + PLAIN_CUSTOMERS + scans)
    done = followed(target, tmp_path, ("delete", "2"), ("delete", "5"))
    assert (done.returncode, done.stderr) == (0, "")
    numbers = {number for (number,) in rows(target, "SELECT oid FROM pg_largeobject_metadata")}
    assert numbers == {1001, 1003, 1004}


@pytest.mark.parametrize(
    "holder",
    [
        "INSERT INTO customer_log VALUES (2, 'x'), (3, 'y')",
        "CREATE TABLE seen (customer_id text); INSERT INTO seen VALUES ('2')",
        """CREATE TABLE audit (row jsonb);
        INSERT INTO audit VALUES ('{"was": {"customer_id": 2}}'), ('{"customer_id": 3}')""",
        "CREATE MATERIALIZED VIEW aside AS SELECT 2 AS customer_id",
        'CREATE TABLE seen ("oldCustomerId" text); INSERT INTO seen VALUES (2)',
        "CREATE TABLE seen (customerid text, xcustomerid int); INSERT INTO seen VALUES (2, 2)",
        """CREATE TABLE audit (row json);
        INSERT INTO audit VALUES ('[{"customerId": 2}]'), ('{"xcustomerid": 2}')""",
    ],
)
def test_runbook_exits_with_1_if_another_relation_contains_key_of_erased_record(
    target: DatabaseAddress, tmp_path: Path, holder: str
) -> None:
    """The message names the relation and the number of rows, never a value."""
    run(target, CUSTOMERS + holder)
    done = followed(target, tmp_path, ("delete", "2"))
    assert done.returncode == 1, done.stderr
    assert "1 rows hold keys of erased records of customer" in done.stdout
    assert "1 left in the copy" in done.stdout
    allowed = followed(target, tmp_path, ("delete", "2"), RULED="customer_log seen audit aside")
    assert allowed.returncode == 0, allowed.stdout


def test_runbook_fails_and_changes_nothing_if_a_column_cannot_be_masked(
    target: DatabaseAddress, tmp_path: Path
) -> None:
    """In this case, the step changes nothing."""
    run(target, CUSTOMERS + "ALTER TABLE customer ALTER phone SET NOT NULL")
    done = followed(target, tmp_path, ("delete", "2"), ("mask", "3"), HIDE="customer=name,phone")
    assert done.returncode != 0
    assert "customer.phone is no text and must not be null" in done.stderr
    assert rows(target, "SELECT count(*) FROM customer WHERE name LIKE 'name%'") == [(5,)]


def test_runbook_needs_variable_ledger_key_to_erase_records_of_table_without_primary_key(
    target: DatabaseAddress, tmp_path: Path
) -> None:
    """The variable LEDGER_KEY names the key columns.

    Without it, the step stops before any change.
    """
    run(target, "CREATE TABLE customer (customer_id int, name text);"
                "INSERT INTO customer VALUES (1, 'a'), (2, 'b')")  # fmt: skip
    stopped = followed(target, tmp_path, ("delete", "2"))
    assert stopped.returncode != 0
    assert "name its columns in LEDGER_KEY" in stopped.stderr
    other = followed(target, tmp_path, ("delete", "2"), LEDGER_KEY="customer=name")
    assert other.returncode != 0
    assert rows(target, "SELECT count(*) FROM customer") == [(2,)]
    done = followed(target, tmp_path, ("delete", "2"), LEDGER_KEY="customer=customer_id")
    assert done.returncode == 0, done.stderr
    assert rows(target, "SELECT customer_id FROM customer") == [(1,)]
