"""The share of personal columns that guesses find in databases with data maps written by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.local.postgres import EmbeddedPostgres
from include.policy import SHIPPED
from include.policy.datamap import MappedDatabase
from include.registry import load_pack
from include.schema.guess import guess
from include.schema.guesses import Guess
from include.schema.live import LiveColumn, LiveSchema, LiveTable, Name, read_schema
from include.schema.patterns import TableCounts, count_patterns
from tests.schema.support import scratch
from tests.schema.test_drift import CHINOOK

UNSEEN = Path(__file__).parent / "unseen"
Column = tuple[str, str]


def counts_of(connection: psycopg.Connection[Any], live: LiveSchema) -> dict[Name, TableCounts]:
    return {name: count_patterns(connection, table) for name, table in live.tables.items()}


def shares(live: LiveSchema, guesses: list[Guess], truth: set[Column]) -> tuple[float, float]:
    """Return two rates: the rate of found personal columns, and the rate of wrong guesses.

    The first is the number of personal columns with a guess, divided by all personal columns. The
    second is the number of other columns with a guess, divided by all other columns.
    """
    marked = {
        (marked_column.table, marked_column.column)
        for marked_column in guesses
        if not marked_column.key
    }
    all_columns = {
        (table.name, column) for table in live.tables.values() for column in table.columns
    }
    assert truth <= all_columns
    return len(truth & marked) / len(truth), len(marked - truth) / len(all_columns - truth)


def personal(database: MappedDatabase) -> set[Column]:
    return {
        (collection.table, field.name)
        for collection in database.collections.values()
        for field in collection.fields.values()
        if field.is_personal
    }


@pytest.mark.parametrize("with_values", [True, False], ids=["values", "empty tables"])
def test_guess_marks_at_least_95_percent_of_personal_columns_of_sample_and_chinook(
    courier: psycopg.Connection[Any], chinook: psycopg.Connection[Any], with_values: bool
) -> None:
    """Guesses must mark 95% of personal columns and at most 5% of others, also without values."""
    for connection, database in (
        (courier, load_pack(SHIPPED).database("courier")),
        (chinook, load_pack(CHINOOK).database("chinook")),
    ):
        live = read_schema(connection)
        counts = counts_of(connection, live) if with_values else {}
        recall, wrong = shares(live, guess(live, counts), personal(database))
        assert recall >= 0.95, database.name
        assert wrong <= 0.05, database.name


@pytest.mark.parametrize("name", sorted(path.stem for path in UNSEEN.glob("*.sql")))
def test_guess_marks_at_least_90_percent_of_personal_columns_of_schemas_not_used_to_develop_it(
    postgres: EmbeddedPostgres, name: str
) -> None:
    """Each script lists its personal columns in comments."""
    script = (UNSEEN / f"{name}.sql").read_text(encoding="utf-8")
    truth = set()
    for line in script.splitlines():
        if line.startswith("-- personal: "):
            table, *columns = line.removeprefix("-- personal: ").split()
            truth |= {
                (table.rpartition(".")[2].replace("~", " "), column.replace("~", " "))
                for column in columns
            }
    with scratch(postgres, script) as connection:
        live = read_schema(connection)
        recall, wrong = shares(live, guess(live, counts_of(connection, live)), truth)
    assert recall >= 0.9
    assert wrong <= 0.05


def guess_by_names(tables: Mapping[str, str], **kinds: str) -> dict[str, str]:
    """Return the categories that names alone suggest, by ``table.column``.

    Args:
        tables: column names of each table, separated by spaces.
        kinds: types of columns that are not text, by column name.
    """
    live = LiveSchema({
        ("public", name): LiveTable(
            "public", name, "table",
            {part: LiveColumn(part, kinds.get(part, "text"), kinds.get(part, "text"))
             for part in columns.split()},
        )
        for name, columns in tables.items()
    })  # fmt: skip
    return {f"{marked.table}.{marked.column}": marked.category for marked in guess(live, {})}


@pytest.mark.parametrize(
    ("column", "category"),
    [
        ("xm", "user.name"),
        ("hzxm", "user.name"),
        ("sjhm", "user.contact.phone_number"),
        ("lxrdh", "user.contact.phone_number"),
        ("sfzh", "user.government_id.national_identification_number"),
        ("jtzz", "user.contact.address.street"),
        ("csrq", "user.demographic.date_of_birth"),
        ("身份证号码", "user.government_id.national_identification_number"),
        ("收件人手机", "user.contact.phone_number"),
        ("custFirstNm", "user.name.first"),
        ("DOB", "user.demographic.date_of_birth"),
        ("e-mail", "user.contact.email"),
        ("mailing_address", "user.contact.address.street"),
        ("billing_zip", "user.contact.address.postal_code"),
        ("Geburtsdatum", "user.demographic.date_of_birth"),
        ("passport_no", "user.government_id.passport_number"),
        ("religion", "user.demographic.religious_belief"),
        ("creditCardNumber", "user.financial.credit_card"),
        ("phone2", "user.contact.phone_number"),
    ],
)
def test_guess_recognises_personal_columns_by_names_in_many_languages(
    column: str, category: str
) -> None:
    assert guess_by_names({"customer": f"id {column}"})[f"customer.{column}"] == category


def test_column_called_name_is_guessed_as_personal_only_in_tables_of_people() -> None:
    """Names of a track, a department or a company are not personal."""
    guesses = guess_by_names({
        "customer": "id name", "employees": "id name", "track": "id name composer", "genre": "name",
        "department": "id name phone email address", "company": "name city phone",
        "artist": "id name", "product": "id name description", "customer_type": "code name",
        "file_template": "name",
    })  # fmt: skip
    assert {name for name in guesses if name.endswith(".name")} == {
        "customer.name",
        "employees.name",
    }
    assert {name.split(".")[0] for name in guesses} == {"customer", "employees"}


def test_guess_does_not_mark_phone_and_address_of_suppliers_as_personal(
    postgres: EmbeddedPostgres,
) -> None:
    """This holds even if values are mobile numbers. Contact persons and ID numbers are personal."""
    script = """CREATE TABLE supplier (id int PRIMARY KEY, company_name text, contact_name text,
        phone text, address text, city text, owner_id_number text);
    INSERT INTO supplier SELECT n, '某某公司', '王小明', '1380000' || lpad(n::text, 4, '0'),
        '中关村大街' || n || '号', '北京', '11010519491231002X' FROM generate_series(1, 40) n;"""
    with scratch(postgres, script) as connection:
        live = read_schema(connection)
        columns = {marked.column for marked in guess(live, counts_of(connection, live))}
    assert columns == {"contact_name", "owner_id_number"}


def test_column_called_state_is_guessed_as_personal_in_addresses_but_not_in_orders() -> None:
    """In a table of orders, a column called state is not a geographic location."""
    guesses = guess_by_names({
        "orders": "id customer_id state email", "address": "id customer_id city state",
        "order_items": "id quantity", "product": "id state city",
    }, quantity="int4")  # fmt: skip
    assert "address.state" in guesses
    assert "orders.state" not in guesses
    assert not any(name.startswith("product.") for name in guesses)


def test_guess_does_not_mark_columns_such_as_email_verified_or_phone_type_as_personal() -> None:
    guesses = guess_by_names(
        {"subscription_event": "person_id phone_type email_verified address_count"}
    )
    assert set(guesses) == {"subscription_event.person_id"}


def test_guess_recognises_references_to_people_by_column_name() -> None:
    guesses = guess_by_names(
        {"events": "id patientId user_id 患者编号 created_by product_id device_count"}
    )
    assert set(guesses) == {
        "events.patientId", "events.user_id", "events.患者编号", "events.created_by"
    }  # fmt: skip


def test_personal_columns_with_meaningless_names_are_recognised_by_their_values(
    postgres: EmbeddedPostgres,
) -> None:
    """The columns f1 to f6 are marked because of their values.

    Other numbers and codes stay unmarked.
    """
    script = """
    CREATE TABLE x (f1 text, f2 text, f3 text, f4 bigint, f5 text, f6 text, n1 bigint, n2 text,
                    n3 text, n4 numeric, n5 text);
    INSERT INTO x SELECT
        (ARRAY['11010519491231002X','440524188001010014'])[n % 2 + 1], 'u' || n || '@x.example',
        (ARRAY['王小明','李建华','张丽','欧阳晨','陈志强','赵敏'])[n % 6 + 1], 13800000000 + n,
        (ARRAY['James Smith','Mary Jones','Anna Müller','Peter O''Neill','Linda de Vries'])
            [n % 5 + 1],
        '4111 1111 1111 1111', n, 'A' || n,
        (ARRAY['Deep Purple','Iron Maiden','Led Zeppelin'])[n % 3 + 1],
        n * 1.5, '2024-01-01' FROM generate_series(1, 200) n;
    """
    with scratch(postgres, script) as connection:
        live = read_schema(connection)
        guesses = {marked.column: marked for marked in guess(live, counts_of(connection, live))}
    assert {column: marked.category for column, marked in guesses.items()} == {
        "f1": "user.government_id.national_identification_number",
        "f2": "user.contact.email",
        "f3": "user.name",
        "f4": "user.contact.phone_number",
        "f5": "user.name",
        "f6": "user.financial.credit_card",
    }
    assert {marked.confidence for marked in guesses.values()} == {"medium"}
    assert not any(value in str(guesses) for value in ("James", "王小明", "4111", "110105"))


def test_guess_from_column_name_has_low_confidence_if_no_value_fits_the_name(
    postgres: EmbeddedPostgres,
) -> None:
    """The column stays marked, and the guess states the reason for the doubt."""
    script = """CREATE TABLE customer (id int PRIMARY KEY, email text, phone text);
    INSERT INTO customer SELECT n, 'yes', '1380000' || lpad(n::text, 4, '0')
    FROM generate_series(1, 50) n;"""
    with scratch(postgres, script) as connection:
        live = read_schema(connection)
        guesses = {marked.column: marked for marked in guess(live, counts_of(connection, live))}
    assert (guesses["email"].confidence, guesses["phone"].confidence) == ("low", "high")
    assert guesses["email"].reason == "name only: no value looks like it"
    assert guesses["phone"].reason == "name, and 100% of the values"
