"""Workpapers come back once, whole, and without what nobody asked for."""

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
from include.sampling.issue import Issued
from include.sampling.workpapers import form
from include.sampling.workpapers.form import Answer
from include.sampling.workpapers.writing import write
from include.services.errors import UsageError
from include.workbooks.faults import WorkbookRefused
from tests.sampling.drawn import ISSUED, Draw, committed, concluding, draw, hand_in, returned
from tests.sampling.workpapers.support import edited, repacked
from tests.support.contexts import step_record

DAY = timedelta(days=1)


def drawn(audit: str = "2026Q3") -> Draw:
    return draw(committed(), committed("intake", 60, plan="staged"), audit=audit)


@pytest.fixture
def issued(state: Engine) -> Draw:
    """A draw whose workpapers are out: one population of one stage, one of two."""
    made = drawn()
    with state.begin() as conn:
        made.issue(conn)
    return made


def kept(state: Engine, audit: str | None = None) -> list[Issued]:
    with state.connect() as conn:
        return issue.all_issued(conn, audit)


def concluded(state: Engine, made: Draw, stage: int = 1) -> None:
    step_record(EVALUATE, concluding(state, made.rules), part_of(made, stage))


def part_of(made: Draw, stage: int = 1) -> str:
    return f"{made.papers.audit}-{stage}-{made.papers.draw_sha256[:6]}"


def test_what_was_issued_is_kept_as_it_was(state: Engine, issued: Draw) -> None:
    """A repeated draw keeps nothing else."""
    with state.begin() as conn:
        later = replace(issued, papers=replace(issued.papers, issued_at=ISSUED + DAY))
        later.issue(conn)
    (found,) = kept(state)
    assert found.workpapers == issued.papers
    assert (found.committed, found.samples) == (issued.committed, issued.samples)
    assert (found.audit, found.stage, found.part) == ("2026Q3", 1, part_of(issued))
    assert (found.run, found.issued_at) == (Run("sample_audit", "drawn"), ISSUED)
    assert found.handed_in is None
    assert kept(state, "2026Q2") == []


def test_answers_are_taken_with_who_brought_them_and_the_digest_of_their_file(
    state: Engine, issued: Draw
) -> None:
    """And with the names that stand in them."""
    content = returned(issued.papers, {"shares": (2,)}, {("shares", 2): "No form"})
    taken = hand_in(state, content, ISSUED + DAY)
    (found,) = kept(state)
    assert found == taken
    back = found.handed_in
    assert back is not None
    assert back.file_sha256 == hashlib.sha256(content).hexdigest()
    assert (back.returned_by, back.returned_at) == ("auditor", ISSUED + DAY)
    assert (back.performed_by, back.reviewed_by) == ("陈晓", "Li Na")
    assert back.answers["shares", 2].answers == {"approved": Answer.DEVIATES, "bound": Answer.MET}
    assert back.answers["shares", 2].note == "No form"
    assert len(back.items) == sum(len(one.items) for one in issued.papers.papers)
    assert issue.HandedIn.model_validate_json(back.to_bytes()) == back


def test_a_refused_file_leaves_nothing_and_names_every_fault(state: Engine, issued: Draw) -> None:
    """What was handed in before stays."""
    before = hand_in(state, returned(issued.papers))

    def spoil(book: Workbook) -> None:
        sheet = book[issued.papers.sheets["shares"]]
        sheet.cell(form.HEADER_ROW + 1, len(form.FIXED) + 1).value = "maybe"
        sheet.delete_rows(form.HEADER_ROW + 3)
        book[form.INSTRUCTIONS]["B1"].value = "=1+1"

    with pytest.raises(WorkbookRefused) as refused:
        hand_in(state, edited(returned(issued.papers), spoil))
    said = str(refused.value)
    assert "“maybe” is none of the answers" in said
    assert "The row of item number 3 is missing" in said
    assert len(refused.value.faults) >= 3
    assert kept(state) == [before]


def test_a_file_of_no_draw_that_was_issued_is_refused(state: Engine, issued: Draw) -> None:
    """Another quarter's, and another stage's: neither is taken for these."""
    del issued
    other = drawn("2026Q2")
    later = replace(drawn().papers, stage=2)
    for papers in (other.papers, later):
        with pytest.raises(UsageError, match="belongs to no draw"):
            hand_in(state, returned(papers))
    assert [one.handed_in for one in kept(state)] == [None]


@pytest.mark.parametrize("stage", ["99999999999999999999999", "-1", "", "1.5", "١"])
def test_a_file_with_a_made_up_stage_is_refused(state: Engine, issued: Draw, stage: str) -> None:
    """As wrong usage, never as a fault of the database."""

    def change(book: Workbook) -> None:
        for row in book[form.DRAW].iter_rows():
            if row[0].value == "stage":
                row[1].value, row[1].data_type = stage, "s"

    with pytest.raises(UsageError):
        hand_in(state, edited(returned(issued.papers), change))


