"""Bad days of counting: what cannot be counted is unknown with its reason, and never zero."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from include.incident.counting import reading
from include.incident.counting.affected import affected
from include.incident.counting.database import count, count_all
from include.incident.counting.live import look
from include.incident.rule_checks import INCIDENT
from include.incident.rules import AccessLog, Records, ScopeRule
from include.incident.scope import Scope
from include.incident.scope_words import scope_lines
from include.incident.selection import Selection, checked
from include.local.postgres import EmbeddedPostgres
from include.policy import SHIPPED
from include.policy.datamap import LazyMapping, MappedCollection, MappedDatabase
from include.registry import load_pack
from include.reports.i18n import Translator
from include.services.database import DatabaseAddress
from include.services.errors import UsageError
from tests.incident.counting.shop import MOMENT, RULE, SCHEMA, SENSITIVE, SHOP, ZONE
from tests.support.databases import fresh

_SHIPPED = load_pack(SHIPPED).section(INCIDENT)
assert _SHIPPED is not None
RULES = _SHIPPED.model_copy(update={"scope": (RULE,), "sensitive": SENSITIVE})
ROWS = """
INSERT INTO person VALUES (1, 'a@example.com', '2015-01-01', 1, 'x', NULL, '2026-01-01 00:00+08'),
    (2, NULL, '1980-01-01', 2, NULL, NULL, '2026-01-02 00:00+08');
INSERT INTO doc VALUES (1, 'A-1', 1, 2, '2026-01-01 10:00', 'North', 'w', NULL);
INSERT INTO opened VALUES (1, 1, 1, '2026-01-01 10:00+08');
"""


@dataclass
class Shop:
    """The shop, with two people in it."""

    conninfo: str
    owner: psycopg.Connection[Any]

    def address(self, **more: str) -> DatabaseAddress:
        """Where it is, perhaps as somebody else."""
        return DatabaseAddress.from_conninfo(psycopg.conninfo.make_conninfo(self.conninfo, **more))

    def count(
        self,
        said: Selection | None = None,
        *,
        rule: ScopeRule = RULE,
        mapped: MappedDatabase = SHOP,
        address: DatabaseAddress | None = None,
        zone: ZoneInfo = ZONE,
    ) -> Scope:
        """What is affected; all of it where nothing is said."""
        rules = RULES.model_copy(update={"scope": (rule,)})
        return count_all(
            checked(said or Selection(), rules), rules, {"shop": mapped},
            {"shop": address or self.address()}, version=1, moment=MOMENT, zone=zone,
        )  # fmt: skip


@pytest.fixture(scope="module")
def built(postgres: EmbeddedPostgres) -> Iterator[Shop]:
    """The shop's database."""
    with fresh(postgres) as name:
        conninfo = postgres.conninfo(name)
        with psycopg.connect(conninfo, autocommit=True) as owner:
            owner.execute(SCHEMA)
            owner.execute(ROWS)
            yield Shop(conninfo, owner)


@pytest.fixture
def shop(built: Shop) -> Iterator[Shop]:
    """The shop as it was built; what a test changes is made anew."""
    yield built
    names = [
        name for (name,) in built.owner.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
            " AND relkind IN ('r', 'v')"
        )
    ]  # fmt: skip
    for kind in ("VIEW", "TABLE"):
        for name in names:
            if kind == "VIEW" and not name.endswith("_view"):
                continue
            drop = SQL("DROP {} IF EXISTS {} CASCADE").format(SQL(kind), Identifier(name))
            built.owner.execute(drop)
    built.owner.execute(SCHEMA)
    built.owner.execute(ROWS)


def why(found: Scope) -> str:
    """The reason of the one database in which nobody could count."""
    assert not found.counted
    assert not found.complete
    assert not found.nobody
    (unknown,) = found.unknown
    return Translator("en", "UTC").text(unknown.reason)


def test_a_database_that_is_not_there_is_unknown(shop: Shop) -> None:
    """It may be soon; what others hold is counted all the same."""
    lost = shop.count(address=shop.address(host="/nowhere"))
    assert "could not be reached" in why(lost)
    assert lost.unknown[0].passing
    assert lost.affected() == {"shop": None}
    lines = [Translator("en", "UTC").text(one) for one in scope_lines(lost)]
    assert lines[0].startswith("NOT COUNTED: shop.")


def test_one_of_two_databases_is_counted(shop: Shop) -> None:
    """And the other one is said."""
    other = RULE.model_copy(update={"database": "other"})
    rules = RULES.model_copy(update={"scope": (RULE, other)})
    found = count_all(
        checked(Selection(), rules), rules, {"shop": SHOP, "other": SHOP},
        {"shop": shop.address(), "other": shop.address(host="/nowhere")},
        version=1, moment=MOMENT, zone=ZONE,
    )  # fmt: skip
    assert found.affected() == {"shop": 2, "other": None}
    assert (found.subjects, found.complete) == (2, False)


