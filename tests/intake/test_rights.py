"""Errors about missing rights, locks and timeouts in the courier's database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

from include.intake import batches
from include.services.database import DatabaseAddress
from include.services.errors import ServiceError, UsageError
from tests.intake import steps
from tests.intake.conftest import NOW, OLDEST, Rig

ROLE = "intake_weak"


@pytest.fixture
def weak(rig: Rig) -> Iterator[DatabaseAddress]:
    """Provide the address of the database with a login that may only read its tables."""
    rig.rows(f"DROP ROLE IF EXISTS {ROLE}")
    rig.rows(f"CREATE ROLE {ROLE} LOGIN PASSWORD 'x'")
    rig.rows(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {ROLE}")
    address = DatabaseAddress.from_conninfo(rig.conninfo)
    yield DatabaseAddress({**address.parameters, "user": ROLE}, "x")
    rig.rows(f"DROP OWNED BY {ROLE}")
    rig.rows(f"DROP ROLE {ROLE}")


STEPS = ("find", "check", "ask", "take", "verify")
LACKS = [(step, table) for step in STEPS for table in ("intake_record", "public")]
# The other steps do not read the staff table.
LACKS += [(step, "employee") for step in ("check", "ask", "take")]


@pytest.mark.parametrize(("step", "table"), LACKS)
def test_error_about_missing_right_contains_the_right_and_the_table(
    rig: Rig, weak: DatabaseAddress, step: str, table: str
) -> None:
    checked = rig.checked()
    if table == "public":
        rig.rows("REVOKE USAGE ON SCHEMA public FROM PUBLIC")
    else:
        rig.rows(f"REVOKE SELECT ON {table} FROM {ROLE}")
    refused = replace(rig.table, reader=weak)
    answer = {"option": "Approve", "reason": "", "user": "E00003", "at": NOW, "content": ""}
    work = {
        "find": lambda: steps.find([refused]),
        "check": lambda: steps.check(refused, OLDEST),
        "ask": lambda: steps.ask(refused, checked),
        "take": lambda: steps.take(refused, checked, **answer),  # type: ignore[arg-type]
        "verify": lambda: steps.verify([refused], []),
    }
    with pytest.raises(UsageError, match="SQLSTATE 42501") as caught:
        work[step]()
    right = "USAGE on the schema" if table == "public" else "a right on the table"
    assert f"lacks {right} {table}, " in caught.value.message
    assert ROLE in caught.value.message
    assert "prints the statement" in caught.value.action
    assert "denied" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_row_level_security_on_intake_table_raises_error_about_missing_right_bypassrls(
    rig: Rig, weak: DatabaseAddress
) -> None:
    rig.rows("ALTER TABLE intake_record ENABLE ROW LEVEL SECURITY")
    rig.rows("CREATE POLICY everything ON intake_record USING (true)")
    with pytest.raises(UsageError, match="BYPASSRLS") as caught:
        steps.find([replace(rig.table, reader=weak)])
    assert "the table intake_record," in caught.value.message


@pytest.mark.parametrize("step", ["find", "check", "ask", "take", "settle", "verify"])
def test_every_step_raises_service_error_if_the_intake_table_is_locked(rig: Rig, step: str) -> None:
    checked = rig.checked()
    if step == "settle":
        rig.answered(checked)
    address = DatabaseAddress.from_conninfo(rig.conninfo)
    impatient = replace(
        address, parameters={**address.parameters, "options": "-c lock_timeout=200ms"}
    )
    refused = replace(rig.table, reader=impatient, writer=impatient)
    answer = {"option": "Approve", "reason": "", "user": "E00003", "at": NOW, "content": ""}
    work = {
        "find": lambda: steps.find([refused]),
        "check": lambda: steps.check(refused, OLDEST),
        "ask": lambda: steps.ask(refused, checked),
        "take": lambda: steps.take(refused, checked, **answer),  # type: ignore[arg-type]
        "settle": lambda: steps.settle(refused, checked),
        "verify": lambda: steps.verify([refused], []),
    }
    with psycopg.connect(rig.conninfo) as other_session:
        other_session.execute("LOCK TABLE intake_record IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(ServiceError, match="SQLSTATE 55P03") as caught:
            work[step]()
    assert "Another session holds a lock" in caught.value.message
    assert "The task is retried" in caught.value.action
    assert caught.value.__cause__ is None


def test_statement_timeout_raises_service_error(rig: Rig) -> None:
    with (
        psycopg.connect(
            rig.conninfo, options="-c statement_timeout=50ms", autocommit=True
        ) as connection,
        pytest.raises(ServiceError, match="SQLSTATE 57014"),
        batches.unit_of_work(connection, rig.table.incoming, write=False),
    ):
        connection.execute("SELECT pg_sleep(5)")
