"""The ``partners`` commands: list, sharing status, and reviews of partners."""

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
from tests.partners.partner_fixtures import PartnersCompany, new_company
from tests.partners.questionnaire_workbooks import SUB_PROCESSORS, edit_workbook, fill_workbook


@pytest.fixture(scope="module")
def company(
    postgres: EmbeddedPostgres, migrated_once: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PartnersCompany]:
    """Yield a company that all tests of this module share."""
    with new_company(postgres, migrated_once, tmp_path_factory.mktemp("pack")) as company:
        yield company


@pytest.fixture
def rig(company: PartnersCompany, monkeypatch: pytest.MonkeyPatch) -> PartnersCompany:
    """Register two partners with the company, and let the commands use its services."""
    company.reset()
    company.add_partner("1")
    company.add_partner("2", company="[red]Süd[/red]", secrecy_to="2026-05-31", grade="9")
    stub = SimpleNamespace(
        pack=company.pack,
        state=company.state,
        clock=FixedClock(company.now),
        role_database=lambda *_: DatabaseAddress.from_conninfo(company.conninfo),
    )
    monkeypatch.setattr(command, "command_services", lambda: stub)
    monkeypatch.setattr(command, "local_stack", nullcontext)
    return company


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run a ``partners`` command and return its exit code, stdout and stderr."""
    code = app._run(["partners", *words])
    output = capsys.readouterr()
    return code, output.out, output.err


def run_json(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    code, out, _err = run(capsys, *words, "--json")
    assert out.count("\n") == 1
    result = json.loads(out)
    assert isinstance(result, dict)
    return code, result


@pytest.mark.usefixtures("rig")
def test_partners_list_shows_obligations_and_faults_of_the_register(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The list also has the faults of the register. Markup in a name is printed literally."""
    code, result = run_json(capsys, "list")
    assert code == 0
    first, second = result["partners"]
    assert (first["partner"], first["allowed"], first["review"]["until"]) == (
        "1", True, "2027-06-01",
    )  # fmt: skip
    assert (second["name"], second["tier"], second["allowed"]) == ("[red]Süd[/red]", None, False)
    assert second["nda"] == {"what": "nda", "until": "2026-05-31", "state": "lapsed"}
    assert [(fault["partner"], fault["code"]) for fault in result["oddities"]] == [
        ("2", "partners.unknown_tier")
    ]
    code, out, _err = run(capsys, "list")
    assert code == 0
    assert "[red]Süd[/red]" in out
    assert "2026-05-31 lapsed" in out
    assert "privacy@" not in out


