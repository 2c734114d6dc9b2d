"""Tests of the plan: overlapping record classes, reasons to keep records, and the SHA-256."""

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
from include.retention.planning.plan import Plan, combined_sha256, read_plan
from include.retention.planning.planner import make_plan
from include.retention.postgres.session import prepare_session
from include.services.errors import ControlFailed, UsageError
from tests.retention.retention_schema import (
    AS_OF,
    CLOCK,
    KEYS,
    OVER,
    YOUNG,
    RetentionSchema,
    retention_schema,
    rule,
)

TABLE = f"""
CREATE TABLE item (id int PRIMARY KEY, at date, other date, kind text, who int);
INSERT INTO item SELECT i, CASE WHEN i <= 6 THEN date '{OVER}' ELSE '{YOUNG}' END,
  CASE WHEN i % 2 = 0 THEN date '{OVER}' ELSE '{YOUNG}' END,
  CASE WHEN i % 3 = 0 THEN 'paper' ELSE 'file 100% {{}}' END, i FROM generate_series(1, 12) i;
"""
WHY = {"en": "claim", "zh-CN": "索赔"}


@pytest.fixture
def schema(postgres: EmbeddedPostgres) -> Iterator[RetentionSchema]:
    with retention_schema(postgres, TABLE) as created:
        created.rules = [rule("item")]
        yield created


def test_plan_counts_records_of_two_record_classes_of_a_collection_separately(
    schema: RetentionSchema,
) -> None:
    schema.rules = [
        rule("item", name="paper", where="t.kind = 'paper'"),
        rule("item", name="file", where="t.kind LIKE 'file 100% {}' AND t.id <> 1"),
    ]
    assert schema.enforced() == {"paper": 2, "file": 3}
    assert schema.keys("item") == {1, *range(7, 13)}


def test_record_of_two_record_classes_is_kept_until_both_retention_periods_have_ended(
    schema: RetentionSchema,
) -> None:
    schema.rules = [
        rule("item", name="all"),
        rule("item", name="paper", where="t.kind = 'paper'", clock="other"),
    ]
    plan = schema.plan()
    assert plan.of("all").expired == 6
    assert plan.of("all").kept_longer == 1  # number 3 is paper, and young by its other clock
    assert plan.of("paper").expired == 2
    assert plan.of("paper").kept_longer == 1  # number 12 is young by the other class
    assert plan.of("all").to_delete == 5
    assert plan.of("paper").to_delete == 1
    assert plan.table("item").to_delete == 5
    counts = schema.execute(plan)
    assert sum(counts.done.values()) == 5
    assert schema.keys("item") == {3, *range(7, 13)}
    assert [each.unexplained for each in schema.left()[0]] == [0, 0]


def test_execution_keeps_record_that_also_belongs_to_unapproved_record_class(
    schema: RetentionSchema,
) -> None:
    schema.rules = [rule("item"), rule("item", name="paper", where="t.kind = 'paper'")]
    plan = schema.plan()
    assert (plan.of("item").to_delete, plan.of("paper").to_delete) == (6, 2)
    assert schema.execute(plan, ["item"]).done == {"item": 4}
    assert {3, 6} <= schema.keys("item")


def test_execution_deletes_only_planned_number_of_records_if_more_records_expire_after_plan(
    schema: RetentionSchema,
) -> None:
    schema.rules = [rule("item", name="a"), rule("item", name="b")]
    schema.run(f"UPDATE item SET at = '{YOUNG}' WHERE id > 4")
    plan = schema.plan()
    assert plan.table("item").to_delete == 4
    schema.run(f"UPDATE item SET at = '{OVER}' WHERE id > 8")
    assert sum(schema.execute(plan).done.values()) == 4
    assert len(schema.keys("item")) == 8


