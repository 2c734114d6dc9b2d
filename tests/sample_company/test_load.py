"""The sample loads whole or not at all, the same for the same seed, at any size."""

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


def test_the_same_seed_size_and_moment_give_the_same_content(
    connection: psycopg.Connection[Any], sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even when the rows are made in chunks of another size."""
    monkeypatch.setattr(tables, "CHUNK", 778)
    sheet = load(connection, customers=CUSTOMERS, as_of=AS_OF)
    assert digest(connection) == digest(sample.connection)
    assert sheet == sample.sheet


@pytest.mark.parametrize(
    "other",
    [{"seed": 2}, {"customers": 201}, {"as_of": AS_OF + timedelta(seconds=1)}],
)
def test_another_seed_size_or_moment_gives_other_content(
    connection: psycopg.Connection[Any], other: dict[str, Any]
) -> None:
    """And the digest sees it."""
    usual: dict[str, Any] = {"customers": 200, "seed": 1, "as_of": AS_OF}
    load(connection, **usual)
    before = digest(connection)
    wipe(connection)
    load(connection, **{**usual, **other})
    assert digest(connection) != before


def test_the_digest_sees_one_changed_value(connection: psycopg.Connection[Any]) -> None:
    """And ignores the order of rows."""
    load(connection, customers=50, as_of=AS_OF)
    before = digest(connection)
    connection.execute("UPDATE customer SET name = name WHERE customer_id = 7")  # moves the row
    assert digest(connection) == before
    connection.execute("UPDATE customer SET name = name || ' ' WHERE customer_id = 7")
    assert digest(connection) != before


@pytest.mark.parametrize("customers", [0, 1, 2, 10, 1000])
def test_any_size_loads_with_valid_references(
    connection: psycopg.Connection[Any], customers: int
) -> None:
    """From the empty company on; every foreign key is looked up again."""
    sheet = load(connection, customers=customers, as_of=AS_OF)
    assert sheet.tables["customer"] == customers
    assert sheet.tables["waybill"] == 2 * customers
    assert not orphans(connection)
    assert len({canary.customer_id for canary in sheet.canaries}) == min((customers + 1) // 2, 8)
    assert sheet == AnswerSheet.model_validate_json(sheet.model_dump_json())


def orphans(connection: psycopg.Connection[Any]) -> list[str]:
    """Foreign keys with a row that refers to nothing, by a join of our own."""
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
    found = []
    for name, child, parent, columns, targets, validated in keys:
        match = " AND ".join(f"p.{t} = c.{c}" for c, t in zip(columns, targets, strict=True))
        filled = " AND ".join(f"c.{c} IS NOT NULL" for c in columns)
        lost = connection.execute(
            f"SELECT count(*) FROM {child} c WHERE {filled} "
            f"AND NOT EXISTS (SELECT FROM {parent} p WHERE {match})"
        ).fetchone()
        if not validated or lost != (0,):
            found.append(name)
    return found


def test_references_of_the_big_sample_are_valid(sample: Sample) -> None:
    """At a size where every rule has planted rows."""
    assert not orphans(sample.connection)


def test_references_are_enforced_after_the_load(connection: psycopg.Connection[Any]) -> None:
    """The load's way round the checks is not left open."""
    load(connection, customers=5, as_of=AS_OF)
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        connection.execute("UPDATE waybill SET sender_id = 99 WHERE waybill_id = 1")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        connection.execute("DELETE FROM customer WHERE customer_id = 1")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        connection.execute("UPDATE customer SET default_address_id = 99 WHERE customer_id = 1")


def test_a_load_by_an_ordinary_user_has_its_references_checked(
    connection: psycopg.Connection[Any], postgres: EmbeddedPostgres
) -> None:
    """Without the right to switch triggers off the result is the same."""
    load(connection, customers=60, as_of=AS_OF)
    wanted = digest(connection)
    wipe(connection)
    connection.execute("DROP ROLE IF EXISTS loader")
    connection.execute("CREATE ROLE loader LOGIN PASSWORD 'loader'")
    connection.execute("GRANT ALL ON SCHEMA public TO loader")
    name = connection.info.dbname
    with psycopg.connect(postgres.conninfo(name, "loader", "loader"), autocommit=True) as own:
        load(own, customers=60, as_of=AS_OF)
        assert digest(own) == wanted
        own.execute("DROP OWNED BY loader CASCADE")
    connection.execute("DROP OWNED BY loader")
    connection.execute("DROP ROLE loader")


def test_new_rows_get_numbers_of_their_own(connection: psycopg.Connection[Any]) -> None:
    """Identity columns go on where the sample ends."""
    load(connection, customers=5, as_of=AS_OF)
    new = connection.execute(
        "INSERT INTO department (name, kind) VALUES ('新部门', 'office') RETURNING department_id"
    ).fetchone()
    assert new == (15,)


def test_a_database_with_anything_in_it_is_refused(connection: psycopg.Connection[Any]) -> None:
    """The error names what was found; nothing is added."""
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
def test_wrong_arguments_are_refused(
    connection: psycopg.Connection[Any], wrong: dict[str, Any], message: str
) -> None:
    """Before the database is touched."""
    with pytest.raises(UsageError, match=message):
        load(connection, **{"customers": 1, "as_of": AS_OF, **wrong})


@pytest.mark.parametrize("step", ["customer", "waybill_2025_03", "intake_record", "analyze"])
def test_an_interrupted_load_leaves_the_database_empty(
    connection: psycopg.Connection[Any], step: str
) -> None:
    """So the next one starts afresh."""

    def stop(at: str, done: int, total: int) -> None:
        if at == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(connection, customers=20, as_of=AS_OF, progress=stop)
    load(connection, customers=20, as_of=AS_OF)


def test_a_failure_while_making_rows_reaches_the_caller(
    connection: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows are made in a thread; its errors are not lost there."""

    def fail(*_: object) -> None:
        raise ArithmeticError("broken dice")

    monkeypatch.setattr("include.sample_company.customers._emails", fail)
    with pytest.raises(ArithmeticError, match="broken dice"):
        load(connection, customers=20, as_of=AS_OF)


def test_progress_ends_at_its_total(connection: psycopg.Connection[Any]) -> None:
    """A bar drawn from it fills up."""
    last: dict[str, tuple[int, int]] = {}
    load(
        connection, customers=30, as_of=AS_OF,
        progress=lambda step, done, total: last.__setitem__(step, (done, total)),
    )  # fmt: skip
    assert {"customer", "waybill_2026_02", "access_log", "analyze"} <= set(last)
    assert last["customer"] == (30, 30)
    assert last["analyze"] == (1, 1)


def test_rates_are_honoured_and_checked(connection: psycopg.Connection[Any]) -> None:
    """More waybills on request; planting more than half of the rows is refused."""
    clean = Rates(waybills=3.5, customer_defects={}, canaries=0)
    sheet = load(connection, customers=100, as_of=AS_OF, rates=clean)
    assert sheet.tables["waybill"] == 350
    assert sheet.planted["missing_phone"].count == 0
    assert sheet.canaries == ()
    wipe(connection)
    crowded = Rates(customer_defects={"stale_customer": 600})
    with pytest.raises(ValueError, match="more than half"):
        load(connection, customers=100, as_of=AS_OF, rates=crowded)


def test_partitions_are_monthly_for_three_years_and_the_next_month(sample: Sample) -> None:
    """Named and bounded by the months of Asia/Shanghai, where it is March already."""
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


def test_the_newest_waybill_is_ten_minutes_old_and_nothing_is_in_the_future(
    sample: Sample,
) -> None:
    """So that a drill can check the newest record lies inside its window."""
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


def test_events_follow_the_order_of_life(sample: Sample) -> None:
    """No one sends, is looked up or is shared before signing up or after leaving."""
    for table, who, when in (
        ("waybill", "sender_id", "created_at"),
        ("waybill", "receiver_id", "created_at"),
        ("access_log", "customer_id", "accessed_at"),
        ("share_log", "customer_id", "shared_at"),
        ("complaint", "customer_id", "opened_at"),
    ):
        wrong = sample.rows(
            f"SELECT count(*) FROM {table} e JOIN customer c ON c.customer_id = e.{who} "
            f"WHERE e.{when} < c.created_at "
            f"OR ('{table}' <> 'complaint' AND e.{when} > c.closed_at)"
        )
        assert wrong == [(0,)], (table, who)
    assert sample.rows(
        "SELECT count(*) FROM training_completion JOIN employee USING (employee_id) "
        "WHERE completed_on < joined_on OR completed_on > left_on"
    ) == [(0,)]


def test_masked_labels_hide_what_the_standard_asks(sample: Sample) -> None:
    """GB/T 41833-2022: a character of the name, six digits of the phone, the unit."""
    masked = sample.rows("SELECT count(*) FROM waybill WHERE masked_at IS NOT NULL")
    assert masked > [(1000,)]
    for side in ("sender", "receiver"):
        assert sample.rows(
            f"SELECT count(*) FROM waybill WHERE (masked_at IS NOT NULL) <> "
            f"({side}_name LIKE '%%**' AND {side}_phone ~ '^1[0-9]{{2}}[*]{{6}}[0-9]{{2}}$' "
            f"AND {side}_address LIKE '%%**' AND {side}_address NOT LIKE '%%室%%')"
        ) == [(0,)]


def test_masked_labels_of_canaries_hide_them(sample: Sample) -> None:
    """Nothing marked is left on them, or a search for canaries would find what was masked."""
    canaries = {one.customer_id for one in sample.sheet.canaries}
    seen = 0
    for side in ("sender", "receiver"):
        for customer, name, address in sample.rows(
            f"SELECT {side}_id, {side}_name, {side}_address FROM waybill "
            "WHERE masked_at IS NOT NULL"
        ):
            seen += customer in canaries
            assert not [
                one for one in sample.sheet.canaries
                if one.customer_id == customer and (one.value in name or one.value in address)
            ]  # fmt: skip
    assert seen > 10
    assert sample.rows(
        "SELECT count(*) FROM waybill WHERE masked_at IS NOT NULL AND (sender_name LIKE '%%丝雀%%' "
        "OR receiver_name LIKE '%%丝雀%%')"
    ) == [(0,)]


def test_the_schema_has_the_shapes_that_backups_must_keep(sample: Sample) -> None:
    """Identity, generated, enum, JSON, binary and deferrable things are all there."""
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
