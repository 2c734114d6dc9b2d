"""How well personal columns are found: on databases mapped by hand, and on written ones."""

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
    """Share of the personal columns found, and of the others marked wrongly."""
    marked = {(one.table, one.column) for one in guesses if not one.key}
    every = {(table.name, column) for table in live.tables.values() for column in table.columns}
    assert truth <= every
    return len(truth & marked) / len(truth), len(marked - truth) / len(every - truth)


def personal(database: MappedDatabase) -> set[Column]:
    return {
        (one.table, field.name)
        for one in database.collections.values()
        for field in one.fields.values()
        if field.is_personal
    }


@pytest.mark.parametrize("with_values", [True, False], ids=["values", "empty tables"])
def test_the_sample_and_chinook_are_found_as_they_were_mapped_by_hand(
    courier: psycopg.Connection[Any], chinook: psycopg.Connection[Any], with_values: bool
) -> None:
    """At least 95% found, at most 5% of the others marked; also by names alone."""
    for connection, database in (
        (courier, load_pack(SHIPPED).database("courier")),
        (chinook, load_pack(CHINOOK).database("chinook")),
    ):
        live = read_schema(connection)
        counts = counts_of(connection, live) if with_values else {}
        found, wrong = shares(live, guess(live, counts), personal(database))
        assert found >= 0.95, database.name
        assert wrong <= 0.05, database.name


@pytest.mark.parametrize("name", sorted(path.stem for path in UNSEEN.glob("*.sql")))
def test_drafts_of_other_schemas_need_little_correcting(
    postgres: EmbeddedPostgres, name: str
) -> None:
    """Each file says what is personal in it; docs/data-map.md has the figures at first sight."""
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
        found, wrong = shares(live, guess(live, counts_of(connection, live)), truth)
    assert found >= 0.9
    assert wrong <= 0.05


def guessed(tables: Mapping[str, str], **kinds: str) -> dict[str, str]:
    """Guesses by names alone: ``table -> columns``, text unless ``kinds`` says otherwise."""
    live = LiveSchema({
        ("public", name): LiveTable(
            "public", name, "table",
            {one: LiveColumn(one, kinds.get(one, "text"), kinds.get(one, "text"))
             for one in columns.split()},
        )
        for name, columns in tables.items()
    })  # fmt: skip
    return {f"{one.table}.{one.column}": one.category for one in guess(live, {})}


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
def test_names_are_read_in_many_languages(column: str, category: str) -> None:
    """Pinyin, Chinese, English in every spelling, German."""
    assert guessed({"customer": f"id {column}"})[f"customer.{column}"] == category


def test_the_table_decides_whose_name_it_is() -> None:
    """A customer has a name; a track, a department and a company have one that is nobody's."""
    found = guessed({
        "customer": "id name", "employees": "id name", "track": "id name composer", "genre": "name",
        "department": "id name phone email address", "company": "name city phone",
        "artist": "id name", "product": "id name description", "customer_type": "code name",
        "file_template": "name",
    })  # fmt: skip
    assert {one for one in found if one.endswith(".name")} == {"customer.name", "employees.name"}
    assert {one.split(".")[0] for one in found} == {"customer", "employees"}


def test_shops_and_suppliers_keep_their_phones(postgres: EmbeddedPostgres) -> None:
    """Also where the values are mobile numbers; a contact person and an ID are somebody's."""
    script = """CREATE TABLE supplier (id int PRIMARY KEY, company_name text, contact_name text,
        phone text, address text, city text, owner_id_number text);
    INSERT INTO supplier SELECT n, '某某公司', '王小明', '1380000' || lpad(n::text, 4, '0'),
        '中关村大街' || n || '号', '北京', '11010519491231002X' FROM generate_series(1, 40) n;"""
    with scratch(postgres, script) as connection:
        live = read_schema(connection)
        found = {one.column for one in guess(live, counts_of(connection, live))}
    assert found == {"contact_name", "owner_id_number"}


def test_what_belongs_to_a_persons_row_is_theirs() -> None:
    """The lines of an invoice, the state of an address; the state of an order is no place."""
    found = guessed({
        "orders": "id customer_id state email", "address": "id customer_id city state",
        "order_items": "id quantity", "product": "id state city",
    }, quantity="int4")  # fmt: skip
    assert "address.state" in found
    assert "orders.state" not in found
    assert not any(one.startswith("product.") for one in found)


def test_words_about_a_contact_are_no_contact() -> None:
    """phone_type and email_verified hold neither phone nor address."""
    found = guessed({"subscription_event": "person_id phone_type email_verified address_count"})
    assert set(found) == {"subscription_event.person_id"}


def test_keys_without_a_foreign_key_lead_to_people_by_their_name() -> None:
    """patientId, user_id, 患者编号, created_by; not product_id."""
    found = guessed({"events": "id patientId user_id 患者编号 created_by product_id device_count"})
    assert set(found) == {
        "events.patientId", "events.user_id", "events.患者编号", "events.created_by"
    }  # fmt: skip


def test_values_speak_where_names_do_not(postgres: EmbeddedPostgres) -> None:
    """Columns called f1 to f6, known by their values; numbers and codes stay what they are."""
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
        found = {one.column: one for one in guess(live, counts_of(connection, live))}
    assert {column: one.category for column, one in found.items()} == {
        "f1": "user.government_id.national_identification_number",
        "f2": "user.contact.email",
        "f3": "user.name",
        "f4": "user.contact.phone_number",
        "f5": "user.name",
        "f6": "user.financial.credit_card",
    }
    assert {one.confidence for one in found.values()} == {"medium"}
    assert not any(value in str(found) for value in ("James", "王小明", "4111", "110105"))


def test_a_name_that_no_value_bears_out_is_a_low_guess(postgres: EmbeddedPostgres) -> None:
    """It stays marked, and the reason says why it is doubted."""
    script = """CREATE TABLE customer (id int PRIMARY KEY, email text, phone text);
    INSERT INTO customer SELECT n, 'yes', '1380000' || lpad(n::text, 4, '0')
    FROM generate_series(1, 50) n;"""
    with scratch(postgres, script) as connection:
        live = read_schema(connection)
        found = {one.column: one for one in guess(live, counts_of(connection, live))}
    assert (found["email"].confidence, found["phone"].confidence) == ("low", "high")
    assert found["email"].reason == "name only: no value looks like it"
    assert found["phone"].reason == "name, and 100% of the values"
