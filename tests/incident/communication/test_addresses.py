"""Mail addresses of affected people are looked up when notices are sent, and never stored."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from include.incident.communication.addresses import AddressBook, Reach
from include.local.postgres import EmbeddedPostgres
from include.services.errors import ServiceError
from tests.incident.counting.shop_fixtures import RULES, ShopDatabase, new_shop_database
from tests.incident.counting.shop_oracle import RULE

NUMBERS = iter(range(1, 1000))
SHARED = RULES.letter.shared_by


@pytest.fixture(scope="module")
def built(postgres: EmbeddedPostgres, state: Engine) -> Iterator[ShopDatabase]:
    """Provide the database of the shop."""
    with new_shop_database(postgres, state) as shop:
        yield shop


@pytest.fixture
def rig(built: ShopDatabase) -> ShopDatabase:
    """Provide the database of the shop with an empty table of people."""
    built.owner.execute("TRUNCATE person, doc, tag, memo, opened, seen, given")
    return built


def people(rig: ShopDatabase, *mails: str | None) -> None:
    """Insert people with the given mail addresses and the keys 1, 2 and so on."""
    with rig.owner.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO person (id, mail) VALUES (%s, %s)", list(enumerate(mails, 1))
        )


def reach(rig: ShopDatabase) -> Reach:
    """Count the people of the shop with and without a usable mail address."""
    number = rig.incident(f"INC-2026-{next(NUMBERS):04d}")
    rig.freeze(number)
    with rig.state.connect() as conn:
        return AddressBook(rig.context()).reach(conn, number)


def keys(*numbers: int) -> list[str]:
    return [f"INC-2026-0001/shop/{number}" for number in numbers]


def test_look_up_returns_new_mail_address_after_address_of_person_changed(
    rig: ShopDatabase,
) -> None:
    people(rig, "ann@example.com", None, "", "bob@example.com")
    book = AddressBook(rig.context())
    notice_keys = keys(1, 2, 3, 4, 99)
    assert book.look_up(notice_keys) == {
        notice_keys[0]: "ann@example.com",
        notice_keys[3]: "bob@example.com",
    }
    rig.owner.execute("UPDATE person SET mail = 'new@example.com' WHERE id = 1")
    assert book.look_up(keys(1)) == {notice_keys[0]: "new@example.com"}


def test_look_up_returns_address_of_person_for_each_of_two_incidents(rig: ShopDatabase) -> None:
    people(rig, "ann@example.com")
    notice_keys = ["INC-2026-0001/shop/1", "INC-2026-0002/shop/1"]
    assert AddressBook(rig.context()).look_up(notice_keys) == dict.fromkeys(
        notice_keys, "ann@example.com"
    )


def test_reach_returns_numbers_of_usable_missing_malformed_and_shared_addresses(
    rig: ShopDatabase,
) -> None:
    many = ["branch@example.com"] * (SHARED - 1) + ["Branch@Example.com"]
    people(rig, "ann@example.com", None, "", " ", "no address", "a@b\nBcc: c@d.example", *many)
    counts = reach(rig)
    assert counts == Reach(usable=1, without=3, malformed=2, shared=SHARED)
    assert counts.unusable == 5 + SHARED


def test_address_shared_by_few_people_is_usable(rig: ShopDatabase) -> None:
    people(rig, *["family@example.com"] * (SHARED - 1))
    assert reach(rig) == Reach(usable=SHARED - 1)


def test_look_up_skips_shared_and_malformed_addresses(rig: ShopDatabase) -> None:
    people(rig, *["branch@example.com"] * SHARED, "no address", "ann@example.com")
    addresses = AddressBook(rig.context()).look_up(keys(*range(1, SHARED + 3)))
    assert list(addresses.values()) == ["ann@example.com"]


def test_look_up_returns_customer_address_outside_of_allowed_staff_domains(
    rig: ShopDatabase,
) -> None:
    people(rig, "ann@elsewhere.example")
    notices = rig.context().notices
    assert not notices.domains
    strict = rig.context(notices=notices.model_copy(update={"domains": ("courier.example",)}))
    assert AddressBook(strict).look_up(keys(1)) == {keys(1)[0]: "ann@elsewhere.example"}


def test_look_up_returns_no_address_if_no_mail_column_is_configured(rig: ShopDatabase) -> None:
    people(rig, "ann@example.com")
    number = rig.incident(f"INC-2026-{next(NUMBERS):04d}")
    rig.freeze(number)
    silent = RULE.model_copy(update={"subject": RULE.subject.model_copy(update={"mail": None})})
    book = AddressBook(rig.context(silent))
    with rig.state.connect() as conn:
        assert book.reach(conn, number) == Reach(without=1)
    assert book.look_up(keys(1)) == {}


def test_look_up_in_unreachable_database_raises_service_error(rig: ShopDatabase) -> None:
    book = AddressBook(rig.context(address=rig.address.with_database("gone")))
    with pytest.raises(ServiceError, match="Addresses cannot be looked up in shop"):
        book.look_up(keys(1))


@pytest.mark.parametrize("key", ["x", "", "1 OR 1=1", "'", "99999999999999999999", "1/2"])
def test_look_up_of_invalid_key_returns_no_address(rig: ShopDatabase, key: str) -> None:
    people(rig, "ann@example.com")
    assert (
        AddressBook(rig.context()).look_up([f"INC-2026-0001/shop/{key}", "odd", "a/moon/1"]) == {}
    )


def test_mail_addresses_are_not_stored_in_state_database(rig: ShopDatabase) -> None:
    people(rig, *["branch@example.com"] * SHARED, "ann@example.com")
    book = AddressBook(rig.context())
    number = rig.incident(f"INC-2026-{next(NUMBERS):04d}")
    rig.freeze(number)
    with rig.state.connect() as conn:
        book.reach(conn, number)
    book.look_up(keys(1, 6))
    assert "@example.com" not in repr(book)
    with rig.state.connect() as conn:
        tables = conn.scalars(
            text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        ).all()
        for table in tables:
            rows = conn.scalar(
                text(f'SELECT count(*) FROM "{table}" AS t WHERE t::text LIKE :mail'),
                {"mail": "%@example.com%"},
            )
            assert rows == 0, table


def test_address_look_up_uses_index_on_key_of_people(rig: ShopDatabase) -> None:
    rig.owner.execute(
        "INSERT INTO person (id, mail) SELECT n, 'p' || n || '@example.com'"
        " FROM generate_series(1, 100_000) AS n"
    )
    rig.owner.execute("ANALYZE person")
    book = AddressBook(rig.context())
    book.look_up(keys(1))  # determines shared addresses once
    before = scans(rig)
    for start in range(1, 1000, 200):
        assert len(book.look_up(keys(*range(start, start + 50)))) == 50
    after = scans(rig)
    assert after[0] == before[0]
    assert after[1] > before[1]


def scans(rig: ShopDatabase) -> tuple[int, int]:
    """Return how often ended sessions scanned the table `person` sequentially and by an index.

    The statistics of the owner's own session are flushed first, because PostgreSQL could otherwise
    add them later.
    """
    rig.owner.execute("SELECT pg_stat_force_next_flush()")
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    while rig.owner.execute(others).fetchone() != (1,):
        rig.owner.execute("SELECT pg_stat_clear_snapshot(), pg_sleep(0.01)")
    query = "SELECT seq_scan, idx_scan FROM pg_stat_user_tables WHERE relname = 'person'"
    row = rig.owner.execute(query).fetchone()
    assert row is not None
    return row