@pytest.mark.usefixtures("rig")
def test_partners_standing_command_exits_with_1_if_sharing_is_blocked(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The exit code is also 1 for an unknown partner."""
    assert run_json(capsys, "standing", "1") == (
        0,
        {"partner": "1", "allowed": True, "reasons": []},
    )
    code, result = run_json(capsys, "standing", "2")
    assert (code, result["allowed"], len(result["reasons"])) == (1, False, 2)
    code, out, _err = run(capsys, "standing", "2")
    assert code == 1
    assert out.startswith("sharing with partner 2: refused\n  The confidentiality agreement ended")
    assert run_json(capsys, "standing", "nobody")[0] == 1


def test_partner_review_passes_after_returned_questionnaire_and_decision_of_another_person(
    rig: PartnersCompany, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One person issues the questionnaire and returns it; another person decides."""
    file, returned_file = tmp_path / "out.xlsx", tmp_path / "back.xlsx"
    code, result = run_json(capsys, "questionnaire", "1", "--out", str(file), "--by", "E1")
    assert (code, result["file"], result["passed"]) == (0, str(file), None)
    first = file.read_bytes()
    assert run(capsys, "questionnaire", "1", "--out", str(file), "--by", "E1")[0] == 0
    assert file.read_bytes() == first
    answers = {"encryption": "No"}
    returned_file.write_bytes(
        edit_workbook(first, lambda book: fill_workbook(book, answers, rig.today, SUB_PROCESSORS))
    )
    code, out, err = run(capsys, "return", str(returned_file), "--by", "E1")
    assert (code, err) == (0, "")  # its sub-processor is in China
    assert out.startswith("imported: review 1 of partner 1, score 66.66%, which does not pass\n")
    decide = ("decide", "1", "--reason", "as answered")
    assert run(capsys, *decide, "--passed", "--by", "E2")[0] == 2
    returned_file.write_bytes(
        edit_workbook(first, lambda book: fill_workbook(book, {}, rig.today, SUB_PROCESSORS))
    )
    code, result = run_json(capsys, "return", str(returned_file), "--by", "E1")
    assert (code, result["score"], result["passes"]) == (0, "100%", True)
    code, _out, err = run(capsys, *decide, "--passed", "--by", "E1")
    assert (code, "must not decide" in err) == (2, True)
    assert run(capsys, *decide, "--passed", "--failed", "--by", "E2")[0] == 2
    assert run(capsys, *decide, "--by", "E2")[0] == 2
    assert run(capsys, *decide, "--passed", "--by", "E2")[:2] == (
        0, "review 1 of partner 1: passed\n",
    )  # fmt: skip
    code, result = run_json(capsys, "show", "1")
    assert (code, result["allowed"], result["reasons"]) == (0, True, [])
    (review,) = result["reviews"]
    assert (review["passed"], review["decided_by"]) == (True, "E2")
    assert review["sub_processors"] == [
        {"name": "Cloud Ltd", "country": "CN", "what_for": "hosting"}
    ]
    code, out, _err = run(capsys, "show", "1")
    assert code == 0
    assert "Data may be shared with this partner." in out


def test_partners_return_and_decide_commands_warn_of_sub_processors_abroad(
    rig: PartnersCompany, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands `return` and `decide` print the warning on stderr."""
    file, returned_file = tmp_path / "out.xlsx", tmp_path / "back.xlsx"
    run(capsys, "questionnaire", "1", "--out", str(file), "--by", "E1")
    others = (*SUB_PROCESSORS, ("Far Ltd", "[b]Singapore[/b]", "support"))
    returned_file.write_bytes(
        edit_workbook(file.read_bytes(), lambda book: fill_workbook(book, {}, rig.today, others))
    )
    warning = (
        "warning: 1 sub-processors have a country or region other than mainland China "
        "([b]Singapore[/b])."
    )
    code, out, err = run(capsys, "return", str(returned_file), "--by", "E1")
    assert (code, err.startswith(warning), "warning" in out) == (0, True, False)
    decide = ("decide", "1", "--reason", "as answered", "--passed", "--by", "E2")
    code, out, err = run(capsys, *decide)
    assert (code, out, err.startswith(warning)) == (0, "review 1 of partner 1: passed\n", True)
    (review,) = run_json(capsys, "show", "1")[1]["reviews"]
    assert review["sub_processors_abroad"] == 1


def test_partners_return_command_with_faulty_workbook_prints_faults_and_stores_nothing(
    rig: PartnersCompany, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each fault is printed with its sheet and cell, and the exit code is 2."""
    file = tmp_path / "q.xlsx"
    run(capsys, "questionnaire", "1", "--out", str(file), "--by", "E1")
    code, _out, err = run(capsys, "return", str(file), "--by", "E1")
    assert code == 2
    assert "Sheet 问卷 Questionnaire, cell E5: The answer is missing." in err
    assert err.count("The answer is missing") == 4
    assert run_json(capsys, "show", "1")[1]["reviews"][0]["returned_at"] is None
    code, _out, err = run(capsys, "return", str(tmp_path / "none.xlsx"), "--by", "E1")
    assert (code, "cannot be read: No such file" in err) == (2, True)
    file.write_text("no workbook")
    assert run(capsys, "return", str(file), "--by", "E1")[0] == 2


def test_partners_reopen_command_blocks_sharing_with_the_partner_at_once(
    rig: PartnersCompany, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command is refused for an unknown partner."""
    words = ("--because", "records were lost", "--by", "E3")
    code, result = run_json(capsys, "reopen", "1", *words)
    assert (code, result["because"], result["passed"]) == (0, "records were lost", None)
    assert run_json(capsys, "standing", "1")[1]["reasons"] == [
        "The security review was reopened, and there is no decision yet."
    ]
    code, out, _err = run(capsys, "reopen", "1", *words)
    assert (code, "was blocked already; nothing changed" in out) == (0, True)
    assert run_json(capsys, "reopen", "1", *words)[1]["changed"] is False
    rig.issue("1")
    code, out, _err = run(capsys, "reopen", "1", *words)
    assert (code, "Sharing with partner 1 is blocked from now on" in out) == (0, True)
    code, _out, err = run(capsys, "reopen", "11", *words)
    assert (code, "The register has no partner 11." in err) == (2, True)


@pytest.mark.usefixtures("rig")
def test_partners_decide_command_exits_with_2_if_no_review_is_open(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The partner may still receive data."""
    words = ("--passed", "--by", "E2", "--reason", "as answered")
    code, _out, err = run(capsys, "decide", "1", *words)
    assert (code, "No review of partner 1 is open." in err) == (2, True)
    assert "./parcelseal partners questionnaire 1 --out FILE --by ID" in err
    assert "only after an incident" in err
    assert run_json(capsys, "standing", "1")[0] == 0


def test_partners_questionnaire_command_with_invalid_folder_or_partner_opens_no_security_review(
    rig: PartnersCompany, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command is refused for a missing folder, and for a partner without a valid tier."""
    missing = tmp_path / "nowhere" / "q.xlsx"
    code, _out, err = run(capsys, "questionnaire", "1", "--out", str(missing), "--by", "E1")
    assert (code, "cannot be written: No such file" in err) == (2, True)
    out = str(tmp_path / "q.xlsx")
    code, _out, err = run(capsys, "questionnaire", "2", "--out", out, "--by", "E1")
    assert (code, "one valid tier of partner 2" in err) == (2, True)
    assert run_json(capsys, "show", "1")[1]["reviews"] == []
    assert not os.path.lexists(out)


def test_partners_commands_exit_with_2_if_policy_pack_has_no_partners_yaml(
    rig: PartnersCompany, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error states that the policy pack lacks the file."""
    pack = rig.pack.model_copy(update={"sections": {}})
    monkeypatch.setattr(command, "command_services", lambda: SimpleNamespace(pack=pack))
    for words in (("list",), ("standing", "1")):
        code, _out, err = run(capsys, *words)
        assert (code, "has no partners.yaml" in err) == (2, True)
