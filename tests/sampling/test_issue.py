"""Tests of issued and returned workpapers."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from openpyxl import Workbook
from sqlalchemy import Engine, text

from include.notify.outbox import Run
from include.sampling import issue
from include.sampling.closing import EVALUATE
from include.sampling.issue import IssuedWorkpapers
from include.sampling.workpapers import form
from include.sampling.workpapers.form import Answer
from include.sampling.workpapers.writing import write
from include.services.errors import UsageError
from include.workbooks.faults import WorkbookRefused
from tests.sampling.draw_fixtures import (
    ISSUED,
    Draw,
    committed_population,
    conclusion_context,
    hand_in,
    make_draw,
    returned_workbook,
)
from tests.sampling.workpapers.support import edited, repacked
from tests.support.contexts import step_record

DAY = timedelta(days=1)


def draw_quarter(audit: str = "2026Q3") -> Draw:
    return make_draw(
        committed_population(), committed_population("intake", 60, plan="staged"), audit=audit
    )


@pytest.fixture
def issued(state: Engine) -> Draw:
    """Provide issued workpapers of a population with one stage and a population with two stages."""
    draw = draw_quarter()
    with state.begin() as conn:
        draw.issue(conn)
    return draw


def all_workpapers(state: Engine, audit: str | None = None) -> list[IssuedWorkpapers]:
    with state.connect() as conn:
        return issue.all_issued(conn, audit)


def evaluate_stage(state: Engine, draw: Draw, stage: int = 1) -> None:
    step_record(EVALUATE, conclusion_context(state, draw.rules), part_of(draw, stage))


def part_of(draw: Draw, stage: int = 1) -> str:
    return f"{draw.papers.audit}-{stage}-{draw.papers.draw_sha256[:6]}"


def test_first_issued_workpapers_are_kept_unchanged_if_draw_is_repeated(
    state: Engine, issued: Draw
) -> None:
    """If the draw is repeated, the first workpapers are kept."""
    with state.begin() as conn:
        later = replace(issued, papers=replace(issued.papers, issued_at=ISSUED + DAY))
        later.issue(conn)
    (stored,) = all_workpapers(state)
    assert stored.workpapers == issued.papers
    assert (stored.committed, stored.samples) == (issued.committed, issued.samples)
    assert (stored.audit, stored.stage, stored.name) == ("2026Q3", 1, part_of(issued))
    assert (stored.run, stored.issued_at) == (Run("sample_audit", "drawn"), ISSUED)
    assert stored.handed_in is None
    assert all_workpapers(state, "2026Q2") == []


def test_hand_in_stores_answers_names_of_people_and_sha256_of_returned_file(
    state: Engine, issued: Draw
) -> None:
    content = returned_workbook(issued.papers, {"shares": (2,)}, {("shares", 2): "No form"})
    result = hand_in(state, content, ISSUED + DAY)
    (stored,) = all_workpapers(state)
    assert stored == result
    back = stored.handed_in
    assert back is not None
    assert back.file_sha256 == hashlib.sha256(content).hexdigest()
    assert (back.returned_by, back.returned_at) == ("auditor", ISSUED + DAY)
    assert (back.performed_by, back.reviewed_by) == ("陈晓", "Li Na")
    assert back.answers["shares", 2].answers == {"approved": Answer.DEVIATES, "bound": Answer.MET}
    assert back.answers["shares", 2].note == "No form"
    assert len(back.items) == sum(len(paper.items) for paper in issued.papers.papers)
    assert issue.ReturnedAnswers.model_validate_json(back.to_bytes()) == back


def test_returned_file_with_faults_is_not_stored_and_error_contains_all_faults(
    state: Engine, issued: Draw
) -> None:
    """The file that was returned earlier is kept."""
    before = hand_in(state, returned_workbook(issued.papers))

    def spoil(book: Workbook) -> None:
        sheet = book[issued.papers.sheets["shares"]]
        sheet.cell(form.HEADER_ROW + 1, len(form.FIXED) + 1).value = "maybe"
        sheet.delete_rows(form.HEADER_ROW + 3)
        book[form.INSTRUCTIONS]["B1"].value = "=1+1"

    with pytest.raises(WorkbookRefused) as refused:
        hand_in(state, edited(returned_workbook(issued.papers), spoil))
    message = str(refused.value)
    assert "“maybe” is not one of the answers" in message
    assert "The row of item number 3 is missing" in message
    assert len(refused.value.faults) >= 3
    assert all_workpapers(state) == [before]


def test_hand_in_raises_usage_error_if_file_belongs_to_another_draw_or_stage(
    state: Engine, issued: Draw
) -> None:
    del issued
    other = draw_quarter("2026Q2")
    later = replace(draw_quarter().papers, stage=2)
    for papers in (other.papers, later):
        with pytest.raises(UsageError, match="belongs to no draw"):
            hand_in(state, returned_workbook(papers))
    assert [stored.handed_in for stored in all_workpapers(state)] == [None]


@pytest.mark.parametrize("stage", ["99999999999999999999999", "-1", "", "1.5", "١"])
def test_returned_file_with_invalid_stage_number_is_refused_with_usage_error(
    state: Engine, issued: Draw, stage: str
) -> None:
    """The error is a usage error and not a database error."""

    def change(book: Workbook) -> None:
        for row in book[form.DRAW].iter_rows():
            if row[0].value == "stage":
                row[1].value, row[1].data_type = stage, "s"

    with pytest.raises(UsageError):
        hand_in(state, edited(returned_workbook(issued.papers), change))


def test_returned_file_may_be_replaced_until_audit_is_concluded(
    state: Engine, issued: Draw
) -> None:
    """After the conclusion, even the same file is refused."""
    first, second = (
        returned_workbook(issued.papers, {"shares": (2,)}),
        returned_workbook(issued.papers),
    )
    hand_in(state, first)
    hand_in(state, first, ISSUED + DAY)
    hand_in(state, second, ISSUED + 2 * DAY)
    evaluate_stage(state, issued)
    before = all_workpapers(state)
    assert before[0].handed_in is not None
    assert before[0].handed_in.returned_at == ISSUED + 2 * DAY
    (replaced,) = before[0].handed_in.replaced  # the repeated file replaced nothing
    assert (replaced.returned_at, replaced.changed) == (ISSUED, 1)
    assert replaced.file_sha256 == hashlib.sha256(first).hexdigest()
    for content in (first, second):
        with pytest.raises(UsageError, match="was concluded on"):
            hand_in(state, content, ISSUED + 3 * DAY)
    assert all_workpapers(state) == before


def test_returned_file_cannot_be_replaced_after_next_stage_was_issued(state: Engine) -> None:
    """An auditor who knows the items of the next stage must not change earlier answers."""
    draw = make_draw(committed_population("intake", 60, plan="staged"))
    with state.begin() as conn:
        draw.issue(conn)
    hand_in(state, returned_workbook(draw.papers, {"intake": (1,)}))
    evaluate_stage(state, draw)
    with pytest.raises(UsageError, match="stage 1, was concluded on"):
        hand_in(state, returned_workbook(draw.papers), ISSUED + DAY)
    second = all_workpapers(state)[1]
    assert (second.stage, second.name) == (2, part_of(draw, 2))
    assert hand_in(state, returned_workbook(second.workpapers), ISSUED + DAY).stage == 2


def test_workpapers_of_a_quarter_can_be_returned_after_conclusion_of_another_quarter(
    state: Engine, issued: Draw
) -> None:
    """The conclusion of one quarter does not conclude the other quarter."""
    other = draw_quarter("2026Q2")
    with state.begin() as conn:
        other.issue(conn)
    hand_in(state, returned_workbook(other.papers))
    evaluate_stage(state, other)
    assert hand_in(state, returned_workbook(issued.papers)).audit == "2026Q3"
    assert [stored.audit for stored in all_workpapers(state, "2026Q2")] == ["2026Q2"]
    assert len(all_workpapers(state)) == 2


def test_returned_file_and_personal_data_in_notes_are_not_stored_in_state_database(
    state: Engine, issued: Draw
) -> None:
    """Personal numbers in notes are redacted, and data outside of the form is not stored."""
    notes = {
        ("shares", 2): "Asked Mr Wang, １３８-1234-5678",
        ("shares", 3): "wang@example.cn said so",
    }

    def remark(book: Workbook) -> None:
        book.properties.creator = "13800001111"

    content = edited(returned_workbook(issued.papers, {"shares": (2,)}, notes), remark)
    result = hand_in(state, content)
    assert result.handed_in is not None
    assert result.handed_in.answers["shares", 2].note == "Asked Mr Wang, …"
    assert result.handed_in.answers["shares", 3].note == "… said so"
    database = dump(state)
    assert "Asked Mr Wang" in database
    for word in ("5678", "wang@", "13800001111", "PK\\x03", content[:40].hex()):
        assert word not in database


def dump(state: Engine) -> str:
    """Return all rows of all tables of the state database as text."""
    query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    with state.connect() as conn:
        tables = conn.execute(text(query)).scalars().all()
        rows: list[Any] = []
        for name in tables:
            rows += conn.execute(text(f'SELECT t::text FROM "{name}" t')).scalars().all()
    return "\n".join(rows)


@pytest.mark.parametrize("escape", ["_x0000_", "_xD800_", "_xFFFE_", "_x202E_"])
def test_characters_that_databases_refuse_are_removed_from_notes_and_names(
    state: Engine, issued: Draw, escape: str
) -> None:
    """The characters are removed from notes and from names of people."""
    people = {
        form.PERFORMED_BY: "Zhen",
        form.PERFORMED_ON: ISSUED.date(),
        form.REVIEWED_BY: "Xaviera",
    }
    content = returned_workbook(issued.papers, {}, {("shares", 2): "Marked"}, people)
    changed = content
    for name in sheets(content):
        for word in ("Marked", "Xaviera"):
            try:
                changed = repacked(changed, {name: (word, f"{word}{escape}")})
            except AssertionError:
                continue
    assert changed != content
    back = hand_in(state, changed).handed_in
    assert back is not None
    assert back.answers["shares", 2].note.startswith("Marked")
    assert back.reviewed_by.startswith("Xaviera")


def sheets(content: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(content)) as source:
        return [name for name in source.namelist() if name.endswith(".xml")]


def test_hand_in_raises_usage_error_if_name_of_returning_person_is_blank(
    state: Engine, issued: Draw
) -> None:
    with pytest.raises(UsageError, match="is missing"), state.begin() as conn:
        issue.hand_in(conn, write(issued.papers), "filled.xlsx", by="  ", at=ISSUED)
