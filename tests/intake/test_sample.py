"""Tests of the masked sample that reviewers see: masks, pseudonyms and sample size."""

from __future__ import annotations

from dataclasses import replace

import pytest

from include.intake.review_page import sample_size
from include.quarantine.keys import KeyNames
from include.quarantine.register import key_of
from tests.intake import steps
from tests.intake.conftest import KEYS, OLDEST, Rig, keyed_by_phone


def test_sample_on_review_page_has_masked_values_and_the_same_rows_every_time(rig: Rig) -> None:
    checked = rig.checked()
    action = steps.ask(rig.table, checked)
    rows = rig.rows(
        "SELECT name, phone, id_number, email, street FROM intake_record WHERE batch_id = %s",
        OLDEST,
    )
    assert {value for row in rows for value in row if value and value in action.body} == set()
    assert checked.data["sha256"] in action.body
    assert action == steps.ask(rig.table, checked)  # the same rows every time
    assert rows[0][1][:3] in action.body or "＊＊＊＊" in action.body


def test_primary_key_that_identifies_a_person_is_shown_as_pseudonym(rig: Rig) -> None:
    incoming = keyed_by_phone(rig.table.incoming)
    rig.rows("UPDATE intake_record SET phone = '139' || lpad(intake_id::text, 8, '0')")
    named = replace(rig.table, incoming=incoming, keys=KEYS)
    checked = rig.checked()
    page = steps.ask(named, checked).body
    phones = [
        phone
        for (phone,) in rig.rows("SELECT phone FROM intake_record WHERE batch_id = %s", OLDEST)
    ]
    assert not [phone for phone in phones if phone in page]
    names = KeyNames(KEYS, "courier", incoming.collection, incoming.key)
    shown = [phone for phone in phones if key_of(names.of([phone]))[0] in page]
    assert len(shown) == 5
    assert "| phone | name | phone |" in page
    bare = steps.ask(replace(named, keys=None), checked).body
    assert "hmac:" not in bare
    assert not [phone for phone in phones if phone in bare]


@pytest.mark.parametrize(
    ("rows", "level", "shown"),
    [
        (1, "S-4", 1), (30, "S-4", 5), (1000, "S-4", 20), (100_000, "S-4", 80),
        (1_000_000, "S-4", 125), (1000, "II", 80), (10**9, "II", 1250), (90, "S-1", 3),
    ],
)  # fmt: skip
def test_sample_size_for_row_count_and_inspection_level_equals_the_value_of_the_standard(
    rows: int, level: str, shown: int
) -> None:
    assert sample_size(rows, level) == shown


def test_review_page_has_section_for_each_language_and_for_the_sample(rig: Rig) -> None:
    page = steps.ask(rig.table, rig.checked()).body
    headings = [line for line in page.splitlines() if line.startswith("#")]
    assert headings == ["### 中文", "### English", "### 脱敏样本 / Masked sample"]


def test_review_page_contains_the_accounts_of_people_who_may_review(rig: Rig) -> None:
    assert "Only E00003, E00017, E00031 may decide\n" in steps.ask(rig.table, rig.checked()).body
    rig.rows("UPDATE employee SET department_id = 3, has_data_access = true")
    many = steps.ask(rig.table, rig.checked())
    last, others = many.assigned[9], len(many.assigned) - 10
    assert f", {last} and {others} more people may decide\n" in many.body
    assert f"、{last} 及另外 {others} 人可作出决定\n" in many.body
