"""Guesses by values, types and relations, which take precedence over names."""

from __future__ import annotations

import pytest

from include.local.postgres import EmbeddedPostgres
from include.schema.guess import guess
from include.schema.live import read_schema
from tests.schema.support import scratch
from tests.schema.test_guess import counts_of

PEOPLE = "(ARRAY['Mary Jones','James Smith','Anna Keller','Julia Nowak','Paul Meyer'])[n % 5 + 1]"
FIRMS = "(ARRAY['Blue Cargo Ltd','Northern Freight','ACME 24','Rapid Parcel','Zeta'])[n % 5 + 1]"
IBAN, RIGHT_FORM = "GB82WEST12345698765432", "GB83WEST12345698765432"


def categories(postgres: EmbeddedPostgres, script: str) -> dict[str, str]:
    """Create a database, and return the guessed categories by ``table.column``."""
    with scratch(postgres, script) as connection:
        live = read_schema(connection)
        guesses = guess(live, counts_of(connection, live))
    return {f"{marked.table}.{marked.column}": marked.category for marked in guesses}


@pytest.mark.parametrize(
    ("names", "orders", "is_customer"),
    [(PEOPLE, "", True), (FIRMS, "", False), ("NULL", "", False), ("NULL", "REFERENCES", True)],
)
def test_partner_table_counts_as_customers_if_it_has_names_of_people_or_orders_refer_to_it(
    postgres: EmbeddedPostgres, names: str, orders: str, is_customer: bool
) -> None:
    """Partners are customers if they have names of people, or if orders refer to the table."""
    reference = f"{orders} res_partner" if orders else ""
    script = f"""CREATE TABLE res_partner (id int PRIMARY KEY, name text, street text);
    CREATE TABLE sale_order (id int PRIMARY KEY, partner_id int {reference}, amount numeric);
    INSERT INTO res_partner SELECT n, {names} FROM generate_series(1, 40) n;"""
    guessed = categories(postgres, script)
    assert (guessed.get("res_partner.id") == "user.unique_id") is is_customer
    assert ("res_partner.name" in guessed) is is_customer
    assert ("res_partner.street" in guessed) is is_customer


def test_guess_recognises_ibans_and_ip_addresses_by_value(postgres: EmbeddedPostgres) -> None:
    """The check digits of an IBAN must be right. The right format alone is not sufficient."""
    script = f"""CREATE TABLE x (a text, b text, c text, d text);
    INSERT INTO x SELECT '{IBAN}', '{RIGHT_FORM}', '198.51.100.' || n, '2001:db8::' || n
    FROM generate_series(1, 40) n;"""
    assert categories(postgres, script) == {
        "x.a": "user.financial.bank_account",
        "x.c": "user.device.ip_address",
        "x.d": "user.device.ip_address",
    }


def test_guess_recognises_personal_array_column_by_first_item_of_arrays(
    postgres: EmbeddedPostgres,
) -> None:
    """The first item is also read if the array type is a domain."""
    script = """CREATE DOMAIN mails AS text[];
    CREATE TABLE x (a text[], b mails, c varchar(30)[], d text[], e int[], f text[]);
    INSERT INTO x SELECT ARRAY['a' || n || '@example.com'], ARRAY['b' || n || '@example.com', ''],
    ARRAY['139' || lpad(n::text, 8, '0')], ARRAY['red', 'blue'], ARRAY[n], '{}'
    FROM generate_series(1, 40) n;"""
    assert categories(postgres, script) == {
        "x.a": "user.contact.email",
        "x.b": "user.contact.email",
        "x.c": "user.contact.phone_number",
    }


def test_guess_marks_network_addresses_as_personal_except_addresses_of_machines(
    postgres: EmbeddedPostgres,
) -> None:
    script = """CREATE TABLE visit_log (at timestamptz, origin inet, block cidr, gateway inet);
    CREATE TABLE server (id int, address inet);"""
    assert categories(postgres, script) == {
        "visit_log.origin": "user.device.ip_address",
        "visit_log.block": "user.device.ip_address",
    }


@pytest.mark.parametrize("kind", ["tsrange", "tstzrange", "daterange", "datemultirange"])
def test_column_called_period_is_guessed_as_personal_in_rentals_but_not_in_prices(
    postgres: EmbeddedPostgres, kind: str
) -> None:
    """A period for which a price is valid is not personal."""
    script = f"""CREATE TABLE customer (id int PRIMARY KEY, name text);
    CREATE TABLE rental (id int PRIMARY KEY, customer_id int REFERENCES customer, period {kind});
    CREATE TABLE price (id int PRIMARY KEY, period {kind});"""
    guessed = categories(postgres, script)
    assert guessed["rental.period"] == "user.behavior.purchase_history"
    assert "price.period" not in guessed


def test_guess_does_not_mark_technical_timestamps_as_personal(postgres: EmbeddedPostgres) -> None:
    """Triggers set these timestamps. The date on which an account was opened is personal."""
    script = """CREATE TABLE customer (id int PRIMARY KEY, name text, created_at timestamptz,
        last_update timestamptz, write_date timestamp, last_login timestamptz);"""
    guessed = categories(postgres, script)
    assert "customer.created_at" in guessed
    assert "customer.last_login" in guessed
    assert not {"customer.last_update", "customer.write_date"} & guessed.keys()


def test_guess_recognises_personal_columns_of_table_with_space_in_name_and_no_primary_key(
    postgres: EmbeddedPostgres,
) -> None:
    """In a table without a primary key, the column id identifies the person."""
    script = """CREATE TABLE "Kunden Daten" ("ID" int, "Vorname" text, "IBAN" text);
    CREATE TABLE "Artikel Daten" ("ID" int, "Bezeichnung" text);"""
    assert categories(postgres, script) == {
        "Kunden Daten.ID": "user.unique_id",
        "Kunden Daten.Vorname": "user.name.first",
        "Kunden Daten.IBAN": "user.financial.bank_account",
    }


def test_review_by_customer_is_guessed_as_account_data_and_appraisal_of_staff_as_workplace_data(
    postgres: EmbeddedPostgres,
) -> None:
    """A review by a customer is account data. An appraisal of an employee is workplace data."""
    script = """CREATE TABLE customer (id int PRIMARY KEY, name text);
    CREATE TABLE staff (id int PRIMARY KEY, name text);
    CREATE TABLE review (id int PRIMARY KEY, customer_id int REFERENCES customer, stars int);
    CREATE TABLE appraisal (id int PRIMARY KEY, staff_id int REFERENCES staff, stars int);
    CREATE TABLE rental (id int, customer_id int REFERENCES customer,
        staff_id int REFERENCES staff);"""
    guessed = categories(postgres, script)
    assert guessed["review.stars"] == "user.account"
    assert guessed["appraisal.stars"] == "user.workplace"
    with scratch(postgres, script) as connection:
        subjects = {
            (marked.table, marked.column): marked.subject
            for marked in guess(read_schema(connection), {})
        }
    assert subjects["rental", "staff_id"] == "employee"
    assert subjects["rental", "customer_id"] == ""
