"""The masked rows that a reviewer sees: no whole value, names of personal keys, how many."""

from __future__ import annotations

from dataclasses import replace

import pytest

from include.intake.question import sample_size
from include.quarantine.keys import KeyNames
from include.quarantine.register import key_of
from tests.intake import steps
from tests.intake.conftest import KEYS, OLDEST, Rig, keyed_by_phone


def test_the_reviewer_sees_no_whole_value(rig: Rig) -> None:
    """Every personal value of the batch is looked for in the question."""
    checked = rig.checked()
    question = steps.ask(rig.table, checked)
    rows = rig.rows(
        "SELECT name, phone, id_number, email, street FROM intake_record WHERE batch_id = %s",
        OLDEST,
    )
    assert {one for row in rows for one in row if one and one in question.body} == set()
    assert checked.data["sha256"] in question.body
    assert question == steps.ask(rig.table, checked)  # the same rows every time
    assert rows[0][1][:3] in question.body or "＊＊＊＊" in question.body


def test_a_key_that_tells_who_it_is_is_named_as_in_the_register(rig: Rig) -> None:
    """A keyed HMAC; without keys it is hidden. As a field it is masked like any other."""
    incoming = keyed_by_phone(rig.table.incoming)
    rig.rows("UPDATE intake_record SET phone = '139' || lpad(intake_id::text, 8, '0')")
    named = replace(rig.table, incoming=incoming, keys=KEYS)
    checked = rig.checked()
    page = steps.ask(named, checked).body
    phones = [
        phone
        for (phone,) in rig.rows("SELECT phone FROM intake_record WHERE batch_id = %s", OLDEST)
    ]
    assert not [one for one in phones if one in page]
    names = KeyNames(KEYS, "courier", incoming.collection, incoming.key)
    shown = [one for one in phones if key_of(names.of([one]))[0] in page]
    assert len(shown) == 5
    assert "| phone | name | phone |" in page
    bare = steps.ask(replace(named, keys=None), checked).body
    assert "hmac:" not in bare
    assert not [one for one in phones if one in bare]


@pytest.mark.parametrize(
    ("rows", "level", "shown"),
    [
        (1, "S-4", 1), (30, "S-4", 5), (1000, "S-4", 20), (100_000, "S-4", 80),
        (1_000_000, "S-4", 125), (1000, "II", 80), (10**9, "II", 1250), (90, "S-1", 3),
    ],
)  # fmt: skip
def test_the_sample_grows_as_the_standard_says(rows: int, level: str, shown: int) -> None:
    """GB/T 2828.1-2012, tables 1 and 2-A; never more than there are."""
    assert sample_size(rows, level) == shown


def test_the_page_has_a_part_for_each_language_and_one_for_the_sample(rig: Rig) -> None:
    """A reader sees where the own language begins and ends."""
    page = steps.ask(rig.table, rig.checked()).body
    headings = [line for line in page.splitlines() if line.startswith("#")]
    assert headings == ["### 中文", "### English", "### 脱敏样本 / Masked sample"]


def test_the_page_names_who_may_answer(rig: Rig) -> None:
    """Whom Airflow refuses learns nothing else of it; of many, some are named."""
    assert "Only E00003, E00017, E00031 may answer\n" in steps.ask(rig.table, rig.checked()).body
    rig.rows("UPDATE employee SET department_id = 3, has_data_access = true")
    many = steps.ask(rig.table, rig.checked())
    last, others = many.assigned[9], len(many.assigned) - 10
    assert f", {last} and {others} more may answer\n" in many.body
    assert f", {last} 及另外 {others} 人可以作答\n" in many.body
