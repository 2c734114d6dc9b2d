"""Who may enter a seed: those whom the pack names, and never everybody."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from include.local.postgres import EmbeddedPostgres
from include.sampling.rules import AuditRules
from include.sampling.seed_entry import auditors_of
from include.services.errors import UsageError
from tests.sampling.rig import Rig, new_rig, rules_of

STAFF = {"collection": "staff", "account": "login"}


@pytest.fixture(scope="module")
def rig(
    postgres: EmbeddedPostgres, migrated_once: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rig]:
    """A shop with four people, one of whom has left."""
    with new_rig(postgres, migrated_once, tmp_path_factory.mktemp("staff")) as made:
        made.sql("CREATE TABLE staff (id int PRIMARY KEY, login text, audits bool, left_on date)")
        made.sql(
            "INSERT INTO staff VALUES (1, 'E1', true, NULL), (2, 'E2', true, '2026-01-01'), "
            "(3, 'E3', false, NULL), (4, 'E4', true, NULL), (5, NULL, true, NULL)"
        )
        yield made


def auditors(rig: Rig, **more: Any) -> list[str]:
    rules = AuditRules.model_validate(rules_of(**more))
    return list(auditors_of(replace(rig.context(), rules=rules)))


def test_accounts_are_taken_as_they_are(rig: Rig) -> None:
    """No staff table is needed."""
    assert auditors(rig, auditors={"accounts": ["E9", "E8"]}) == ["E9", "E8"]


def test_a_condition_is_asked_of_the_staff_table(rig: Rig) -> None:
    """Beside accounts; whoever has left is none, nor is who has no account."""
    where = "p.audits AND p.left_on IS NULL"
    found = auditors(rig, staff=STAFF, auditors={"accounts": ["E9", "E1"], "where": where})
    assert found == ["E9", "E1", "E4"]


def test_a_question_that_nobody_may_answer_is_not_asked(rig: Rig) -> None:
    """To Airflow an empty list of people means everybody."""
    with pytest.raises(UsageError, match="Nobody may enter the seed") as caught:
        auditors(rig, staff=STAFF, auditors={"where": "false"})
    assert "audit.yaml" in caught.value.action