def test_expired_record_is_kept_if_another_of_its_record_classes_has_action_keep(
    schema: RetentionSchema,
) -> None:
    schema.rules = [rule("item"), rule("item", "keep", name="kept", where="t.id IN (1, 2)")]
    plan = schema.plan()
    assert (plan.of("item").to_delete, plan.of("item").kept_longer) == (4, 2)
    assert plan.of("kept").expired == 2
    assert plan.of("kept").planned == 0
    assert schema.enforced() == {"item": 4}
    assert {1, 2} <= schema.keys("item")


def test_expired_record_is_kept_if_another_of_its_record_classes_suspends_its_disposition(
    schema: RetentionSchema,
) -> None:
    schema.rules = [
        rule("item", name="all"),
        rule("item", name="paper", where="t.kind = 'paper'",
             suspended={"where": "t.id = 3", "title": WHY}),
    ]  # fmt: skip
    plan = schema.plan()
    assert (plan.of("paper").suspended, plan.of("all").kept_longer) == (1, 1)
    assert plan.table("item").to_delete == 5
    schema.execute(plan)
    assert 3 in schema.keys("item")
    assert [each.unexplained for each in schema.left()[0]] == [0, 0]


def test_record_of_two_record_classes_is_kept_if_only_one_class_has_the_key_of_a_legal_hold(
    schema: RetentionSchema,
) -> None:
    schema.rules = [
        rule("item", name="all"),
        rule("item", name="paper", where="t.kind = 'paper'", keys={"subject": "t.who"}),
    ]
    hold = schema.hold(HoldKind.SUBJECT, "3")
    plan = schema.plan()
    assert [(each.hold, each.records) for each in plan.of("all").held_by] == [(hold.id, 1)]
    schema.execute(plan)
    assert 3 in schema.keys("item")
    assert [each.unexplained for each in schema.left()[0]] == [0, 0]


def test_expired_record_is_kept_until_minimum_period_that_starts_in_another_column_has_ended(
    schema: RetentionSchema,
) -> None:
    basis = {"instrument": WHY, "version": "1", "article": "1"}
    schema.run("UPDATE item SET other = NULL WHERE id = 2")
    schema.rules = [
        rule("item", minimum=[{"clock": "other", "period": "P2Y", "basis": basis},
                              {"period": "P6M", "basis": basis}]),
    ]  # fmt: skip
    assert schema.enforced() == {"item": 2}
    assert schema.keys("item") == {1, 2, 3, 5, *range(7, 13)}


def test_erasure_request_deletes_unexpired_record_only_after_end_of_minimum_period(
    schema: RetentionSchema,
) -> None:
    basis = {"instrument": WHY, "version": "1", "article": "1"}
    with schema.state.begin() as conn:
        for subject in ("7", "8", "9"):
            requests.add(
                conn, CLOCK, database=schema.name, subject=subject, reference=f"R-{subject}",
                entered_by="ana", received_on=CLOCK.now().date(),
            )  # fmt: skip
    schema.rules = [
        rule("item", name="paper", where="t.kind = 'paper'", keys={"subject": "t.who"}),
        rule("item", name="file", where="t.kind <> 'paper'", keys={"subject": "t.who"},
             on_request=True, minimum=[{"clock": "other", "period": "P1Y", "basis": basis}]),
    ]  # fmt: skip
    plan = schema.plan()
    assert plan.of("file").requested == 1  # 8; 7 is kept by the minimum, 9 is of the other class
    assert len(plan.requests) == 3
    schema.execute(plan)
    assert {7, 9} <= schema.keys("item")
    assert 8 not in schema.keys("item")


def test_plan_counts_records_whose_retention_period_has_no_start_or_starts_in_future(
    schema: RetentionSchema,
) -> None:
    schema.run(
        "UPDATE item SET at = NULL WHERE id = 1; UPDATE item SET at = '9999-01-01' WHERE id = 2"
    )
    plan = schema.plan()
    assert (plan.of("item").not_started, plan.of("item").ahead) == (1, 1)
    assert schema.enforced() == {"item": 4}


