"""Test that a restore and a restore drill name the CHECK constraint that makes a load fail."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Engine

from include.backup.drill import DrillTarget
from include.backup.explain import CheckRefusesRows, check_that_refused
from include.backup.restore import restore
from include.encryption.recipients import Recipient
from include.evidence.model import Outcome
from include.evidence.signing import Signer
from include.services.database import DatabaseAddress
from include.services.objectstore.directory import DirectoryStore
from tests.backup.drill_rig import Rig
from tests.backup.support import run, take
from tests.support.holders import Holder

# Tables of one size are loaded in the order of their names: zone comes after parcel.
TABLES = """
CREATE TABLE zone (code text PRIMARY KEY); INSERT INTO zone VALUES ('A'), ('B');
CREATE TABLE parcel (id int PRIMARY KEY, zone text);
"""
ROWS = "INSERT INTO parcel VALUES (1, 'A');"
READS_ZONES = """
CREATE FUNCTION is_zone(text) RETURNS bool LANGUAGE sql AS
    'SELECT EXISTS (SELECT FROM public.zone WHERE code = $1)';
"""
RAISES = """
CREATE FUNCTION is_zone(text) RETURNS bool LANGUAGE plpgsql AS $$
BEGIN IF NOT EXISTS (SELECT FROM public.zone WHERE code = $1) THEN RAISE 'no zone %', $1; END IF;
RETURN true; END $$;
"""
CHECK = "ALTER TABLE parcel ADD CONSTRAINT in_zone CHECK (is_zone(zone))"
FUNCTIONS = {"returns false": READS_ZONES, "raises": RAISES}

Taking = Callable[[str], Rig]


@pytest.fixture
def taking(
    source: DatabaseAddress,
    server: DatabaseAddress,
    store: DirectoryStore,
    recipients: list[Recipient],
    signer: Signer,
    operations: Holder,
    state: Engine,
) -> Taking:
    """Return a function that fills a database with the given statements and backs it up."""

    def backed_up(fill: str) -> Rig:
        run(source, fill)
        point = take(source, store, recipients, signer).source(operations.opening)
        target = DrillTarget(server, jobs=1)
        return Rig(point, target, server, source, state)

    return backed_up


@pytest.mark.parametrize("function", FUNCTIONS)
def test_restore_drill_fails_and_reports_check_constraint_that_reads_another_table(
    taking: Taking, function: str
) -> None:
    """The constraint's function may also raise an error whose text contains a value."""
    rig = taking(TABLES + ROWS + FUNCTIONS[function] + CHECK)
    record = rig.drill()
    (finding,) = record.findings
    assert (finding.code, record.outcome) == ("drill.check_constraint", Outcome.FAIL)
    assert finding.message.values["constraints"] == "in_zone of public.parcel"
    assert "pg_dump" in str(finding.for_engineers)
    assert "NOT VALID" in str(finding.for_engineers)
    assert rig.scratch_left() == []


def test_restore_fails_and_reports_check_constraint_that_reads_another_table(
    taking: Taking, target: DatabaseAddress
) -> None:
    rig = taking(TABLES + ROWS + READS_ZONES + CHECK)
    with pytest.raises(
        CheckRefusesRows, match=r"in_zone of public\.parcel, which calls a function"
    ):
        restore(rig.source, target, jobs=1)


def test_restore_succeeds_if_check_constraint_is_marked_not_valid(
    taking: Taking, target: DatabaseAddress
) -> None:
    """pg_dump writes a NOT VALID constraint after all rows, so no row is checked."""
    rig = taking(TABLES + ROWS + READS_ZONES + CHECK + " NOT VALID")
    assert restore(rig.source, target, jobs=1).differences == ()


START = 'pg_restore: error: COPY failed for table "parcel": '
CONTEXT = "\nCONTEXT:  PL/pgSQL function public.is_zone(text) line 1 at RAISE"


@pytest.mark.parametrize(
    ("output", "is_named"),
    [
        (f"{START}FEHLER:  neue Zeile »parcel« ...", True),
        (f"{START}ERROR:  no zone A{CONTEXT}", True),
        (f'{START}ERROR:  new row for relation "parcel" violates check constraint "other"', False),
        (f'{START}ERROR:  invalid input syntax for type integer: "x"', False),
        (f"{START.replace('parcel', 'zone')}ERROR:  no zone A{CONTEXT}", False),
        ("pg_restore: error: could not execute query: ERROR:  x", False),
        ("", False),
    ],
)
def test_error_of_failed_load_contains_check_constraint_that_calls_a_function(
    source: DatabaseAddress, output: str, is_named: bool
) -> None:
    """The constraint is named only if it calls a function and may be the cause of the error."""
    other = "ALTER TABLE parcel ADD CONSTRAINT other CHECK (id > 0)"
    run(source, f"{TABLES}{READS_ZONES}{CHECK}; {other}")
    assert (check_that_refused(output, source) is not None) == is_named