def test_count_goes_on_when_the_data_map_of_another_database_is_faulty(shop: Shop) -> None:
    other = RULE.model_copy(update={"database": "other"})
    rules = RULES.model_copy(update={"scope": (other, RULE)})

    def mapped(name: str) -> MappedDatabase:
        if name == "other":
            raise UsageError("other.yaml, line 3: no such category")
        return SHOP

    found = count_all(
        checked(Selection(), rules), rules, LazyMapping(["other", "shop"], mapped),
        LazyMapping(["other", "shop"], lambda _name: shop.address()),
        version=1, moment=MOMENT, zone=ZONE,
    )  # fmt: skip
    assert found.affected() == {"shop": 2, "other": None}
    [unknown] = found.unknown
    assert Translator("en", "UTC").text(unknown.reason) == "other.yaml, line 3: no such category"


def test_whoever_stands_in_two_databases_counts_twice(shop: Shop) -> None:
    """Nobody knows that they are the same."""
    other = RULE.model_copy(update={"database": "other"})
    rules = RULES.model_copy(update={"scope": (RULE, other)})
    place = shop.address()
    found = count_all(
        checked(Selection(), rules), rules, {"shop": SHOP, "other": SHOP},
        {"shop": place, "other": place}, version=1, moment=MOMENT, zone=ZONE,
    )  # fmt: skip
    assert (found.subjects, found.records, found.minors) == (4, 6, 2)
    assert found.categories["user.contact.email"] == 2


def test_a_refused_connection_is_no_passing_trouble(shop: Shop) -> None:
    """Nobody repeats a wrong password; it is not shown either."""
    wrong = shop.count(address=shop.address(password="hunter2"))
    assert "refused the connection" in why(wrong)
    assert "hunter2" not in why(wrong)
    assert not wrong.unknown[0].passing


def test_a_missing_right_names_the_table(shop: Shop) -> None:
    """So that it can be granted."""
    shop.owner.execute("CREATE ROLE half LOGIN PASSWORD 'x'")
    try:
        shop.owner.execute("GRANT SELECT ON person, unit, tag, memo TO half")
        found = shop.count(address=shop.address(user="half", password="x"))
        assert "permission denied for table doc" in why(found)
        only = Selection(collections=("shop.person",))
        assert shop.count(only, address=shop.address(user="half", password="x")).unknown
    finally:
        shop.owner.execute("DROP OWNED BY half")
        shop.owner.execute("DROP ROLE half")


def test_a_missing_column_or_table_is_named(shop: Shop) -> None:
    """The database is not as the pack says."""
    shop.owner.execute("ALTER TABLE doc DROP COLUMN words")
    assert "column r.words does not exist" in why(shop.count())
    shop.owner.execute("DROP TABLE doc")
    assert 'relation "public.doc" does not exist' in why(shop.count())


def test_sql_of_the_pack_that_is_none_is_said(shop: Shop) -> None:
    """With what PostgreSQL says, which has no value of a row."""
    broken = Records(collection="doc", subjects=("r.writer +",))
    found = shop.count(rule=RULE.model_copy(update={"records": (broken,)}))
    assert "syntax error" in why(found)


def test_a_value_of_another_form_is_not_repeated(shop: Shop) -> None:
    """It may be a customer's."""
    odd = Records(collection="doc", subjects=("r.writer",), at="r.words::timestamptz")
    shop.owner.execute("UPDATE doc SET words = 'Wang Wei'")
    found = shop.count(rule=RULE.model_copy(update={"records": (odd,)}))
    assert "another form" in why(found)
    assert "22007" in why(found)
    assert "Wang" not in found.model_dump_json()


def test_people_who_stand_there_twice_cannot_be_counted(shop: Shop) -> None:
    """A key that is not one of a person; nobody is counted twice or once by chance."""
    shop.owner.execute("ALTER TABLE person DROP CONSTRAINT person_pkey CASCADE")
    assert shop.count().subjects == 2
    shop.owner.execute("INSERT INTO person (id) VALUES (1)")
    assert "names a key of people" in why(shop.count())


def test_rows_that_a_policy_hides_are_no_zero(shop: Shop) -> None:
    """Row-level security: it is an error instead."""
    shop.owner.execute("CREATE ROLE hidden LOGIN PASSWORD 'x'")
    try:
        shop.owner.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO hidden")
        shop.owner.execute("ALTER TABLE person ENABLE ROW LEVEL SECURITY")
        found = shop.count(address=shop.address(user="hidden", password="x"))
        assert "row-level security" in why(found)
    finally:
        shop.owner.execute("DROP OWNED BY hidden")
        shop.owner.execute("DROP ROLE hidden")


