"""Tests that the count of a faulty database is unknown with a reason, and never zero."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from include.incident.counting import snapshot
from include.incident.counting.affected_records import resolve_selection
from include.incident.counting.database import count_all, count_database
from include.incident.counting.live_database import inspect_database
from include.incident.rule_checks import INCIDENT
from include.incident.rules import AccessLog, Records, ScopeRule
from include.incident.scope import Scope
from include.incident.scope_texts import scope_lines
from include.incident.selection import Selection, check_selection
from include.local.postgres import EmbeddedPostgres
from include.policy import SHIPPED
from include.policy.datamap import LazyMapping, MappedCollection, MappedDatabase
from include.registry import load_pack
from include.reports.i18n import Translator
from include.services.database import DatabaseAddress
from include.services.errors import UsageError
from tests.incident.counting.shop_oracle import MOMENT, RULE, SCHEMA, SENSITIVE, SHOP, ZONE
from tests.support.databases import temporary_database

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
    """The database of the sample shop, with two people."""

    conninfo: str
    owner: psycopg.Connection[Any]

    def address(self, **more: str) -> DatabaseAddress:
        """Return the address of the shop's database, with additional connection parameters."""
        return DatabaseAddress.from_conninfo(psycopg.conninfo.make_conninfo(self.conninfo, **more))

    def count(
        self,
        selection: Selection | None = None,
        *,
        rule: ScopeRule = RULE,
        mapped: MappedDatabase = SHOP,
        address: DatabaseAddress | None = None,
        zone: ZoneInfo = ZONE,
    ) -> Scope:
        """Count the affected records. By default, all records of the shop are affected."""
        rules = RULES.model_copy(update={"scope": (rule,)})
        return count_all(
            check_selection(selection or Selection(), rules), rules, {"shop": mapped},
            {"shop": address or self.address()}, version=1, moment=MOMENT, zone=zone,
        )  # fmt: skip


@pytest.fixture(scope="module")
def built(postgres: EmbeddedPostgres) -> Iterator[Shop]:
    """Provide the database of the shop."""
    with temporary_database(postgres) as name:
        conninfo = postgres.conninfo(name)
        with psycopg.connect(conninfo, autocommit=True) as owner:
            owner.execute(SCHEMA)
            owner.execute(ROWS)
            yield Shop(conninfo, owner)


@pytest.fixture
def shop(built: Shop) -> Iterator[Shop]:
    """Provide the database of the shop, and revert changes by a test."""
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


def why(scope: Scope) -> str:
    """Return the reason why the database of the scope could not be counted."""
    assert not scope.counted
    assert not scope.is_complete
    assert not scope.is_empty
    (unknown,) = scope.unknown
    return Translator("en", "UTC").text(unknown.reason)


def test_count_of_unreachable_database_is_unknown(shop: Shop) -> None:
    lost = shop.count(address=shop.address(host="/nowhere"))
    assert "could not be reached" in why(lost)
    assert lost.unknown[0].passing
    assert lost.people_by_database() == {"shop": None}
    lines = [Translator("en", "UTC").text(line) for line in scope_lines(lost, {})]
    assert lines[0].startswith("NOT COUNTED: shop.")


def test_reachable_database_is_counted_although_another_is_unreachable(shop: Shop) -> None:
    other = RULE.model_copy(update={"database": "other"})
    rules = RULES.model_copy(update={"scope": (RULE, other)})
    scope = count_all(
        check_selection(Selection(), rules), rules, {"shop": SHOP, "other": SHOP},
        {"shop": shop.address(), "other": shop.address(host="/nowhere")},
        version=1, moment=MOMENT, zone=ZONE,
    )  # fmt: skip
    assert scope.people_by_database() == {"shop": 2, "other": None}
    assert (scope.subjects, scope.is_complete) == (2, False)