def test_plan_leaves_out_records_that_are_already_masked(schema: RetentionSchema) -> None:
    schema.run("""
    CREATE TABLE label (id int PRIMARY KEY, at date, name text, "phone %" text, done timestamptz);
    INSERT INTO label VALUES (1, '2020-01-01', '王小明', '13800138000', NULL),
      (2, '2020-01-01', '王**', '138******00', now()), (3, '2020-01-01', '李四', NULL, now()),
      (4, '2026-01-01', '李四', '13800138000', NULL);
    """)
    schema.rules = [
        rule("label", "mask", mask={"name": "name", "phone %": "phone"}, stamp="done"),
        rule("label", name="gone", period="P50Y"),
    ]
    assert schema.enforced() == {"label": 2}
    assert schema.keys("label", 'id, name, "phone %"') == {
        (1, "王**", "138******00"), (2, "王**", "138******00"), (3, "李**", None),
        (4, "李四", "13800138000"),
    }  # fmt: skip


def test_plan_sha256_is_the_same_for_any_timezone_date_style_and_search_path_of_session(
    schema: RetentionSchema,
) -> None:
    plan = schema.plan()
    hashes = {plan.sha256}
    for settings in (
        "-c TimeZone=America/New_York -c DateStyle=German",
        "-c search_path=pg_catalog",
    ):
        with psycopg.connect(schema.conninfo, options=settings, autocommit=True) as connection:
            prepare_session(connection, schema.database)
            hashes.add(make_plan(connection, schema.schedule()).sha256)
    later = replace(schema.schedule(), now=CLOCK.now() + timedelta(hours=1))
    with schema.session() as connection:
        hashes.add(make_plan(connection, later).sha256)
    assert hashes == {hashlib.sha256(plan.content).hexdigest()}
    assert Plan.model_validate_json(plan.content) == read_plan(plan.content, plan.sha256) == plan
    assert combined_sha256([plan]) == plan.sha256 != combined_sha256([plan, plan])


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE item SET id = 100 WHERE id = 1",  # the same number of records, but another record
        "UPDATE item SET at = '2026-01-01' WHERE id = 1; UPDATE item SET at = '2020-01-01' "
        "WHERE id = 12",
        "DELETE FROM item WHERE id = 1",
        "INSERT INTO item VALUES (13, '2020-01-01')",
        "CREATE TABLE more (item int REFERENCES item)",
        "CREATE TABLE more (item int REFERENCES item ON DELETE SET NULL)",
    ],
)
def test_plan_sha256_changes_if_records_or_foreign_keys_change(
    schema: RetentionSchema, change: str
) -> None:
    before = schema.plan()
    schema.run(change)
    assert schema.plan().sha256 != before.sha256


def test_plan_sha256_changes_if_record_class_plan_time_legal_hold_or_hmac_key_changes(
    schema: RetentionSchema,
) -> None:
    hashes = [schema.plan().sha256]
    for rules in (
        [rule("item", period="P13M")],
        [rule("item", title=WHY)],
        [rule("item", where="true")],
        [rule("item", name="other")],
        [rule("item"), rule("item", "keep", name="none", where="false")],
    ):
        schema.rules = rules
        hashes.append(schema.plan().sha256)
    schema.rules = [rule("item")]
    schema.as_of = AS_OF + timedelta(seconds=1)
    hashes.append(schema.plan().sha256)
    schema.as_of = AS_OF
    with schema.session() as connection:
        keys = ErasureKeys({"1": b"x" * 32}, "1")
        hashes.append(make_plan(connection, replace(schema.schedule(), keys=keys)).sha256)
        keys = ErasureKeys({**KEYS.keys, "2": b"x" * 32}, "2")
        hashes.append(make_plan(connection, replace(schema.schedule(), keys=keys)).sha256)
    schema.hold(HoldKind.SUBJECT, "nobody")
    hashes.append(schema.plan().sha256)
    assert len(set(hashes)) == len(hashes)


