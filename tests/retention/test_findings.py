"""Tests of findings that other tests do not cover."""

from __future__ import annotations

from datetime import timedelta

import pytest

from include.evidence.model import Outcome, StepRecord
from include.holds.records import StoredRestorePoint
from include.holds.registry import HoldKind
from include.local.postgres import EmbeddedPostgres
from include.messages import Message, in_english
from include.policy.datamap import MappedField
from include.reports.i18n import Translator
from include.retention.execution import cycles
from include.retention.planning.approval import has_approvers
from tests.retention import step_records as steps
from tests.retention.runner import NAME, OLD, YOUNG, RetentionRunner, disposition, new_runner, rule
from tests.support.registers import UNGUARDED, tamper


def finding_codes(record: StepRecord) -> dict[str, tuple[Outcome, str]]:
    return {finding.code: (finding.severity, finding.subject) for finding in record.findings}


def test_plan_reports_legal_hold_past_its_review_date(runner: RetentionRunner) -> None:
    runner.hold(HoldKind.SUBJECT, "p9")
    assert "retention.hold_review_due" not in finding_codes(runner.plan("r1"))
    runner.state_sql(f"{UNGUARDED}; UPDATE legal_hold SET review_on = review_on - 100")
    severity, _subject = finding_codes(runner.plan("r2"))["retention.hold_review_due"]
    assert severity is Outcome.ATTENTION


def test_plan_reports_legal_hold_whose_value_no_key_of_a_record_class_can_have(
    runner: RetentionRunner,
) -> None:
    """The policy pack changed after the hold was placed, or the hold names another database."""
    code = "retention.hold_keeps_nothing"
    kept = runner.hold(HoldKind.SUBJECT, "p9")
    assert code not in finding_codes(runner.plan("r1"))
    keyed = runner.but(rules=[rule("note", keys={"subject": "t.id"})])
    assert finding_codes(keyed.plan("r2"))[code] == (Outcome.ATTENTION, f"hold {kept.id}")
    runner.release(kept.id)
    own = runner.hold(HoldKind.SUBJECT, "courier/p9")
    assert finding_codes(keyed.plan("r3"))[code] == (Outcome.FAIL, f"hold {own.id}")
    keyless = runner.but(rules=[rule("note", keys={})])
    assert finding_codes(keyless.plan("r4"))[code] == (Outcome.FAIL, f"hold {own.id}")
    assert code not in finding_codes(runner.plan("r5"))


def test_plan_reports_finding_and_is_not_executed_if_nobody_may_approve_it(
    runner: RetentionRunner,
) -> None:
    nobody = runner.but(rules_of_disposition=disposition(limit={"records": 0}, approval={}))
    nobody.insert("note", id=1, at=OLD)
    planned = nobody.plan()
    plan = steps.planned(nobody.in_run(), planned)
    assert not has_approvers(nobody.in_run(), plan)
    assert has_approvers(runner.in_run(), plan)
    assert finding_codes(planned)["retention.nobody_to_ask"][0] is Outcome.FAIL
    assert planned.data["request"] is None
    assert nobody.execute(planned).data["done"] == {}


def test_plan_reports_record_class_without_expired_records_if_each_earlier_run_deleted_records(
    runner: RetentionRunner,
) -> None:
    for number in range(3):
        runner.insert("note", id=number, at=OLD)
        assert "retention.nothing_expires" not in finding_codes(runner.run(f"r{number}")[0])
    assert finding_codes(runner.plan("r4"))["retention.nothing_expires"] == (
        Outcome.ATTENTION,
        "note",
    )


def test_execution_outside_daily_time_window_erases_nothing_and_reports_a_finding(
    runner: RetentionRunner,
) -> None:
    now = runner.clock.now()
    begins, ends = ((now + timedelta(hours=hours)).strftime("%H:%M") for hours in (2, 3))
    closed = runner.but(rules_of_disposition=disposition(window={"begins": begins, "ends": ends}))
    closed.insert("note", id=1, at=OLD)
    _planned, executed, counted = closed.run()
    assert finding_codes(executed)["retention.stopped"][0] is Outcome.ATTENTION
    assert executed.data["stopped"] == "window"
    assert finding_codes(counted)["retention.left"] == (Outcome.FAIL, "note")


