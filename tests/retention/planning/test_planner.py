"""What a plan counts: classes that overlap, what keeps a record, and the plan's hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import psycopg
import pytest

from include.erasure import requests
from include.erasure.ledger import ErasureKeys
from include.holds.registry import HoldKind
from include.local.postgres import EmbeddedPostgres
from include.retention.planning.plan import Plan, combined, read_plan
from include.retention.planning.planner import make_plan
from include.retention.postgres.session import prepare
from include.services.errors import ControlFailed, UsageError
from tests.retention.yard import AS_OF, CLOCK, KEYS, OVER, YOUNG, Yard, rule, yard

TABLE = f"""
CREATE TABLE item (id int PRIMARY KEY, at date, other date, kind text, who int);
INSERT INTO item SELECT i, CASE WHEN i <= 6 THEN date '{OVER}' ELSE '{YOUNG}' END,
  CASE WHEN i % 2 = 0 THEN date '{OVER}' ELSE '{YOUNG}' END,
  CASE WHEN i % 3 = 0 THEN 'paper' ELSE 'file 100% {{}}' END, i FROM generate_series(1, 12) i;
"""
WHY = {"en": "claim", "zh-CN": "索赔"}


@pytest.fixture
def place(postgres: EmbeddedPostgres) -> Iterator[Yard]:
    with yard(postgres, TABLE) as made:
        made.rules = [rule("item")]
        yield made


def test_two_classes_of_one_collection_share_its_records(place: Yard) -> None:
    """Each by its condition; one record is of no class and stays."""
    place.rules = [
        rule("item", name="paper", where="t.kind = 'paper'"),
        rule("item", name="file", where="t.kind LIKE 'file 100% {}' AND t.id <> 1"),
    ]
    assert place.enforced() == {"paper": 2, "file": 3}
    assert place.keys("item") == {1, *range(7, 13)}


def test_the_longest_period_of_a_record_wins(place: Yard) -> None:
    """It is counted in both classes, and once in what goes from the table."""
    place.rules = [
        rule("item", name="all"),
        rule("item", name="paper", where="t.kind = 'paper'", clock="other"),
    ]
    plan = place.plan()
    assert plan.of("all").expired == 6
    assert plan.of("all").kept_longer == 1  # number 3 is paper, and young by its other clock
    assert plan.of("paper").expired == 2
    assert plan.of("paper").kept_longer == 1  # number 12 is young by the other class
    assert plan.of("all").to_delete == 5
    assert plan.of("paper").to_delete == 1
    assert plan.table("item").to_delete == 5
    counts = place.execute(plan)
    assert sum(counts.done.values()) == 5
    assert place.keys("item") == {3, *range(7, 13)}
    assert [one.unexplained for one in place.left()[0]] == [0, 0]


def test_a_record_of_a_class_that_nobody_approved_stays(place: Yard) -> None:
    """Though another of its classes may go without being asked about."""
    place.rules = [rule("item"), rule("item", name="paper", where="t.kind = 'paper'")]
    plan = place.plan()
    assert (plan.of("item").to_delete, plan.of("paper").to_delete) == (6, 2)
    assert place.execute(plan, ["item"]).done == {"item": 4}
    assert {3, 6} <= place.keys("item")


def test_no_more_of_a_table_goes_than_planned_whichever_class_deletes(place: Yard) -> None:
    """Ten records are planned once though two classes have them; ten more that came wait."""
    place.rules = [rule("item", name="a"), rule("item", name="b")]
    place.run(f"UPDATE item SET at = '{YOUNG}' WHERE id > 4")
    plan = place.plan()
    assert plan.table("item").to_delete == 4
    place.run(f"UPDATE item SET at = '{OVER}' WHERE id > 8")
    assert sum(place.execute(plan).done.values()) == 4
    assert len(place.keys("item")) == 8


def test_keep_beats_delete(place: Yard) -> None:
    """However long ago its clock was."""
    place.rules = [rule("item"), rule("item", "keep", name="kept", where="t.id IN (1, 2)")]
    plan = place.plan()
    assert (plan.of("item").to_delete, plan.of("item").kept_longer) == (4, 2)
    assert plan.of("kept").expired == 2
    assert plan.of("kept").planned == 0
    assert place.enforced() == {"item": 4}
    assert {1, 2} <= place.keys("item")


def test_a_record_that_one_of_its_classes_suspends_stays(place: Yard) -> None:
    """An open claim of either class is a claim about the record."""
    place.rules = [
        rule("item", name="all"),
        rule("item", name="paper", where="t.kind = 'paper'",
             suspended={"where": "t.id = 3", "title": WHY}),
    ]  # fmt: skip
    plan = place.plan()
    assert (plan.of("paper").suspended, plan.of("all").kept_longer) == (1, 1)
    assert plan.table("item").to_delete == 5
    place.execute(plan)
    assert 3 in place.keys("item")
    assert [one.unexplained for one in place.left()[0]] == [0, 0]


def test_a_hold_by_the_keys_of_one_class_keeps_the_record_from_all(place: Yard) -> None:
    """The hold is on the record."""
    place.rules = [
        rule("item", name="all"),
        rule("item", name="paper", where="t.kind = 'paper'", keys={"subject": "t.who"}),
    ]
    hold = place.hold(HoldKind.SUBJECT, "3")
    plan = place.plan()
    assert [(one.hold, one.records) for one in plan.of("all").held_by] == [(hold.id, 1)]
    place.execute(plan)
    assert 3 in place.keys("item")
    assert [one.unexplained for one in place.left()[0]] == [0, 0]


def test_a_minimum_may_have_a_clock_of_its_own(place: Yard) -> None:
    """Both have passed or the record stays; a minimum that has not begun keeps too."""
    basis = {"instrument": WHY, "version": "1", "article": "1"}
    place.run("UPDATE item SET other = NULL WHERE id = 2")
    place.rules = [
        rule("item", minimum=[{"clock": "other", "period": "P2Y", "basis": basis},
                              {"period": "P6M", "basis": basis}]),
    ]  # fmt: skip
    assert place.enforced() == {"item": 2}
    assert place.keys("item") == {1, 2, 3, 5, *range(7, 13)}


def test_a_request_erases_before_the_time_but_not_before_a_minimum(place: Yard) -> None:
    """And no record of a class that does not say on_request."""
    basis = {"instrument": WHY, "version": "1", "article": "1"}
    with place.state.begin() as conn:
        for who in ("7", "8", "9"):
            requests.add(
                conn, CLOCK, database=place.name, subject=who, reference=f"R-{who}",
                entered_by="ana", received_on=CLOCK.now().date(),
            )  # fmt: skip
    place.rules = [
        rule("item", name="paper", where="t.kind = 'paper'", keys={"subject": "t.who"}),
        rule("item", name="file", where="t.kind <> 'paper'", keys={"subject": "t.who"},
             on_request=True, minimum=[{"clock": "other", "period": "P1Y", "basis": basis}]),
    ]  # fmt: skip
    plan = place.plan()
    assert plan.of("file").requested == 1  # 8; 7 is kept by the minimum, 9 is of the other class
    assert len(plan.requests) == 3
    place.execute(plan)
    assert {7, 9} <= place.keys("item")
    assert 8 not in place.keys("item")


def test_clocks_that_have_not_begun_or_lie_ahead_are_counted(place: Yard) -> None:
    """Neither is over; a clock far ahead may be a mistake."""
    place.run(
        "UPDATE item SET at = NULL WHERE id = 1; UPDATE item SET at = '9999-01-01' WHERE id = 2"
    )
    plan = place.plan()
    assert (plan.of("item").not_started, plan.of("item").ahead) == (1, 1)
    assert place.enforced() == {"item": 4}


def test_a_masking_class_leaves_what_is_masked_already(place: Yard) -> None:
    """By its stamp, and by looking at the value."""
    place.run("""
    CREATE TABLE label (id int PRIMARY KEY, at date, name text, "phone %" text, done timestamptz);
    INSERT INTO label VALUES (1, '2020-01-01', '王小明', '13800138000', NULL),
      (2, '2020-01-01', '王**', '138******00', now()), (3, '2020-01-01', '李四', NULL, now()),
      (4, '2026-01-01', '李四', '13800138000', NULL);
    """)
    place.rules = [
        rule("label", "mask", mask={"name": "name", "phone %": "phone"}, stamp="done"),
        rule("label", name="gone", period="P50Y"),
    ]
    assert place.enforced() == {"label": 2}
    assert place.keys("label", 'id, name, "phone %"') == {
        (1, "王**", "138******00"), (2, "王**", "138******00"), (3, "李**", None),
        (4, "李四", "13800138000"),
    }  # fmt: skip


def test_one_moment_and_database_have_one_hash(place: Yard) -> None:
    """Whatever the session's timezone, format of dates and path are; it is sha256sum's."""
    plan = place.plan()
    hashes = {plan.sha256}
    for settings in (
        "-c TimeZone=America/New_York -c DateStyle=German",
        "-c search_path=pg_catalog",
    ):
        with psycopg.connect(place.conninfo, options=settings, autocommit=True) as connection:
            prepare(connection, place.database)
            hashes.add(make_plan(connection, place.schedule()).sha256)
    later = replace(place.schedule(), now=CLOCK.now() + timedelta(hours=1))
    with place.session() as connection:
        hashes.add(make_plan(connection, later).sha256)
    assert hashes == {hashlib.sha256(plan.content).hexdigest()}
    assert Plan.model_validate_json(plan.content) == read_plan(plan.content, plan.sha256) == plan
    assert combined([plan]) == plan.sha256 != combined([plan, plan])


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE item SET id = 100 WHERE id = 1",  # as many records, but another
        "UPDATE item SET at = '2026-01-01' WHERE id = 1; UPDATE item SET at = '2020-01-01' "
        "WHERE id = 12",
        "DELETE FROM item WHERE id = 1",
        "INSERT INTO item VALUES (13, '2020-01-01')",
        "CREATE TABLE more (item int REFERENCES item)",
        "CREATE TABLE more (item int REFERENCES item ON DELETE SET NULL)",
    ],
)
def test_another_set_of_records_or_another_key_has_another_hash(place: Yard, change: str) -> None:
    """The people who approved would have approved something else."""
    before = place.plan()
    place.run(change)
    assert place.plan().sha256 != before.sha256


def test_another_rule_moment_hold_or_erasure_key_has_another_hash(place: Yard) -> None:
    """Even where the same records go; a title is none of it, and yet is of the rule."""
    hashes = [place.plan().sha256]
    for rules in (
        [rule("item", period="P13M")],
        [rule("item", title=WHY)],
        [rule("item", where="true")],
        [rule("item", name="other")],
        [rule("item"), rule("item", "keep", name="none", where="false")],
    ):
        place.rules = rules
        hashes.append(place.plan().sha256)
    place.rules = [rule("item")]
    place.as_of = AS_OF + timedelta(seconds=1)
    hashes.append(place.plan().sha256)
    place.as_of = AS_OF
    with place.session() as connection:
        keys = ErasureKeys({"1": b"x" * 32}, "1")
        hashes.append(make_plan(connection, replace(place.schedule(), keys=keys)).sha256)
        keys = ErasureKeys({**KEYS.keys, "2": b"x" * 32}, "2")
        hashes.append(make_plan(connection, replace(place.schedule(), keys=keys)).sha256)
    place.hold(HoldKind.SUBJECT, "nobody")
    hashes.append(place.plan().sha256)
    assert len(set(hashes)) == len(hashes)


def test_an_edited_plan_is_refused(place: Yard) -> None:
    """By one character."""
    plan = place.plan()
    with pytest.raises(ControlFailed, match="its file changed"):
        read_plan(plan.content.replace(b'"to_delete": 6', b'"to_delete": 7'), plan.sha256)


def test_a_plan_names_nobody(place: Yard) -> None:
    """Neither a key nor a value is in it; the digest of keys cannot be tried without our key."""
    place.run("CREATE TABLE who (name text PRIMARY KEY, at date); INSERT INTO who VALUES "
              "('13800138000', '2020-01-01')")  # fmt: skip
    place.rules = [rule("who", keys={"subject": "t.name"})]
    place.hold(HoldKind.SUBJECT, "E-77001")
    text = place.plan().content.decode()
    assert "13800138000" not in text
    assert "E-77001" not in text


def test_a_plan_writes_nothing(place: Yard) -> None:
    """Not even by a function in a condition."""
    place.run("""
    CREATE FUNCTION sly(int) RETURNS boolean LANGUAGE plpgsql AS $$
      BEGIN DELETE FROM item WHERE id = $1; RETURN true; END $$
    """)
    place.rules = [rule("item", where="sly(t.id)")]
    with pytest.raises(UsageError, match="ReadOnlySqlTransaction"):
        place.plan()
    assert len(place.keys("item")) == 12


@pytest.mark.parametrize("where", ["t.kind::int > 0", "1 / (t.id - 1) > 0"])
def test_sql_that_fails_on_a_record_does_not_quote_it(place: Yard, where: str) -> None:
    """PostgreSQL's own words would."""
    place.rules = [rule("item", where=where)]
    with pytest.raises(UsageError, match="SQLSTATE 22") as caught:
        place.plan()
    assert "file 100" not in f"{caught.value}{caught.value.__cause__}"