def test_a_log_that_is_not_there_cannot_say_who_is_affected(shop: Shop) -> None:
    """Neither everybody nor nobody."""
    logless = RULE.model_copy(update={"access": None, "shares": None})
    assert "no log of accesses" in why(shop.count(Selection(accounts=("ann",)), rule=logless))
    assert "no log of sharing" in why(shop.count(Selection(partner="1"), rule=logless))


def test_a_query_that_takes_too_long_is_given_up(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be quicker the next time."""
    monkeypatch.setitem(reading._SETTINGS, "statement_timeout", "200ms")
    slow = Records(
        collection="doc", subjects=("r.writer",), at="now() + pg_sleep(5)::text::interval"
    )
    found = shop.count(rule=RULE.model_copy(update={"records": (slow,)}))
    assert "took longer" in why(found)
    assert found.unknown[0].passing


def test_a_table_that_is_being_changed_is_waited_for_but_not_for_long(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever changes it is not kept waiting in turn."""
    monkeypatch.setitem(reading._SETTINGS, "lock_timeout", "200ms")
    with shop.owner.transaction():
        shop.owner.execute("LOCK TABLE doc")
        found = shop.count()
    assert "locked" in why(found)
    assert found.unknown[0].passing


def test_counting_is_of_one_moment_and_changes_nothing(shop: Shop) -> None:
    """What is entered meanwhile counts the next time."""
    with reading.reading(shop.address(), SHOP, ZONE.key) as connection:
        there = look(connection, SHOP, RULE)
        shop.owner.execute("INSERT INTO person (id) VALUES (3)")
        chosen = checked(Selection(), RULES)
        assert count(affected(there, chosen, MOMENT), SENSITIVE).subjects == 2
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("INSERT INTO person (id) VALUES (4)")
    assert shop.count().subjects == 3
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    while shop.owner.execute(others).fetchone() != (1,):  # its session ends
        shop.owner.execute("SELECT pg_stat_clear_snapshot(), pg_sleep(0.01)")


def test_nobody_found_is_a_warning(shop: Shop) -> None:
    """A typing error finds nobody; so does an account that opened nothing."""
    found = shop.count(Selection(accounts=("anne",)))
    assert (found.nobody, found.subjects) == (True, 0)
    assert found.counted[0].accounts == {"anne": 0}
    lines = [Translator("en", "UTC").text(one) for one in scope_lines(found)]
    assert any("Nobody was found" in one for one in lines)
    assert any("anne. Are they spelt right?" in one for one in lines)


def test_an_empty_database_has_nobody(shop: Shop) -> None:
    """Which is counted, and warned of."""
    shop.owner.execute("TRUNCATE person, doc, tag, memo, opened, seen, given")
    found = shop.count()
    assert found.nobody
    assert found.counted[0].records == {"person": 0, "doc": 0, "tag": 0, "memo": 0}
    assert (found.minors, found.first) == (0, None)


@pytest.mark.parametrize(
    "text",
    [
        "'; DROP TABLE person; --",
        "%s %(since)s %%",
        "\\",
        '"',
        "$1",
        "x" * 100_000,
        "北京",
        "1 OR 1=1",
    ],
)
def test_what_people_type_is_never_sql(shop: Shop, text: str) -> None:
    """Keys, departments, accounts and the partner; all of it is looked for and not found."""
    keys = shop.count(Selection(keys=(text,)))
    assert (keys.counted[0].not_found, keys.subjects) == (1, 0)
    papers = shop.count(Selection(keys_of="shop.doc", keys=(text, "1")))
    assert (papers.counted[0].not_found_at, papers.subjects) == ((1,), 2)
    for said in ({"departments": (text,)}, {"accounts": (text,)}, {"partner": text}):
        assert shop.count(Selection.model_validate(said)).subjects == 0
    assert shop.count().subjects == 2


def test_names_of_tables_are_taken_as_they_are(shop: Shop) -> None:
    """Blanks, quotes and percent signs too."""
    name = 'odd %s "table"'
    shop.owner.execute(
        SQL("CREATE TABLE {} ({} integer, who integer)").format(Identifier(name), Identifier("k%"))
    )
    shop.owner.execute(SQL("INSERT INTO {} VALUES (1, 1), (2, NULL)").format(Identifier(name)))
    field = SHOP.collections["person"].fields["id"]
    odd = MappedCollection(
        name="odd", schema_name="public", table=name,
        fields={"k%": field.model_copy(update={"name": "k%"}), "who": field},
    )  # fmt: skip
    mapped = SHOP.model_copy(update={"collections": {**SHOP.collections, "odd": odd}})
    records = Records(collection="odd", subjects=("r.who",), named=('r."k%"',))
    rule = RULE.model_copy(update={"records": (*RULE.records, records)})
    found = shop.count(rule=rule, mapped=mapped)
    assert found.counted[0].records["odd"] == 2
    listed = shop.count(Selection(keys_of="shop.odd", keys=("1", "5")), rule=rule, mapped=mapped)
    assert (listed.subjects, listed.counted[0].not_found_at) == (1, (2,))


def test_moments_that_are_none_do_not_hide_the_others(shop: Shop) -> None:
    """Infinity, before Christ, after the year 9999: PostgreSQL has them, calendars do not."""
    shop.owner.execute(
        "INSERT INTO person (id, joined) VALUES (3, 'infinity'), (4, '0044-03-15 BC'),"
        " (5, '20000-01-01'), (6, NULL)"
    )
    shop.owner.execute("INSERT INTO opened VALUES (2, 1, 3, '-infinity'), (3, 1, 4, 'infinity')")
    (found,) = shop.count().counted
    assert found.first == datetime(2025, 12, 31, 16, tzinfo=UTC)
    assert found.last == datetime(2026, 1, 1, 16, tzinfo=UTC)
    assert (found.subjects, found.undated) == (6, 1)
    (log,) = shop.count(Selection(accounts=("ann",))).counted
    assert (log.log_rows, log.subjects) == (3, 3)
    assert log.log_first == log.log_last == datetime(2026, 1, 1, 2, tzinfo=UTC)


def test_a_time_without_zone_is_the_packs(shop: Shop) -> None:
    """Whatever the database's own timezone is."""
    since = datetime(2026, 1, 1, 2, tzinfo=UTC)  # ten o'clock in Shanghai, as the document says
    for zone, papers in (("Asia/Shanghai", 1), ("Asia/Tokyo", 0)):
        said = Selection(collections=("shop.doc",), since=since)
        shop.owner.execute("ALTER ROLE CURRENT_USER SET TimeZone = 'America/New_York'")
        try:
            found = shop.count(said, zone=ZoneInfo(zone))
        finally:
            shop.owner.execute("ALTER ROLE CURRENT_USER RESET TimeZone")
        assert found.records == papers


def test_age_counts_as_of_awareness_in_the_packs_timezone(shop: Shop) -> None:
    """A child is 14 from the birthday on, where the company is."""
    shop.owner.execute("UPDATE person SET born = '2012-03-01' WHERE id = 1")
    assert shop.count().minors == 0  # on the morning of the first of March
    shop.owner.execute("UPDATE person SET born = '2012-03-02' WHERE id = 1")
    assert shop.count().minors == 1
    ageless = RULE.subject.model_copy(update={"minor": None})
    unknown = shop.count(rule=RULE.model_copy(update={"subject": ageless}))
    assert (unknown.minors, unknown.age_unknown) == (None, 2)


def test_keys_of_any_type_are_found(shop: Shop) -> None:
    """Words, UUIDs and moments beside numbers; a number may have zeros in front."""
    key = "6f1d2f3e-0000-4000-8000-00000000000a"
    for kind, there, absent in (
        ("uuid", key, "6f1d"), ("text", "a/b", "a"), ("date", "2026-01-01", "1 May"),
        ("timestamptz", "2026-01-01 00:00:00+00", "2026-01-01 00:00:00"), ("numeric", "1.0", "1"),
    ):  # fmt: skip
        shop.owner.execute("DROP TABLE IF EXISTS member CASCADE")
        shop.owner.execute(f"CREATE TABLE member (id {kind} PRIMARY KEY)".encode())
        shop.owner.execute("INSERT INTO member VALUES (%s)", [there])
        fields = {"id": SHOP.collections["person"].fields["id"]}
        member = MappedCollection(
            name="member", schema_name="public", table="member", fields=fields
        )
        mapped = SHOP.model_copy(update={"collections": {"member": member}})
        rule = ScopeRule(
            database="shop",
            subject=RULE.subject.model_copy(
                update={"collection": "member", "minor": None, "department": None}
            ),
            records=(Records(collection="member", subjects=("r.id",)),),
        )
        said = Selection(keys=(absent, f"shop/{there}"))
        (found,) = shop.count(said, rule=rule, mapped=mapped).counted
        assert (found.subjects, found.records, found.not_found_at) == (1, {"member": 1}, (1,)), kind
    assert shop.count(Selection(keys=("0001", "99999999999999999999"))).subjects == 1


def test_an_account_may_be_an_expression(shop: Shop) -> None:
    """Where the log has the account itself."""
    assert RULE.access is not None
    access = RULE.access.model_copy(update={"account": "'c' || a.clerk"})
    assert isinstance(access, AccessLog)
    found = shop.count(Selection(accounts=("c1",)), rule=RULE.model_copy(update={"access": access}))
    assert (found.subjects, found.counted[0].accounts) == (1, {"c1": 1})
