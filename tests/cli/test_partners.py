"""``partners``: who they are, a whole review, and whether anything may be shared."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from include.cli import app
from include.cli import partners as command
from include.local.postgres import EmbeddedPostgres
from include.services.clock import FixedClock
from include.services.database import DatabaseAddress
from tests.partners.books import OTHERS, edited, fill
from tests.partners.rig import Rig, new_rig


@pytest.fixture(scope="module")
def company(
    postgres: EmbeddedPostgres, migrated_once: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rig]:
    """A company that the tests share."""
    with new_rig(postgres, migrated_once, tmp_path_factory.mktemp("pack")) as made:
        yield made


@pytest.fixture
def rig(company: Rig, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """The company with two partners, where the commands find it."""
    company.empty()
    company.ally("1")
    company.ally("2", company="[red]Süd[/red]", secrecy_to="2026-05-31", grade="9")
    place = SimpleNamespace(
        pack=company.pack,
        state=company.state,
        clock=FixedClock(company.now),
        role_database=lambda *_: DatabaseAddress.from_conninfo(company.conninfo),
    )
    monkeypatch.setattr(command, "workplace", lambda: place)
    monkeypatch.setattr(command, "local_stack", nullcontext)
    return company


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run a command; its exit code, what it said on stdout and on stderr."""
    code = app._run(["partners", *words])
    told = capsys.readouterr()
    return code, told.out, told.err


