"""Tests of an incident drill with the worst scenario, which leaves only its own bundle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
from pypdf import PdfReader

from include.drill_sandbox.schema import sandboxes
from tests.cli.test_errors import RUN_KEYS
from tests.e2e.conftest import Cli
from tests.support.state_snapshot import Snapshot, differences, snapshot

pytestmark = pytest.mark.airflow

SCENARIO = "everything_gone"
WORDS = {
    f"{name}_{language}": words
    for name, texts in {
        "cause": ("A key was in a repository", "密钥出现在代码仓库"),
        "harm": ("Fraud calls", "可能遭遇诈骗电话"),
        "measures": ("Accounts disabled", "已停用账号"),
        "self_help": ("Be wary of calls", "请警惕陌生来电"),
        "next_steps": ("We look at logs", "继续排查日志"),
    }.items()
    for language, words in zip(("en", "zh"), texts, strict=True)
}
CHECKLIST = ("disable_accounts", "change_secrets", "block_sources", "find_traces")
ANSWERS = {
    "contain": ("Contained", dict.fromkeys(CHECKLIST, True)),
    "grade": ("Confirm", {"grade": "especially_major"}),
    "report": ("Handed in", {"receipt": "R-1"}),
    "impact": ("Assessed", WORDS),
    "decide": ("Tell people", {"reason": "The risk is high"}),
    "report_rest": ("Handed in", {"receipt": "R-2"}),
    "close": ("Close", {"words": "The drill is over"}),
    "review": (
        "Reviewed",
        {"lessons": "Scan repositories", "action_1": "Scan daily", "owner_1": "data_engineering"},
    ),
    "summary": ("Handed in or approved", {"receipt": "S-1"}),
}
DOCUMENTS = ("first-cac", "first-postal", "rest-cac", "rest-postal", "summary")
MARK = {"en": "DRILL", "zh-CN": "演练"}


def answered() -> Sequence[str]:
    """Return `--answer` arguments for every step."""
    words = (f"{step}={option}:{json.dumps(fields)}" for step, (option, fields) in ANSWERS.items())
    return [word for answer in words for word in ("--answer", answer)]


def files(home: Path) -> set[str]:
    """Return the files of a home folder, without those of Airflow, servers and logs."""
    folders = [path for path in home.iterdir() if path.name not in ("airflow", "logs", "postgres")]
    paths = {path.relative_to(home) for folder in folders for path in folder.rglob("*")}
    return {str(path) for path in paths if path.suffix not in (".lock", ".log")}


def live(cli: Cli) -> dict[str, Snapshot]:
    """Return snapshots of the state database and of the mapped database."""
    names = {
        "state": cli.services.database("state_db").conninfo(),
        "courier": cli.postgres("courier"),
    }
    return {name: snapshot(conninfo) for name, conninfo in names.items()}


class Drill:
    """The result of the drill, with files and databases before and after it."""

    def __init__(self, cli: Cli) -> None:
        with cli.services.state.connect():  # migrates the state database if no run has done it yet
            pass
        self.files, self.live = files(cli.home), live(cli)
        conf = json.dumps({"tabletop": SCENARIO})
        self.run = cli.json("run", "respond_to_incident", "--conf", conf, *answered())
        self.files_after, self.live_after = files(cli.home), live(cli)
        self.bundle = Path(self.run["bundle"])

    def pdf(self, name: str) -> list[str]:
        """Return the text of each page of a PDF file in the bundle."""
        return [page.extract_text() for page in PdfReader(self.bundle / name).pages]


@pytest.fixture(scope="module")
def drill(cli: Cli) -> Drill:
    return Drill(cli)


def test_tabletop_drill_adds_only_an_evidence_ledger_row_and_an_evidence_bundle(
    cli: Cli, drill: Drill
) -> None:
    """The drill leaves no incident, legal hold, notification, mail, object or database schema.

    The history index is a copy of the results in the bundle.
    """
    assert set(drill.run) == RUN_KEYS
    assert (drill.run["state"], drill.run["outcome"]) == ("success", "pass")
    after = drill.live_after
    changed = differences(drill.live["state"], after["state"])
    tables = {name: rows for name, rows in changed.items() if not name.startswith("sequence ")}
    assert tables == {"public.evidence_ledger": 1, "public.evidence_control": 3}
    assert {name.split()[1] for name in set(changed) - set(tables)} == {
        "public.evidence_control_id_seq"
    }
    assert differences(drill.live["courier"], after["courier"]) == {}
    assert sandboxes(cli.services.state) == []
    inside = str(drill.bundle.relative_to(cli.home))
    new_files = {path for path in drill.files_after - drill.files if not inside.startswith(path)}
    assert new_files
    assert all(path.startswith(inside) for path in new_files)
    assert drill.files <= drill.files_after


def test_evidence_bundle_of_tabletop_drill_is_valid_and_all_its_steps_and_controls_pass(
    cli: Cli, drill: Drill
) -> None:
    """Every step of the drill and the control of the drill pass."""
    assert cli.json("verify", drill.run["bundle"])["verified"] is True
    result = json.loads((drill.bundle / "result.json").read_text())
    steps = {(step["step"], step["part"]): step["outcome"] for step in result["steps"]}
    assert set(steps.values()) == {"pass"}
    assert {step for step, _ in steps} >= {*ANSWERS, "open_incident", "assess", "preserve", "send"}
    assert {control["state"] for control in result["controls"]} == {"held"}
    [decision] = result["approvals"]
    assert decision["decision"] == "Approve"
    kinds = [
        json.loads(line)["kind"]
        for line in (drill.bundle / "timeline.jsonl").read_text().splitlines()
    ]
    assert kinds.count("reported") == 4
    assert kinds[-1] == "summarised"


@pytest.mark.parametrize("language", MARK)
def test_report_of_tabletop_drill_is_marked_as_drill_and_has_the_score_sheet(
    drill: Drill, language: str
) -> None:
    """Every page is marked as a drill, and the scenario is in the reader's language."""
    html = (drill.bundle / f"report.{language}.html").read_text(encoding="utf-8")
    assert html.count(MARK[language]) > 3
    english = language == "en"
    assert ("Score sheet of the drill" if english else "演练评分表") in html
    assert (
        "8 of 8 time limits of the drill were met" if english else "8 项时限中有 8 项按时完成"
    ) in html
    assert ("A forum offers the whole" if english else "某论坛公开出售公司全部客户数据") in html
    pages = drill.pdf(f"report.{language}.pdf")
    assert pages
    assert all(MARK[language] in page for page in pages)


@pytest.mark.parametrize("language", MARK)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_documents_of_tabletop_drill_are_marked_as_drill(
    drill: Drill, name: str, language: str
) -> None:
    """The mark in all three formats prevents that a document is handed in by mistake."""
    stem = f"{name}.{language}"
    assert MARK[language] in (drill.bundle / f"{stem}.html").read_text(encoding="utf-8")
    assert all(MARK[language] in page for page in drill.pdf(f"{stem}.pdf"))
    with ZipFile(drill.bundle / f"{stem}.docx") as parts:
        headed = [
            path for path in parts.namelist() if "header" in path or path.endswith("document.xml")
        ]
        assert any(MARK[language] in parts.read(path).decode() for path in headed)


def test_incident_list_omits_the_tabletop_drill(cli: Cli, drill: Drill) -> None:
    """A drill uses no incident number of the register."""
    listed: dict[str, Any] = cli.json("incident", "list")
    assert all(incident["run_id"] != drill.run["run_id"] for incident in listed["incidents"])