def test_database_is_counted_although_data_map_of_another_is_faulty(shop: Shop) -> None:
    other = RULE.model_copy(update={"database": "other"})
    rules = RULES.model_copy(update={"scope": (other, RULE)})

    def mapped(name: str) -> MappedDatabase:
        if name == "other":
            raise UsageError("other.yaml, line 3: no such category")
        return SHOP

    scope = count_all(
        check_selection(Selection(), rules), rules, LazyMapping(["other", "shop"], mapped),
        LazyMapping(["other", "shop"], lambda _name: shop.address()),
        version=1, moment=MOMENT, zone=ZONE,
    )  # fmt: skip
    assert scope.people_by_database() == {"shop": 2, "other": None}
    [unknown] = scope.unknown
    assert Translator("en", "UTC").text(unknown.reason) == "other.yaml, line 3: no such category"


def test_person_in_two_databases_is_counted_as_two_people(shop: Shop) -> None:
    other = RULE.model_copy(update={"database": "other"})
    rules = RULES.model_copy(update={"scope": (RULE, other)})
    address = shop.address()
    scope = count_all(
        check_selection(Selection(), rules), rules, {"shop": SHOP, "other": SHOP},
        {"shop": address, "other": address}, version=1, moment=MOMENT, zone=ZONE,
    )  # fmt: skip
    assert (scope.subjects, scope.records, scope.minors) == (4, 6, 2)
    assert scope.categories["user.contact.email"] == 2


def test_count_is_not_marked_for_retry_if_database_refused_the_login(shop: Shop) -> None:
    wrong = shop.count(address=shop.address(password="hunter2"))
    assert "refused the connection" in why(wrong)
    assert "hunter2" not in why(wrong)
    assert not wrong.unknown[0].passing


def test_reason_of_failed_count_contains_name_of_table_that_could_not_be_read(shop: Shop) -> None:
    shop.owner.execute("CREATE ROLE half LOGIN PASSWORD 'x'")
    try:
        shop.owner.execute("GRANT SELECT ON person, unit, tag, memo TO half")
        scope = shop.count(address=shop.address(user="half", password="x"))
        assert "permission denied for table doc" in why(scope)
        only = Selection(collections=("shop.person",))
        assert shop.count(only, address=shop.address(user="half", password="x")).unknown
    finally:
        shop.owner.execute("DROP OWNED BY half")
        shop.owner.execute("DROP ROLE half")


def test_reason_of_failed_count_contains_name_of_missing_column_or_table(shop: Shop) -> None:
    shop.owner.execute("ALTER TABLE doc DROP COLUMN words")
    assert "column r.words does not exist" in why(shop.count())
    shop.owner.execute("DROP TABLE doc")
    assert 'relation "public.doc" does not exist' in why(shop.count())


def test_reason_of_unknown_count_contains_syntax_error_if_sql_of_policy_pack_is_invalid(
    shop: Shop,
) -> None:
    broken = Records(collection="doc", subjects=("r.writer +",))
    scope = shop.count(rule=RULE.model_copy(update={"records": (broken,)}))
    assert "syntax error" in why(scope)


def test_reason_of_failed_count_does_not_contain_value_of_record(shop: Shop) -> None:
    odd = Records(collection="doc", subjects=("r.writer",), at="r.words::timestamptz")
    shop.owner.execute("UPDATE doc SET words = 'Wang Wei'")
    scope = shop.count(rule=RULE.model_copy(update={"records": (odd,)}))
    assert "does not have the format" in why(scope)
    assert "22007" in why(scope)
    assert "Wang" not in scope.model_dump_json()


def test_count_is_unknown_if_key_of_people_is_not_unique_in_database(shop: Shop) -> None:
    shop.owner.execute("ALTER TABLE person DROP CONSTRAINT person_pkey CASCADE")
    assert shop.count().subjects == 2
    shop.owner.execute("INSERT INTO person (id) VALUES (1)")
    assert "the column that identifies people according to the incident rules" in why(shop.count())