def test_read_plan_fails_if_content_was_edited(schema: RetentionSchema) -> None:
    plan = schema.plan()
    with pytest.raises(ControlFailed, match="file of the plan changed"):
        read_plan(plan.content.replace(b'"to_delete": 6', b'"to_delete": 7'), plan.sha256)


def test_plan_contains_neither_primary_keys_of_records_nor_key_values_of_legal_holds(
    schema: RetentionSchema,
) -> None:
    schema.run("CREATE TABLE who (name text PRIMARY KEY, at date); INSERT INTO who VALUES "
              "('13800138000', '2020-01-01')")  # fmt: skip
    schema.rules = [rule("who", keys={"subject": "t.name"})]
    schema.hold(HoldKind.SUBJECT, "E-77001")
    text = schema.plan().content.decode()
    assert "13800138000" not in text
    assert "E-77001" not in text


def test_plan_writes_nothing_to_mapped_database(schema: RetentionSchema) -> None:
    schema.run("""
    CREATE FUNCTION sly(int) RETURNS boolean LANGUAGE plpgsql AS $$
      BEGIN DELETE FROM item WHERE id = $1; RETURN true; END $$
    """)
    schema.rules = [rule("item", where="sly(t.id)")]
    with pytest.raises(UsageError, match="ReadOnlySqlTransaction"):
        schema.plan()
    assert len(schema.keys("item")) == 12


@pytest.mark.parametrize("where", ["t.kind::int > 0", "1 / (t.id - 1) > 0"])
def test_error_message_contains_no_value_of_record_if_sql_of_record_class_fails(
    schema: RetentionSchema, where: str
) -> None:
    schema.rules = [rule("item", where=where)]
    with pytest.raises(UsageError, match="SQLSTATE 22") as caught:
        schema.plan()
    assert "file 100" not in f"{caught.value}{caught.value.__cause__}"


def test_plan_counts_records_that_are_kept_because_their_minimum_period_has_no_start_date(
    schema: RetentionSchema,
) -> None:
    schema.run(
        f"""
        CREATE TABLE m (id int PRIMARY KEY, at date, paid date, sure date NOT NULL DEFAULT '{OVER}',
            who text);
        INSERT INTO m VALUES (1, '{OVER}', NULL), (2, '{OVER}', '{OVER}'),
            (3, '{YOUNG}', NULL), (4, '{OVER}', '{YOUNG}'), (5, NULL, NULL);
        """
    )
    basis = {"instrument": "Tax", "version": "1", "article": "9"}
    minimum = [{"clock": clock, "period": "P1Y", "basis": basis} for clock in ("paid", "sure")]
    schema.rules = [rule("m", minimum=minimum)]
    (planned,) = schema.plan().classes
    assert (planned.expired, planned.to_delete, planned.minimum_not_started) == (1, 1, 1)
    assert planned.as_json()["minimum_not_started"] == 1
    schema.rules = [rule("m", minimum=minimum[1:])]
    assert schema.plan().classes[0].minimum_not_started == 0


def test_plan_does_not_count_masked_records_among_those_whose_minimum_period_has_no_start_date(
    schema: RetentionSchema,
) -> None:
    schema.run(f"""
    CREATE TABLE m (id int PRIMARY KEY, at date, paid date, who text);
    INSERT INTO m VALUES (1, '{OVER}', NULL, 'a'), (2, '{OVER}', NULL, NULL);
    """)
    basis = {"instrument": "Tax", "version": "1", "article": "9"}
    minimum = [{"clock": "paid", "period": "P1Y", "basis": basis}]
    schema.rules = [rule("m", "mask", mask={"who": "erase"}, minimum=minimum)]
    assert schema.plan().classes[0].minimum_not_started == 1