def test_a_file_may_take_the_place_of_another_until_the_conclusion(
    state: Engine, issued: Draw
) -> None:
    """Afterwards the conclusion stands, for the same file too."""
    first, second = returned(issued.papers, {"shares": (2,)}), returned(issued.papers)
    hand_in(state, first)
    hand_in(state, first, ISSUED + DAY)
    hand_in(state, second, ISSUED + 2 * DAY)
    concluded(state, issued)
    before = kept(state)
    assert before[0].handed_in is not None
    assert before[0].handed_in.returned_at == ISSUED + 2 * DAY
    (replaced,) = before[0].handed_in.replaced  # the same file again replaced nothing
    assert (replaced.returned_at, replaced.changed) == (ISSUED, 1)
    assert replaced.file_sha256 == hashlib.sha256(first).hexdigest()
    for content in (first, second):
        with pytest.raises(UsageError, match="was concluded on"):
            hand_in(state, content, ISSUED + 3 * DAY)
    assert kept(state) == before


def test_a_stage_is_not_answered_again_once_the_next_one_was_issued(state: Engine) -> None:
    """Although nothing of it is concluded: whoever knows the next items could still choose."""
    made = draw(committed("intake", 60, plan="staged"))
    with state.begin() as conn:
        made.issue(conn)
    hand_in(state, returned(made.papers, {"intake": (1,)}))
    concluded(state, made)
    with pytest.raises(UsageError, match="stage 1, was concluded on"):
        hand_in(state, returned(made.papers), ISSUED + DAY)
    second = kept(state)[1]
    assert (second.stage, second.part) == (2, part_of(made, 2))
    assert hand_in(state, returned(second.workpapers), ISSUED + DAY).stage == 2


def test_two_quarters_may_be_out_at_once(state: Engine, issued: Draw) -> None:
    """Each is held against its own draw, and the conclusion of one leaves the other open."""
    other = drawn("2026Q2")
    with state.begin() as conn:
        other.issue(conn)
    hand_in(state, returned(other.papers))
    concluded(state, other)
    assert hand_in(state, returned(issued.papers)).audit == "2026Q3"
    assert [one.audit for one in kept(state, "2026Q2")] == ["2026Q2"]
    assert len(kept(state)) == 2


def test_the_file_and_the_numbers_in_its_notes_are_nowhere_in_the_state_database(
    state: Engine, issued: Draw
) -> None:
    """Notes come back blotted; what stands outside the form is not kept at all."""
    notes = {
        ("shares", 2): "Asked Mr Wang, １３８-1234-5678",
        ("shares", 3): "wang@example.cn said so",
    }

    def remark(book: Workbook) -> None:
        book.properties.creator = "13800001111"

    content = edited(returned(issued.papers, {"shares": (2,)}, notes), remark)
    taken = hand_in(state, content)
    assert taken.handed_in is not None
    assert taken.handed_in.answers["shares", 2].note == "Asked Mr Wang, …"
    assert taken.handed_in.answers["shares", 3].note == "… said so"
    everything = dump(state)
    assert "Asked Mr Wang" in everything
    for word in ("5678", "wang@", "13800001111", "PK\\x03", content[:40].hex()):
        assert word not in everything


def dump(state: Engine) -> str:
    """Every row of every table as text."""
    query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    with state.connect() as conn:
        tables = conn.execute(text(query)).scalars().all()
        rows: list[Any] = []
        for name in tables:
            rows += conn.execute(text(f'SELECT t::text FROM "{name}" t')).scalars().all()
    return "\n".join(rows)


@pytest.mark.parametrize("escape", ["_x0000_", "_xD800_", "_xFFFE_", "_x202E_"])
def test_characters_that_no_database_holds_do_not_stop_a_file(
    state: Engine, issued: Draw, escape: str
) -> None:
    """A note or a name with them is taken, without them."""
    people = {
        form.PERFORMED_BY: "Zhen",
        form.PERFORMED_ON: ISSUED.date(),
        form.REVIEWED_BY: "Xaviera",
    }
    content = returned(issued.papers, {}, {("shares", 2): "Marked"}, people)
    spoilt = content
    for name in sheets(content):
        for word in ("Marked", "Xaviera"):
            try:
                spoilt = repacked(spoilt, {name: (word, f"{word}{escape}")})
            except AssertionError:
                continue
    assert spoilt != content
    back = hand_in(state, spoilt).handed_in
    assert back is not None
    assert back.answers["shares", 2].note.startswith("Marked")
    assert back.reviewed_by.startswith("Xaviera")


def sheets(content: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(content)) as source:
        return [one for one in source.namelist() if one.endswith(".xml")]


def test_nobody_hands_in(state: Engine, issued: Draw) -> None:
    """A name is needed."""
    with pytest.raises(UsageError, match="Nobody is named"), state.begin() as conn:
        issue.hand_in(conn, write(issued.papers), "filled.xlsx", by="  ", at=ISSUED)
