"""Addresses of affected people: looked up when letters go, usable or counted as not, never kept."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from include.incident.telling.addresses import AddressBook, Reach
from include.local.postgres import EmbeddedPostgres
from include.services.errors import ServiceError
from tests.incident.counting.shop import RULE
from tests.incident.counting.shop_rig import RULES, Rig, new_rig

NUMBERS = iter(range(1, 1000))
SHARED = RULES.letter.shared_by


@pytest.fixture(scope="module")
def built(postgres: EmbeddedPostgres, state: Engine) -> Iterator[Rig]:
    """The shop."""
    with new_rig(postgres, state) as made:
        yield made


@pytest.fixture
def rig(built: Rig) -> Rig:
    """The shop without people."""
    built.owner.execute("TRUNCATE person, doc, tag, memo, opened, seen, given")
    return built


def people(rig: Rig, *mails: str | None) -> None:
    """Enter people with these addresses, by number from 1."""
    with rig.owner.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO person (id, mail) VALUES (%s, %s)", list(enumerate(mails, 1))
        )


def reach(rig: Rig) -> Reach:
    """How many of all people can be told."""
    number = rig.incident(f"INC-2026-{next(NUMBERS):04d}")
    rig.freeze(number)
    with rig.state.connect() as conn:
        return AddressBook(rig.context()).reach(conn, number)


def keys(*numbers: int) -> list[str]:
    return [f"INC-2026-0001/shop/{one}" for one in numbers]


def test_each_key_gets_the_address_that_the_person_has_now(rig: Rig) -> None:
    """Not the one of yesterday; who has none is not there."""
    people(rig, "ann@example.com", None, "", "bob@example.com")
    book = AddressBook(rig.context())
    wanted = keys(1, 2, 3, 4, 99)
    assert book.look_up(wanted) == {wanted[0]: "ann@example.com", wanted[3]: "bob@example.com"}
    rig.owner.execute("UPDATE person SET mail = 'new@example.com' WHERE id = 1")
    assert book.look_up(keys(1)) == {wanted[0]: "new@example.com"}


def test_two_incidents_may_tell_the_same_person(rig: Rig) -> None:
    """Each by its own key."""
    people(rig, "ann@example.com")
    wanted = ["INC-2026-0001/shop/1", "INC-2026-0002/shop/1"]
    assert AddressBook(rig.context()).look_up(wanted) == dict.fromkeys(wanted, "ann@example.com")


def test_the_dry_run_counts_who_can_be_told(rig: Rig) -> None:
    """Own address, none, one that is none, one that too many have."""
    many = ["branch@example.com"] * (SHARED - 1) + ["Branch@Example.com"]
    people(rig, "ann@example.com", None, "", " ", "no address", "a@b\nBcc: c@d.example", *many)
    found = reach(rig)
    assert found == Reach(usable=1, without=3, malformed=2, shared=SHARED)
    assert found.unusable == 5 + SHARED


def test_a_few_may_share_an_address(rig: Rig) -> None:
    """A family does."""
    people(rig, *["family@example.com"] * (SHARED - 1))
    assert reach(rig) == Reach(usable=SHARED - 1)


def test_a_shared_or_malformed_address_is_not_used(rig: Rig) -> None:
    """It is nobody's own; the letter would tell one person of another."""
    people(rig, *["branch@example.com"] * SHARED, "no address", "ann@example.com")
    found = AddressBook(rig.context()).look_up(keys(*range(1, SHARED + 3)))
    assert list(found.values()) == ["ann@example.com"]


def test_the_policys_domains_bind_no_customer(rig: Rig) -> None:
    """They say where lists of people at work may lead."""
    people(rig, "ann@elsewhere.example")
    notices = rig.context().notices
    assert not notices.domains
    strict = rig.context(notices=notices.model_copy(update={"domains": ("courier.example",)}))
    assert AddressBook(strict).look_up(keys(1)) == {keys(1)[0]: "ann@elsewhere.example"}


def test_where_people_have_no_addresses_nobody_is_reached(rig: Rig) -> None:
    """They are told by other means."""
    people(rig, "ann@example.com")
    number = rig.incident(f"INC-2026-{next(NUMBERS):04d}")
    rig.freeze(number)
    silent = RULE.model_copy(update={"subject": RULE.subject.model_copy(update={"mail": None})})
    book = AddressBook(rig.context(silent))
    with rig.state.connect() as conn:
        assert book.reach(conn, number) == Reach(without=1)
    assert book.look_up(keys(1)) == {}


def test_a_database_that_is_not_there_lets_letters_wait(rig: Rig) -> None:
    """Nobody without an answer is taken for somebody without an address."""
    gone = AddressBook(rig.context(address=rig.address.with_database("gone")))
    with pytest.raises(ServiceError, match="Addresses cannot be looked up in shop"):
        gone.look_up(keys(1))


@pytest.mark.parametrize("key", ["x", "", "1 OR 1=1", "'", "99999999999999999999", "1/2"])
def test_a_key_that_is_none_finds_nobody(rig: Rig, key: str) -> None:
    """What stands in the outbox is not trusted either."""
    people(rig, "ann@example.com")
    assert (
        AddressBook(rig.context()).look_up([f"INC-2026-0001/shop/{key}", "odd", "a/moon/1"]) == {}
    )


def test_addresses_are_kept_nowhere(rig: Rig) -> None:
    """Neither in the state database nor in what a book says of itself."""
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


def test_addresses_are_found_by_the_index_of_the_key(rig: Rig) -> None:
    """A hundred thousand letters must not look through all customers for each batch."""
    rig.owner.execute(
        "INSERT INTO person (id, mail) SELECT n, 'p' || n || '@example.com'"
        " FROM generate_series(1, 100_000) AS n"
    )
    rig.owner.execute("ANALYZE person")
    book = AddressBook(rig.context())
    book.look_up(keys(1))  # which of them many share is looked up once
    before = scans(rig)
    for start in range(1, 1000, 200):
        assert len(book.look_up(keys(*range(start, start + 50)))) == 50
    after = scans(rig)
    assert after[0] == before[0]
    assert after[1] > before[1]


def scans(rig: Rig) -> tuple[int, int]:
    """How often people were looked through, and found by an index, by sessions that are over.

    What the owner's own session did is counted first: else it comes within a second, at any time.
    """
    rig.owner.execute("SELECT pg_stat_force_next_flush()")
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    while rig.owner.execute(others).fetchone() != (1,):
        rig.owner.execute("SELECT pg_stat_clear_snapshot(), pg_sleep(0.01)")
    query = "SELECT seq_scan, idx_scan FROM pg_stat_user_tables WHERE relname = 'person'"
    row = rig.owner.execute(query).fetchone()
    assert row is not None
    return row
