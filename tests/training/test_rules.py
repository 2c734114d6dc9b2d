"""Tests of the validation of training.yaml and calendar.yaml."""

from __future__ import annotations

from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from include.policy import SHIPPED
from include.policy.rules import Calendar, Quiet
from include.registry import load_pack
from include.training.rules import TRAINING, Ladder, TrainingRules
from tests.policy.packs import problem_lines, write_pack

QUERY = {"database": "shop", "sql": "SELECT 1"}


def training(**changes: Any) -> dict[str, Any]:
    content = {
        "people": QUERY,
        "courses": {"upload": True},
        "completions": QUERY,
        "owner": "human_resources",
    } | changes
    return {key: value for key, value in content.items() if value is not None}


def faults(folder: Path, **changes: Any) -> list[str]:
    return problem_lines(write_pack(folder, training=yaml.safe_dump(training(**changes))))


def test_shipped_training_rules_equal_defaults():
    rules = load_pack(SHIPPED).section(TRAINING)
    assert rules is not None
    assert rules.ladder == Ladder()
    default = TrainingRules.model_validate(training())
    assert (rules.connection, rules.leave_grace, rules.topics) == (
        default.connection,
        default.leave_grace,
        default.topics,
    )


def test_training_yaml_may_combine_database_queries_with_uploaded_files(tmp_path: Path):
    pack = load_pack(write_pack(tmp_path, training=yaml.safe_dump(training())))
    assert pack.section(TRAINING) is not None
    assert pack.section(TRAINING).courses.upload
    assert pack.section(TRAINING).people.database == "shop"


def test_policy_pack_without_training_yaml_has_no_training_rules(tmp_path: Path):
    assert load_pack(write_pack(tmp_path)).section(TRAINING) is None


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"people": {"upload": True, **QUERY}}, "people: should have database and sql, or upload"),
        ({"people": {"database": "shop"}}, "people: should have database and sql, or upload"),
        ({"people": {}}, "people: should have database and sql, or upload"),
        ({"people": {**QUERY, "database": "ship"}}, "people.database: the pack maps no database"),
        ({"owner": "nobody"}, "owner: roles.yaml has no role 'nobody'"),
        ({"owner": None}, "owner"),
        ({"ladder": {"before": [1, 7]}}, "ladder: before should fall"),
        ({"ladder": {"before": [7, 7]}}, "ladder: before should fall"),
        ({"ladder": {"overdue": [7, 1]}}, "ladder: overdue should rise"),
        ({"ladder": {"overdue": []}}, "ladder.overdue: should not be empty"),
        ({"ladder": {"overdue": [0]}}, "ladder.overdue[0]"),
        ({"ladder": {"then_every": 0}}, "ladder.then_every"),
        ({"ladder": {"copy_from": 0}}, "ladder.copy_from"),
        ({"topics": ["dancing"]}, "topics[0]"),
        ({"leave_grace": "two weeks"}, "leave_grace"),
        ({"reminders": []}, "reminders"),
    ],
)
def test_error_for_invalid_key_of_training_yaml_contains_path_of_key(
    tmp_path: Path, changes: dict[str, Any], line: str
):
    [problem] = faults(tmp_path, **changes)
    assert problem.startswith("training.yaml:")
    assert line in problem


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("holidays: XX\n", "holidays: is not a country's code"),
        ("closed: [2026-02-30]\n", "closed[0]: should be a day"),
        ("closed: [20261001]\n", "closed[0]: should be a day"),
        ("closed: [2026-W40-4]\n", "closed[0]: should be a day"),
        ("opened: [tomorrow]\n", "opened[0]: should be a day"),
        ("closed: [2026-05-01]\nopened: [2026-05-01]\n", "2026-05-01 is both closed and opened"),
        ("quiet: {begins: '25:00'}\n", "quiet.begins"),
    ],
)
def test_error_for_invalid_key_of_calendar_yaml_contains_path_of_key(
    tmp_path: Path, text: str, line: str
):
    [problem] = problem_lines(write_pack(tmp_path, calendar=text))
    assert problem.startswith("calendar.yaml:")
    assert line in problem


def test_calendar_accepts_quoted_and_unquoted_dates(tmp_path: Path):
    text = "closed: [2026-12-24, '2026-12-31']\n"
    pack = load_pack(write_pack(tmp_path, calendar=text))
    assert pack.calendar.closed == (date(2026, 12, 24), date(2026, 12, 31))


@pytest.mark.parametrize(
    ("quiet", "at", "covered"),
    [
        (("21:00", "08:00"), "20:59", False),
        (("21:00", "08:00"), "21:00", True),
        (("21:00", "08:00"), "00:00", True),
        (("21:00", "08:00"), "07:59", True),
        (("21:00", "08:00"), "08:00", False),
        (("12:00", "13:00"), "12:30", True),
        (("12:00", "13:00"), "13:00", False),
        (("00:00", "00:00"), "00:00", False),
    ],
)
def test_quiet_hours_may_span_midnight(quiet: tuple[str, str], at: str, covered: bool):
    begins, ends = quiet
    moment = datetime.fromisoformat(f"2026-03-02T{at}")
    assert Quiet(begins=begins, ends=ends).covers(moment) is covered


def test_default_holidays_of_calendar_are_those_of_china():
    assert Calendar().holidays == "CN"
    assert Calendar(holidays=None).holidays is None
