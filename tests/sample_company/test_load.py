"""Tests that loading the sample is atomic and reproducible, and valid at any size."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from include.local.postgres import EmbeddedPostgres
from include.sample_company import AnswerSheet, Rates, digest, load
from include.sample_company import columns as tables
from include.services.errors import UsageError
from tests.sample_company.conftest import AS_OF, CUSTOMERS, Sample


@pytest.fixture
def connection(database: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection to an empty database."""
    with psycopg.connect(database, autocommit=True) as opened:
        yield opened


def wipe(connection: psycopg.Connection[Any]) -> None:
    connection.execute("DROP SCHEMA public CASCADE")
    connection.execute("CREATE SCHEMA public")


def test_load_with_same_seed_size_and_time_gives_the_same_content(
    connection: psycopg.Connection[Any], sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The size of the blocks in which rows are generated does not matter."""
    monkeypatch.setattr(tables, "CHUNK", 778)
    sheet = load(connection, customers=CUSTOMERS, as_of=AS_OF)
    assert digest(connection) == digest(sample.connection)
    assert sheet == sample.sheet


@pytest.mark.parametrize(
    "other",
    [{"seed": 2}, {"customers": 201}, {"as_of": AS_OF + timedelta(seconds=1)}],
)
def test_load_with_another_seed_size_or_time_gives_other_content(
    connection: psycopg.Connection[Any], other: dict[str, Any]
) -> None:
    """The digest of the content differs."""
    usual: dict[str, Any] = {"customers": 200, "seed": 1, "as_of": AS_OF}
    load(connection, **usual)
    before = digest(connection)
    wipe(connection)
    load(connection, **{**usual, **other})
    assert digest(connection) != before


def test_digest_of_database_changes_if_a_single_value_changes(
    connection: psycopg.Connection[Any],
) -> None:
    """The digest does not depend on the order of rows."""
    load(connection, customers=50, as_of=AS_OF)
    before = digest(connection)
    connection.execute("UPDATE customer SET name = name WHERE customer_id = 7")  # moves the row
    assert digest(connection) == before
    connection.execute("UPDATE customer SET name = name || ' ' WHERE customer_id = 7")
    assert digest(connection) != before


@pytest.mark.parametrize("customers", [0, 1, 2, 10, 1000])
def test_sample_of_any_size_has_valid_foreign_keys(
    connection: psycopg.Connection[Any], customers: int
) -> None:
    """The test checks every foreign key. It also loads a sample without customers."""
    sheet = load(connection, customers=customers, as_of=AS_OF)
    assert sheet.tables["customer"] == customers
    assert sheet.tables["waybill"] == 2 * customers
    assert not orphans(connection)
    assert len({canary.customer_id for canary in sheet.canaries}) == min((customers + 1) // 2, 8)
    assert sheet == AnswerSheet.model_validate_json(sheet.model_dump_json())


def orphans(connection: psycopg.Connection[Any]) -> list[str]:
    """Return the names of foreign keys that are not validated or have a row without a target."""
    keys = connection.execute(
        """
        SELECT conname, conrelid::regclass::text, confrelid::regclass::text,
          (SELECT array_agg(attname::text ORDER BY o) FROM unnest(conkey) WITH ORDINALITY u (n, o)
           JOIN pg_attribute ON attrelid = conrelid AND attnum = n),
          (SELECT array_agg(attname::text ORDER BY o) FROM unnest(confkey) WITH ORDINALITY u (n, o)
           JOIN pg_attribute ON attrelid = confrelid AND attnum = n), convalidated
        FROM pg_constraint WHERE contype = 'f' AND conparentid = 0
        """
    ).fetchall()
    assert len(keys) >= 25
    orphaned = []
    for name, child, parent, columns, targets, validated in keys:
        match = " AND ".join(f"p.{t} = c.{c}" for c, t in zip(columns, targets, strict=True))
        filled = " AND ".join(f"c.{c} IS NOT NULL" for c in columns)
        lost = connection.execute(
            f"SELECT count(*) FROM {child} c WHERE {filled} "
            f"AND NOT EXISTS (SELECT FROM {parent} p WHERE {match})"
        ).fetchone()
        if not validated or lost != (0,):
            orphaned.append(name)
    return orphaned


def test_foreign_keys_of_the_large_sample_are_valid(sample: Sample) -> None:
    """A sample of this size has rows with deliberate defects for every rule."""
    assert not orphans(sample.connection)


def test_foreign_keys_are_enforced_after_the_load(connection: psycopg.Connection[Any]) -> None:
    """The load disables foreign key checks only in its own transaction."""
    load(connection, customers=5, as_of=AS_OF)
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        connection.execute("UPDATE waybill SET sender_id = 99 WHERE waybill_id = 1")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        connection.execute("DELETE FROM customer WHERE customer_id = 1")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        connection.execute("UPDATE customer SET default_address_id = 99 WHERE customer_id = 1")


def test_load_by_an_ordinary_user_gives_the_same_content(
    connection: psycopg.Connection[Any], postgres: EmbeddedPostgres
) -> None:
    """A user without the right to disable triggers gets the same content."""
    load(connection, customers=60, as_of=AS_OF)
    expected = digest(connection)
    wipe(connection)
    connection.execute("DROP ROLE IF EXISTS loader")
    connection.execute("CREATE ROLE loader LOGIN PASSWORD 'loader'")
    connection.execute("GRANT ALL ON SCHEMA public TO loader")
    name = connection.info.dbname
    with psycopg.connect(postgres.conninfo(name, "loader", "loader"), autocommit=True) as own:
        load(own, customers=60, as_of=AS_OF)
        assert digest(own) == expected
        own.execute("DROP OWNED BY loader CASCADE")
    connection.execute("DROP OWNED BY loader")
    connection.execute("DROP ROLE loader")


def test_rows_inserted_after_the_load_get_unused_primary_keys(
    connection: psycopg.Connection[Any],
) -> None:
    """Identity columns continue after the largest number of the sample."""
    load(connection, customers=5, as_of=AS_OF)
    new = connection.execute(
        "INSERT INTO department (name, kind) VALUES ('新部门', 'office') RETURNING department_id"
    ).fetchone()
    assert new == (15,)


def test_load_refuses_a_database_that_is_not_empty(connection: psycopg.Connection[Any]) -> None:
    """The error names the existing table, and the database is unchanged."""
    connection.execute('CREATE SCHEMA other CREATE TABLE "Größe" (a int)')
    with pytest.raises(UsageError, match=r"not empty: it has other\.Größe"):
        load(connection, customers=1, as_of=AS_OF)
    assert connection.execute("SELECT to_regclass('public.customer')").fetchone() == (None,)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"customers": -1}, "not -1"),
        ({"customers": 20_000_001}, "not 20,000,001"),
        ({"as_of": datetime(2026, 1, 1)}, "time zone"),  # noqa: DTZ001 - the mistake meant
    ],
)
def test_load_raises_usage_error_if_customer_number_is_invalid_or_time_has_no_timezone(
    connection: psycopg.Connection[Any], wrong: dict[str, Any], message: str
) -> None:
    """An invalid number of customers or a time without timezone must not start the load."""
    with pytest.raises(UsageError, match=message):
        load(connection, **{"customers": 1, "as_of": AS_OF, **wrong})


@pytest.mark.parametrize("step", ["customer", "waybill_2025_03", "intake_record", "analyze"])
def test_interrupted_load_leaves_the_database_empty(
    connection: psycopg.Connection[Any], step: str
) -> None:
    """The load can therefore be started again."""

    def stop(at: str, done: int, total: int) -> None:
        if at == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(connection, customers=20, as_of=AS_OF, progress=stop)
    load(connection, customers=20, as_of=AS_OF)


def test_load_raises_error_of_the_thread_that_generates_rows(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread generates the rows, and its errors are raised in the caller."""

    def fail(*_: object) -> None:
        raise ArithmeticError("broken dice")

    monkeypatch.setattr("include.sample_company.customers._emails", fail)
    with pytest.raises(ArithmeticError, match="broken dice"):
        load(connection, customers=20, as_of=AS_OF)


def test_last_progress_call_of_each_load_step_reports_its_total(
    connection: psycopg.Connection[Any],
) -> None:
    """A progress bar therefore reaches its end."""
    last: dict[str, tuple[int, int]] = {}
    load(
        connection, customers=30, as_of=AS_OF,
        progress=lambda step, done, total: last.__setitem__(step, (done, total)),
    )  # fmt: skip
    assert {"customer", "waybill_2026_02", "access_log", "analyze"} <= set(last)
    assert last["customer"] == (30, 30)
    assert last["analyze"] == (1, 1)


def test_load_uses_given_rates_and_raises_value_error_if_defects_exceed_half_of_the_rows(
    connection: psycopg.Connection[Any],
) -> None:
    """A rate can be raised, but not so far that more than half of the rows would have defects."""
    clean = Rates(waybills=3.5, customer_defects={}, canaries=0)
    sheet = load(connection, customers=100, as_of=AS_OF, rates=clean)
    assert sheet.tables["waybill"] == 350
    assert sheet.planted["missing_phone"].count == 0
    assert sheet.canaries == ()
    wipe(connection)
    crowded = Rates(customer_defects={"stale_customer": 600})
    with pytest.raises(ValueError, match="more than half"):
        load(connection, customers=100, as_of=AS_OF, rates=crowded)


def test_waybill_partitions_cover_three_years_and_the_next_month(sample: Sample) -> None:
    """The partitions are months of the timezone Asia/Shanghai, in which it is already March."""
    names = [
        name for (name,) in sample.rows(
            "SELECT inhrelid::regclass::text FROM pg_inherits "
            "WHERE inhparent = 'waybill'::regclass ORDER BY 1"
        )
    ]  # fmt: skip
    assert AS_OF + timedelta(hours=8) > datetime(2026, 3, 1, tzinfo=UTC)
    assert len(names) == 38
    assert (names[0], names[-1]) == ("waybill_2023_03", "waybill_2026_04")
    used = sample.rows(
        "SELECT DISTINCT tableoid::regclass::text, "
        "'waybill_' || to_char(created_at AT TIME ZONE 'Asia/Shanghai', 'YYYY_MM') FROM waybill"
    )
    assert len(used) == 37
    assert all(holder == month for holder, month in used)


def test_newest_waybill_is_ten_minutes_old_and_no_record_is_later(
    sample: Sample,
) -> None:
    """A restore drill can therefore check that the newest record is recent."""
    assert sample.rows("SELECT max(created_at) FROM waybill") == [(AS_OF - timedelta(minutes=10),)]
    columns = sample.rows(
        "SELECT table_name, column_name FROM information_schema.columns JOIN pg_class "
        "ON relname = table_name WHERE table_schema = 'public' AND NOT relispartition "
        "AND data_type = 'timestamp with time zone' AND column_name <> 'valid_until'"
    )
    assert len(columns) > 15
    for table, column in columns:
        late = sample.rows(f"SELECT count(*) FROM {table} WHERE {column} > %(now)s")
        assert late == [(0,)], (table, column)


def test_events_of_a_customer_happen_while_the_account_is_open(sample: Sample) -> None:
    """Customers have no events before they sign up or after they close the account."""
    for table, column, time_column in (
        ("waybill", "sender_id", "created_at"),
        ("waybill", "receiver_id", "created_at"),
        ("access_log", "customer_id", "accessed_at"),
        ("share_log", "customer_id", "shared_at"),
        ("complaint", "customer_id", "opened_at"),
    ):
        wrong = sample.rows(
            f"SELECT count(*) FROM {table} e JOIN customer c ON c.customer_id = e.{column} "
            f"WHERE e.{time_column} < c.created_at "
            f"OR ('{table}' <> 'complaint' AND e.{time_column} > c.closed_at)"
        )
        assert wrong == [(0,)], (table, column)
    assert sample.rows(
        "SELECT count(*) FROM training_completion JOIN employee USING (employee_id) "
        "WHERE completed_on < joined_on OR completed_on > left_on"
    ) == [(0,)]


def test_masked_waybill_labels_hide_name_phone_and_address_as_the_standard_requires(
    sample: Sample,
) -> None:
    """By GB/T 41833-2022, part of the name and of the phone number, and the unit are hidden."""
    masked = sample.rows("SELECT count(*) FROM waybill WHERE masked_at IS NOT NULL")
    assert masked > [(1000,)]
    for side in ("sender", "receiver"):
        assert sample.rows(
            f"SELECT count(*) FROM waybill WHERE (masked_at IS NOT NULL) <> "
            f"({side}_name LIKE '%%**' AND {side}_phone ~ '^1[0-9]{{2}}[*]{{6}}[0-9]{{2}}$' "
            f"AND {side}_address LIKE '%%**' AND {side}_address NOT LIKE '%%室%%')"
        ) == [(0,)]


def test_masked_labels_contain_no_canary_value(sample: Sample) -> None:
    """Otherwise a search for canary values would report masked labels as leaked customer data."""
    canaries = {canary.customer_id for canary in sample.sheet.canaries}
    canary_labels = 0
    for side in ("sender", "receiver"):
        for customer, name, address in sample.rows(
            f"SELECT {side}_id, {side}_name, {side}_address FROM waybill "
            "WHERE masked_at IS NOT NULL"
        ):
            canary_labels += customer in canaries
            assert not [
                canary for canary in sample.sheet.canaries
                if canary.customer_id == customer
                and (canary.value in name or canary.value in address)
            ]  # fmt: skip
    assert canary_labels > 10
    assert sample.rows(
        "SELECT count(*) FROM waybill WHERE masked_at IS NOT NULL AND (sender_name LIKE '%%丝雀%%' "
        "OR receiver_name LIKE '%%丝雀%%')"
    ) == [(0,)]


def test_sample_schema_has_identity_generated_enum_and_binary_columns_and_deferred_constraints(
    sample: Sample,
) -> None:
    """These are identity, generated, enum, JSON and binary columns, and deferred constraints."""
    assert sample.rows(
        "SELECT is_identity, identity_generation FROM information_schema.columns "
        "WHERE table_name = 'customer' AND column_name = 'customer_id'"
    ) == [("YES", "BY DEFAULT")]
    assert sample.rows(
        "SELECT count(*) > 0 AND bool_and(province_code = left(division_code, 2)) FROM address"
    ) == [(True,)]
    assert sample.rows("SELECT count(*) FROM pg_type WHERE typtype = 'e'") == [(3,)]
    assert sample.rows("SELECT count(*) FROM pg_constraint WHERE condeferred") == [(2,)]
    assert sample.rows("SELECT obj_description('complaint'::regclass)")[0][0].startswith("客户投诉")
    assert sample.rows("SELECT min(length(signature)) > 0 FROM delivery_proof") == [(True,)]