def test_verification_reports_records_whose_referenced_record_is_missing(
    runner: RetentionRunner,
) -> None:
    runner.insert("scan", id=1, at=YOUNG)
    runner.insert("note", id=1, scan=1, at=YOUNG)
    planned = runner.plan()
    executed = runner.execute(planned)
    assert "retention.orphans" not in finding_codes(runner.verify(planned, executed))
    runner.sql("SET session_replication_role = 'replica'; DELETE FROM scan")
    severity, subject = finding_codes(runner.verify(planned, executed))["retention.orphans"]
    assert severity is Outcome.FAIL
    assert "note" in subject


def test_verification_reports_attention_if_a_not_valid_foreign_key_refers_to_a_missing_record(
    postgres: EmbeddedPostgres,
) -> None:
    with new_runner(postgres) as runner:
        runner.insert("scan", id=1, at=YOUNG)
        runner.insert("note", id=1, scan=1, at=YOUNG)
        name = runner.sql(
            "SELECT conname FROM pg_constraint WHERE conrelid = 'note'::regclass AND contype = 'f'"
        )[0][0]
        runner.sql(
            f"ALTER TABLE note DROP CONSTRAINT {name}; DELETE FROM scan; ALTER TABLE note ADD "
            f"CONSTRAINT {name} FOREIGN KEY (scan) REFERENCES scan ON DELETE SET NULL NOT VALID"
        )
        planned = runner.plan()
        counted = finding_codes(runner.verify(planned, runner.execute(planned)))
    assert counted["retention.orphans"] == (Outcome.ATTENTION, name)


def test_verification_record_contains_restore_point_that_was_taken_during_last_deletion_batch(
    runner: RetentionRunner,
) -> None:
    runner.insert("note", id=1, at=OLD)
    planned = runner.plan()
    executed = runner.execute(planned)
    begun = tamper(
        runner.state_source,
        "UPDATE erasure_batch SET erased_at = erased_at - interval '1 hour' RETURNING erased_at",
    )[0][0]
    meanwhile, days = begun + timedelta(minutes=59), timedelta(days=30)
    copies = [
        StoredRestorePoint("within", meanwhile, meanwhile + days),
        StoredRestorePoint("later", begun + days, begun + days),
    ]
    listed = steps.verify(runner.in_run(), planned, executed, copies).data["copies"]
    assert [each["id"] for each in listed] == ["within"]


def test_verification_reports_failure_if_more_records_were_erased_than_planned(
    runner: RetentionRunner,
) -> None:
    runner.insert("note", id=1, at=OLD)
    planned = runner.plan()
    executed = runner.execute(planned)
    tamper(runner.state_source, "UPDATE erasure_batch SET records = 3")
    codes = finding_codes(runner.verify(planned, executed))
    assert codes["retention.beyond_plan"] == (Outcome.FAIL, "note")


def test_verification_reports_restore_point_without_valid_manifest(runner: RetentionRunner) -> None:
    runner.insert("note", id=1, at=OLD)
    planned = runner.plan()
    executed = runner.execute(planned)
    counted = steps.verify(
        runner.in_run(), planned, executed, [StoredRestorePoint("courier/20211001")]
    )
    assert finding_codes(counted)["retention.backups_refused"][0] is Outcome.ATTENTION
    [listed] = counted.data["copies"]
    assert (listed["id"], listed["taken_at"]) == ("courier/20211001", None)


def test_verification_reports_no_finding_if_legal_hold_was_released_after_execution(
    runner: RetentionRunner,
) -> None:
    runner.insert("note", id=1, at=OLD, who="p1")
    hold = runner.hold(HoldKind.CLASS, "note")
    planned = runner.plan()
    executed = runner.execute(planned)
    runner.release(hold.id)
    counted = runner.verify(planned, executed)
    assert (finding_codes(counted), counted.data["unexplained"]) == ({}, 0)
    assert runner.run("r2")[1].data["done"] == {"note": 1}


def test_record_is_kept_if_retention_period_starts_on_latest_date_of_postgresql(
    runner: RetentionRunner,
) -> None:
    runner.sql("INSERT INTO note (id, at) VALUES (1, '294276-12-31')")
    runner.insert("note", id=2, at=OLD)
    _planned, executed, counted = runner.run()
    assert (executed.data["done"], finding_codes(counted)) == ({"note": 1}, {})


def test_execution_reports_foreign_key_cycle_that_is_too_large_for_a_transaction(
    runner: RetentionRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cycles, "MAX_RECORDS", 1)
    runner.insert("ring_a", id=1, b=None, at=OLD)
    runner.insert("ring_b", id=1, a=1, at=OLD)
    runner.sql("UPDATE ring_a SET b = 1")
    _planned, executed, counted = runner.run()
    assert finding_codes(executed)["retention.knot"][0] is Outcome.FAIL
    assert (executed.data["done"], executed.data["knots"]) == ({}, {"ring_a": 1, "ring_b": 1})
    assert finding_codes(counted)["retention.left"][0] is Outcome.FAIL