def test_count_is_unknown_if_table_has_row_level_security(shop: Shop) -> None:
    shop.owner.execute("CREATE ROLE hidden LOGIN PASSWORD 'x'")
    try:
        shop.owner.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO hidden")
        shop.owner.execute("ALTER TABLE person ENABLE ROW LEVEL SECURITY")
        scope = shop.count(address=shop.address(user="hidden", password="x"))
        assert "row-level security" in why(scope)
    finally:
        shop.owner.execute("DROP OWNED BY hidden")
        shop.owner.execute("DROP ROLE hidden")


def test_count_is_unknown_if_access_log_or_sharing_log_is_missing(shop: Shop) -> None:
    logless = RULE.model_copy(update={"access": None, "shares": None})
    assert "no access log" in why(shop.count(Selection(accounts=("ann",)), rule=logless))
    assert "no sharing log" in why(shop.count(Selection(partner="1"), rule=logless))


def test_count_is_unknown_and_marked_for_retry_if_query_exceeds_time_limit(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(snapshot._SETTINGS, "statement_timeout", "200ms")
    slow = Records(
        collection="doc", subjects=("r.writer",), at="now() + pg_sleep(5)::text::interval"
    )
    scope = shop.count(rule=RULE.model_copy(update={"records": (slow,)}))
    assert "took longer" in why(scope)
    assert scope.unknown[0].passing


def test_count_is_unknown_and_marked_for_retry_if_table_stays_locked(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(snapshot._SETTINGS, "lock_timeout", "200ms")
    with shop.owner.transaction():
        shop.owner.execute("LOCK TABLE doc")
        scope = shop.count()
    assert "locked" in why(scope)
    assert scope.unknown[0].passing


def test_count_ignores_rows_inserted_after_its_read_only_snapshot_was_opened(shop: Shop) -> None:
    with snapshot.open_snapshot(shop.address(), SHOP, ZONE.key) as connection:
        live = inspect_database(connection, SHOP, RULE)
        shop.owner.execute("INSERT INTO person (id) VALUES (3)")
        selection = check_selection(Selection(), RULES)
        assert count_database(resolve_selection(live, selection, MOMENT), SENSITIVE).subjects == 2
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
            connection.execute("INSERT INTO person (id) VALUES (4)")
    assert shop.count().subjects == 3
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
    while shop.owner.execute(others).fetchone() != (1,):  # its session ends
        shop.owner.execute("SELECT pg_stat_clear_snapshot(), pg_sleep(0.01)")


def test_scope_text_contains_warning_if_no_people_are_affected(shop: Shop) -> None:
    scope = shop.count(Selection(accounts=("anne",)))
    assert (scope.is_empty, scope.subjects) == (True, 0)
    assert scope.counted[0].accounts == {"anne": 0}
    lines = [Translator("en", "UTC").text(line) for line in scope_lines(scope, {})]
    assert any("found no people in the entered scope" in line for line in lines)
    assert any("anne. Check that the account names are correct." in line for line in lines)


def test_count_of_empty_database_is_zero(shop: Shop) -> None:
    shop.owner.execute("TRUNCATE person, doc, tag, memo, opened, seen, given")
    scope = shop.count()
    assert scope.is_empty
    assert scope.counted[0].records == {"person": 0, "doc": 0, "tag": 0, "memo": 0}
    assert (scope.minors, scope.first) == (0, None)


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
def test_entered_text_is_never_executed_as_sql(shop: Shop, text: str) -> None:
    keys = shop.count(Selection(keys=(text,)))
    assert (keys.counted[0].not_found, keys.subjects) == (1, 0)
    papers = shop.count(Selection(keys_of="shop.doc", keys=(text, "1")))
    assert (papers.counted[0].not_found_at, papers.subjects) == ((1,), 2)
    for fields in ({"departments": (text,)}, {"accounts": (text,)}, {"partner": text}):
        assert shop.count(Selection.model_validate(fields)).subjects == 0
    assert shop.count().subjects == 2


def test_count_succeeds_if_table_and_column_names_contain_special_characters(shop: Shop) -> None:
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
    scope = shop.count(rule=rule, mapped=mapped)
    assert scope.counted[0].records["odd"] == 2
    listed = shop.count(Selection(keys_of="shop.odd", keys=("1", "5")), rule=rule, mapped=mapped)
    assert (listed.subjects, listed.counted[0].not_found_at) == (1, (2,))


def test_infinite_times_are_left_out_of_first_and_last_time_of_count(shop: Shop) -> None:
    shop.owner.execute(
        "INSERT INTO person (id, joined) VALUES (3, 'infinity'), (4, '0044-03-15 BC'),"
        " (5, '20000-01-01'), (6, NULL)"
    )
    shop.owner.execute("INSERT INTO opened VALUES (2, 1, 3, '-infinity'), (3, 1, 4, 'infinity')")
    (count,) = shop.count().counted
    assert count.first == datetime(2025, 12, 31, 16, tzinfo=UTC)
    assert count.last == datetime(2026, 1, 1, 16, tzinfo=UTC)
    assert (count.subjects, count.undated) == (6, 1)
    (log,) = shop.count(Selection(accounts=("ann",))).counted
    assert (log.log_rows, log.subjects) == (3, 3)
    assert log.log_first == log.log_last == datetime(2026, 1, 1, 2, tzinfo=UTC)


def test_record_time_without_timezone_is_interpreted_in_timezone_of_pack(shop: Shop) -> None:
    since = datetime(2026, 1, 1, 2, tzinfo=UTC)  # ten o'clock in Shanghai, as the document says
    for zone, papers in (("Asia/Shanghai", 1), ("Asia/Tokyo", 0)):
        selection = Selection(collections=("shop.doc",), since=since)
        shop.owner.execute("ALTER ROLE CURRENT_USER SET TimeZone = 'America/New_York'")
        try:
            scope = shop.count(selection, zone=ZoneInfo(zone))
        finally:
            shop.owner.execute("ALTER ROLE CURRENT_USER RESET TimeZone")
        assert scope.records == papers


def test_minors_are_counted_by_age_at_time_when_company_became_aware_of_incident(
    shop: Shop,
) -> None:
    shop.owner.execute("UPDATE person SET born = '2012-03-01' WHERE id = 1")
    assert shop.count().minors == 0  # on the morning of the first of March
    shop.owner.execute("UPDATE person SET born = '2012-03-02' WHERE id = 1")
    assert shop.count().minors == 1
    ageless = RULE.subject.model_copy(update={"minor": None})
    unknown = shop.count(rule=RULE.model_copy(update={"subject": ageless}))
    assert (unknown.minors, unknown.age_unknown) == (None, 2)


def test_count_includes_entered_key_for_every_type_of_key_column(shop: Shop) -> None:
    key = "6f1d2f3e-0000-4000-8000-00000000000a"
    for kind, present, absent in (
        ("uuid", key, "6f1d"), ("text", "a/b", "a"), ("date", "2026-01-01", "1 May"),
        ("timestamptz", "2026-01-01 00:00:00+00", "2026-01-01 00:00:00"), ("numeric", "1.0", "1"),
    ):  # fmt: skip
        shop.owner.execute("DROP TABLE IF EXISTS member CASCADE")
        shop.owner.execute(f"CREATE TABLE member (id {kind} PRIMARY KEY)".encode())
        shop.owner.execute("INSERT INTO member VALUES (%s)", [present])
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
        selection = Selection(keys=(absent, f"shop/{present}"))
        (count,) = shop.count(selection, rule=rule, mapped=mapped).counted
        assert (count.subjects, count.records, count.not_found_at) == (1, {"member": 1}, (1,)), kind
    assert shop.count(Selection(keys=("0001", "99999999999999999999"))).subjects == 1


def test_account_column_of_access_log_can_be_an_sql_expression(shop: Shop) -> None:
    assert RULE.access is not None
    access = RULE.access.model_copy(update={"account": "'c' || a.clerk"})
    assert isinstance(access, AccessLog)
    scope = shop.count(Selection(accounts=("c1",)), rule=RULE.model_copy(update={"access": access}))
    assert (scope.subjects, scope.counted[0].accounts) == (1, {"c1": 1})