def told(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code, out, _said = run(capsys, *words, "--json")
    assert out.count("\n") == 1
    found = json.loads(out)
    assert isinstance(found, dict)
    return code, found


@pytest.mark.usefixtures("rig")
def test_partners_are_listed_with_what_binds_them(capsys: pytest.CaptureFixture[str]) -> None:
    """And with what is odd in the register; text in brackets is text."""
    code, found = told(capsys, "list")
    assert code == 0
    first, second = found["partners"]
    assert (first["partner"], first["allowed"], first["review"]["until"]) == (
        "1", True, "2027-06-01",
    )  # fmt: skip
    assert (second["name"], second["tier"], second["allowed"]) == ("[red]Süd[/red]", None, False)
    assert second["nda"] == {"what": "nda", "until": "2026-05-31", "state": "lapsed"}
    assert [(one["partner"], one["code"]) for one in found["oddities"]] == [
        ("2", "partners.unknown_tier")
    ]
    code, out, _said = run(capsys, "list")
    assert code == 0
    assert "[red]Süd[/red]" in out
    assert "2026-05-31 lapsed" in out
    assert "privacy@" not in out


@pytest.mark.usefixtures("rig")
def test_the_exit_code_says_whether_anything_may_be_shared(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """1 with every reason, for a partner that nobody knows too."""
    assert told(capsys, "standing", "1") == (0, {"partner": "1", "allowed": True, "reasons": []})
    code, found = told(capsys, "standing", "2")
    assert (code, found["allowed"], len(found["reasons"])) == (1, False, 2)
    code, out, _said = run(capsys, "standing", "2")
    assert code == 1
    assert out.startswith("sharing with partner 2: refused\n  The confidentiality agreement ended")
    assert told(capsys, "standing", "nobody")[0] == 1


def test_a_review_from_the_questionnaire_to_the_decision(
    rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By three commands and two people; then it is shown as history."""
    file, back = tmp_path / "out.xlsx", tmp_path / "back.xlsx"
    code, found = told(capsys, "questionnaire", "1", "--out", str(file), "--by", "E1")
    assert (code, found["file"], found["passed"]) == (0, str(file), None)
    first = file.read_bytes()
    assert run(capsys, "questionnaire", "1", "--out", str(file), "--by", "E1")[0] == 0
    assert file.read_bytes() == first
    answers = {"encryption": "No"}
    back.write_bytes(edited(first, lambda book: fill(book, answers, rig.today, OTHERS)))
    code, out, said = run(capsys, "return", str(back), "--by", "E1")
    assert (code, said) == (0, "")  # its sub-processor is in China
    assert out.startswith("taken: review 1 of partner 1, score 66.66%, which does not pass\n")
    decide = ("decide", "1", "--reason", "as answered")
    assert run(capsys, *decide, "--passed", "--by", "E2")[0] == 2
    back.write_bytes(edited(first, lambda book: fill(book, {}, rig.today, OTHERS)))
    code, found = told(capsys, "return", str(back), "--by", "E1")
    assert (code, found["score"], found["passes"]) == (0, "100%", True)
    code, _out, said = run(capsys, *decide, "--passed", "--by", "E1")
    assert (code, "cannot decide" in said) == (2, True)
    assert run(capsys, *decide, "--passed", "--failed", "--by", "E2")[0] == 2
    assert run(capsys, *decide, "--by", "E2")[0] == 2
    assert run(capsys, *decide, "--passed", "--by", "E2")[:2] == (
        0, "review 1 of partner 1: passed\n",
    )  # fmt: skip
    code, found = told(capsys, "show", "1")
    assert (code, found["allowed"], found["reasons"]) == (0, True, [])
    (review,) = found["reviews"]
    assert (review["passed"], review["decided_by"]) == (True, "E2")
    assert review["sub_processors"] == [
        {"name": "Cloud Ltd", "country": "CN", "what_for": "hosting"}
    ]
    code, out, _said = run(capsys, "show", "1")
    assert code == 0
    assert "Nothing stands against sharing with it." in out


def test_sub_processors_abroad_are_warned_of(
    rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """When the answers come back and when somebody decides; not among the results."""
    file, back = tmp_path / "out.xlsx", tmp_path / "back.xlsx"
    run(capsys, "questionnaire", "1", "--out", str(file), "--by", "E1")
    others = (*OTHERS, ("Far Ltd", "[b]Singapore[/b]", "support"))
    back.write_bytes(edited(file.read_bytes(), lambda book: fill(book, {}, rig.today, others)))
    warning = "warning: sub-processors that are not given as in China: 1 ([b]Singapore[/b])."
    code, out, said = run(capsys, "return", str(back), "--by", "E1")
    assert (code, said.startswith(warning), "warning" in out) == (0, True, False)
    decide = ("decide", "1", "--reason", "as answered", "--passed", "--by", "E2")
    code, out, said = run(capsys, *decide)
    assert (code, out, said.startswith(warning)) == (0, "review 1 of partner 1: passed\n", True)
    (review,) = told(capsys, "show", "1")[1]["reviews"]
    assert review["sub_processors_abroad"] == 1


def test_every_fault_of_a_file_is_told_and_nothing_is_taken(
    rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, with sheet and cell."""
    file = tmp_path / "q.xlsx"
    run(capsys, "questionnaire", "1", "--out", str(file), "--by", "E1")
    code, _out, said = run(capsys, "return", str(file), "--by", "E1")
    assert code == 2
    assert "Sheet 问卷 Questionnaire, cell E5: The answer is missing." in said
    assert said.count("The answer is missing") == 4
    assert told(capsys, "show", "1")[1]["reviews"][0]["returned_at"] is None
    code, _out, said = run(capsys, "return", str(tmp_path / "none.xlsx"), "--by", "E1")
    assert (code, "cannot be read: No such file" in said) == (2, True)
    file.write_text("no workbook")
    assert run(capsys, "return", str(file), "--by", "E1")[0] == 2


def test_an_incident_blocks_sharing_at_once(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    """Only of a partner that the register has."""
    words = ("--because", "records were lost", "--by", "E3")
    code, found = told(capsys, "reopen", "1", *words)
    assert (code, found["because"], found["passed"]) == (0, "records were lost", None)
    assert told(capsys, "standing", "1")[1]["reasons"] == [
        "The security review was opened again and is not decided on."
    ]
    code, out, _said = run(capsys, "reopen", "1", *words)
    assert (code, "was refused already, nothing changed" in out) == (0, True)
    assert told(capsys, "reopen", "1", *words)[1]["changed"] is False
    rig.issue("1")
    code, out, _said = run(capsys, "reopen", "1", *words)
    assert (code, "Sharing with partner 1 is refused from now on" in out) == (0, True)
    code, _out, said = run(capsys, "reopen", "11", *words)
    assert (code, "The register has no partner 11." in said) == (2, True)


@pytest.mark.usefixtures("rig")
def test_who_decides_without_a_review_is_not_sent_to_block_the_partner(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The way on is a questionnaire, and a partner in good order stays in it."""
    words = ("--passed", "--by", "E2", "--reason", "as answered")
    code, _out, said = run(capsys, "decide", "1", *words)
    assert (code, "No review of partner 1 is open." in said) == (2, True)
    assert "./parcelseal partners questionnaire 1 --out FILE --by ID" in said
    assert "Only after an incident" in said
    assert told(capsys, "standing", "1")[0] == 0


def test_nothing_is_issued_that_nobody_has(
    rig: Rig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A folder that is not there, a partner without a tier: no review is opened."""
    missing = tmp_path / "nowhere" / "q.xlsx"
    code, _out, said = run(capsys, "questionnaire", "1", "--out", str(missing), "--by", "E1")
    assert (code, "cannot be written: No such file" in said) == (2, True)
    out = str(tmp_path / "q.xlsx")
    code, _out, said = run(capsys, "questionnaire", "2", "--out", out, "--by", "E1")
    assert (code, "of which tier partner 2 is" in said) == (2, True)
    assert told(capsys, "show", "1")[1]["reviews"] == []
    assert not os.path.lexists(out)


def test_a_pack_without_partners_says_so(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what to do."""
    pack = rig.pack.model_copy(update={"sections": {}})
    monkeypatch.setattr(command, "workplace", lambda: SimpleNamespace(pack=pack))
    for words in (("list",), ("standing", "1")):
        code, _out, said = run(capsys, *words)
        assert (code, "has no partners.yaml" in said) == (2, True)