def test_chain_of_references_that_exceeds_record_limit_of_a_transaction_is_deleted_completely(
    runner: RetentionRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cycles, "MAX_RECORDS", 20)
    for number in range(30):
        runner.insert("node", id=number, up=number - 1 if number else None, at=OLD)
    executed = runner.execute(runner.plan())
    assert executed.data["done"] == {"node": 30}
    assert (finding_codes(executed), executed.data["knots"]) == ({}, {})


def test_execution_reports_personal_data_that_trigger_copies_to_table_without_record_class(
    runner: RetentionRunner,
) -> None:
    trigger = """
        CREATE FUNCTION react() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN INSERT INTO tag (id, at) VALUES (OLD.id, OLD.at); RETURN OLD; END$$;
        CREATE TRIGGER react AFTER DELETE ON note FOR EACH ROW EXECUTE FUNCTION react();
        """
    note = [each for each in runner.rules if each.collection == "note"]
    kept = [*note, *(each for each in runner.rules if each.collection == "tag")]
    subject_column = MappedField(name="who", categories=("user.unique_id",))
    tag = runner.database.collections["tag"]
    tag = tag.model_copy(update={"fields": {**tag.fields, "who": subject_column}})
    personal = runner.database.model_copy(
        update={"collections": {**runner.database.collections, "tag": tag}}
    )
    runner.sql(trigger)
    try:
        copies = []
        for number, other in enumerate(
            [
                runner.but(rules=note, database=personal),
                runner.but(rules=kept, database=personal),
                runner.but(rules=note),
            ]
        ):
            other.insert("note", id=number, at=OLD)
            run = f"r{number}"
            executed = other.execute(other.plan(run), run)
            assert executed.data["inserted"] == {"public.tag": 1}
            copies.append(finding_codes(executed).get("retention.copied"))
    finally:
        runner.sql("DROP FUNCTION react CASCADE")
    assert copies == [(Outcome.ATTENTION, "tag"), None, None]


def test_finding_about_deletions_by_trigger_contains_table_counts_and_trigger_name(
    runner: RetentionRunner,
) -> None:
    runner.insert("note", id=1, at=OLD)
    runner.insert("tag", id=1, at=OLD, who="p1")
    runner.sql(
        """
        CREATE FUNCTION react() RETURNS trigger LANGUAGE plpgsql AS
            $$BEGIN DELETE FROM tag; RETURN OLD; END$$;
        CREATE TRIGGER react AFTER DELETE ON note FOR EACH ROW EXECUTE FUNCTION react();
        """
    )
    try:
        runner.hold(HoldKind.SUBJECT, "p1")
        planned, executed, counted = runner.run()
    finally:
        runner.sql("DROP FUNCTION react CASCADE")
    [effect] = [finding for finding in executed.findings if finding.code == "retention.side_effect"]
    assert (effect.severity, effect.subject) == (Outcome.FAIL, "note")
    assert effect.message.values == {"count": 1, "deleted": 1, "updated": 0, "table": "public.tag"}
    assert list(effect.action.values) == ["names"]
    names = effect.action.values["names"]
    assert isinstance(names, Message)
    assert in_english(names) == "react (public.note, public.react)"
    assert "retention.refused" not in finding_codes(executed)
    assert runner.keys_in("tag") == {("1",)}
    assert finding_codes(counted)["retention.left"] == (Outcome.FAIL, "note")
    [reaction] = planned.data["reactions"]
    assert (reaction["table"], reaction["name"]) == ("public.note", "react")


def test_name_of_database_and_collection_has_the_title_of_the_database(
    runner: RetentionRunner,
) -> None:
    database = runner.database
    same = database.collections["node"].model_copy(
        update={"name": NAME, "titles": {"en": "A table", "zh-CN": "一张表"}}
    )
    mapped = database.model_copy(update={"collections": {NAME: same}})
    assert runner.but(database=mapped).in_run().subject_titles[NAME] == database.title


def test_record_class_without_title_has_no_title_in_findings(runner: RetentionRunner) -> None:
    untitled = rule("node", **{"class": "old_node"})
    titled = rule("ring_a", **{"class": "old_ring", "title": {"en": "Rings", "zh-CN": "环"}})
    titles = runner.but(rules=[untitled, titled]).in_run().subject_titles
    assert "old_node" not in titles
    assert Translator("zh_CN").text(titles["old_ring"]) == "环"