def test_records_that_a_minimum_without_a_date_keeps_are_counted(place: Yard) -> None:
    """Those that are over or asked for, and no others: neither young ones nor those of a law."""
    place.run(
        f"""
        CREATE TABLE m (id int PRIMARY KEY, at date, paid date, sure date NOT NULL DEFAULT '{OVER}',
            who text);
        INSERT INTO m VALUES (1, '{OVER}', NULL), (2, '{OVER}', '{OVER}'),
            (3, '{YOUNG}', NULL), (4, '{OVER}', '{YOUNG}'), (5, NULL, NULL);
        """
    )
    basis = {"instrument": "Tax", "version": "1", "article": "9"}
    minimum = [{"clock": clock, "period": "P1Y", "basis": basis} for clock in ("paid", "sure")]
    place.rules = [rule("m", minimum=minimum)]
    (planned,) = place.plan().classes
    assert (planned.expired, planned.to_delete, planned.minimum_not_started) == (1, 1, 1)
    assert planned.as_json()["minimum_not_started"] == 1
    place.rules = [rule("m", minimum=minimum[1:])]
    assert place.plan().classes[0].minimum_not_started == 0


def test_masked_record_needs_no_date_of_a_minimum(place: Yard) -> None:
    """A record that still has its name is counted; a record that was masked before is not."""
    place.run(f"""
    CREATE TABLE m (id int PRIMARY KEY, at date, paid date, who text);
    INSERT INTO m VALUES (1, '{OVER}', NULL, 'a'), (2, '{OVER}', NULL, NULL);
    """)
    basis = {"instrument": "Tax", "version": "1", "article": "9"}
    minimum = [{"clock": "paid", "period": "P1Y", "basis": basis}]
    place.rules = [rule("m", "mask", mask={"who": "erase"}, minimum=minimum)]
    assert place.plan().classes[0].minimum_not_started == 1
