"""Guesses by values, types and relations that outweigh names."""

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
    """Return the guessed categories by ``table.column``."""
    with scratch(postgres, script) as connection:
        live = read_schema(connection)
        guesses = guess(live, counts_of(connection, live))
    return {f"{marked.table}.{marked.column}": marked.category for marked in guesses}


@pytest.mark.parametrize(
    ("names", "orders", "is_customer"),
    [(PEOPLE, "", True), (FIRMS, "", False), ("NULL", "", False), ("NULL", "REFERENCES", True)],
)
def test_table_of_partners_holds_customers_by_values_or_relations(
    postgres: EmbeddedPostgres, names: str, orders: str, is_customer: bool
) -> None:
    """Names of people, or orders that refer to it; with names of companies it holds companies."""
    reference = f"{orders} res_partner" if orders else ""
    script = f"""CREATE TABLE res_partner (id int PRIMARY KEY, name text, street text);
    CREATE TABLE sale_order (id int PRIMARY KEY, partner_id int {reference}, amount numeric);
    INSERT INTO res_partner SELECT n, {names} FROM generate_series(1, 40) n;"""
    guessed = categories(postgres, script)
    assert (guessed.get("res_partner.id") == "user.unique_id") is is_customer
    assert ("res_partner.name" in guessed) is is_customer
    assert ("res_partner.street" in guessed) is is_customer


def test_values_of_bank_accounts_and_addresses_are_known(postgres: EmbeddedPostgres) -> None:
    """By the check digits of an IBAN, not by its form; by IPv4 and IPv6 addresses."""
    script = f"""CREATE TABLE x (a text, b text, c text, d text);
    INSERT INTO x SELECT '{IBAN}', '{RIGHT_FORM}', '198.51.100.' || n, '2001:db8::' || n
    FROM generate_series(1, 40) n;"""
    assert categories(postgres, script) == {
        "x.a": "user.financial.bank_account",
        "x.c": "user.device.ip_address",
        "x.d": "user.device.ip_address",
    }


def test_items_of_arrays_are_values_too(postgres: EmbeddedPostgres) -> None:
    """Of each array the first item is read, also where a domain is the array."""
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


def test_types_of_networks_are_addresses_of_people_but_not_of_machines(
    postgres: EmbeddedPostgres,
) -> None:
    """The name of the column does not matter."""
    script = """CREATE TABLE visit_log (at timestamptz, origin inet, block cidr, gateway inet);
    CREATE TABLE server (id int, address inet);"""
    assert categories(postgres, script) == {
        "visit_log.origin": "user.device.ip_address",
        "visit_log.block": "user.device.ip_address",
    }


@pytest.mark.parametrize("kind", ["tsrange", "tstzrange", "daterange", "datemultirange"])
def test_periods_of_a_persons_records_are_personal(postgres: EmbeddedPostgres, kind: str) -> None:
    """Their dates are personal too; periods of a price are not."""
    script = f"""CREATE TABLE customer (id int PRIMARY KEY, name text);
    CREATE TABLE rental (id int PRIMARY KEY, customer_id int REFERENCES customer, period {kind});
    CREATE TABLE price (id int PRIMARY KEY, period {kind});"""
    guessed = categories(postgres, script)
    assert guessed["rental.period"] == "user.behavior.purchase_history"
    assert "price.period" not in guessed


def test_clocks_of_rows_are_not_personal(postgres: EmbeddedPostgres) -> None:
    """A trigger sets these clocks; the opening date of an account is about its person."""
    script = """CREATE TABLE customer (id int PRIMARY KEY, name text, created_at timestamptz,
        last_update timestamptz, write_date timestamp, last_login timestamptz);"""
    guessed = categories(postgres, script)
    assert "customer.created_at" in guessed
    assert "customer.last_login" in guessed
    assert not {"customer.last_update", "customer.write_date"} & guessed.keys()


def test_names_with_blanks_and_tables_without_keys_are_read(postgres: EmbeddedPostgres) -> None:
    """The id of a person's record without a primary key identifies the person, too."""
    script = """CREATE TABLE "Kunden Daten" ("ID" int, "Vorname" text, "IBAN" text);
    CREATE TABLE "Artikel Daten" ("ID" int, "Bezeichnung" text);"""
    assert categories(postgres, script) == {
        "Kunden Daten.ID": "user.unique_id",
        "Kunden Daten.Vorname": "user.name.first",
        "Kunden Daten.IBAN": "user.financial.bank_account",
    }


def test_records_about_a_customer_are_no_information_about_work(
    postgres: EmbeddedPostgres,
) -> None:
    """A customer's review is not about work, an employee's appraisal is; a staff id is of staff."""
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
