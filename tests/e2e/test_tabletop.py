"""A tabletop of the worst scenario: every step is played, and only its own bundle is left."""

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
    for name, said in {
        "cause": ("A key was in a repository", "密钥出现在代码仓库"),
        "harm": ("Fraud calls", "可能遭遇诈骗电话"),
        "measures": ("Accounts disabled", "已停用账号"),
        "self_help": ("Be wary of calls", "请警惕陌生来电"),
        "next_steps": ("We look at logs", "继续排查日志"),
    }.items()
    for language, words in zip(("en", "zh"), said, strict=True)
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
    """`--answer` of every step."""
    words = (f"{step}={option}:{json.dumps(given)}" for step, (option, given) in ANSWERS.items())
    return [one for answer in words for one in ("--answer", answer)]


def files(home: Path) -> set[str]:
    """All that lies in stores and mail boxes; not what Airflow, servers and their logs write."""
    folders = [one for one in home.iterdir() if one.name not in ("airflow", "logs", "postgres")]
    found = {path.relative_to(home) for one in folders for path in one.rglob("*")}
    return {str(one) for one in found if one.suffix not in (".lock", ".log")}


def live(cli: Cli) -> dict[str, Snapshot]:
    """The state, and the mapped database."""
    names = {"state": cli.place.database("state_db").conninfo(), "courier": cli.postgres("courier")}
    return {name: snapshot(conninfo) for name, conninfo in names.items()}


class Drill:
    """The drill, and what was there before and after it."""

    def __init__(self, cli: Cli) -> None:
        with cli.place.state.connect():  # at its newest revision, also where nothing ran before
            pass
        self.files, self.live = files(cli.home), live(cli)
        conf = json.dumps({"tabletop": SCENARIO})
        self.run = cli.json("run", "respond_to_incident", "--conf", conf, *answered())
        self.files_after, self.live_after = files(cli.home), live(cli)
        self.bundle = Path(self.run["bundle"])

    def pdf(self, name: str) -> list[str]:
        """Text of each page."""
        return [page.extract_text() for page in PdfReader(self.bundle / name).pages]


@pytest.fixture(scope="module")
def drill(cli: Cli) -> Drill:
    return Drill(cli)


def test_of_a_drill_one_row_of_the_ledger_and_its_bundle_are_left(cli: Cli, drill: Drill) -> None:
    """No incident, no hold, no notice, no request, no number; no mail, no object; no schema."""
    assert set(drill.run) == RUN_KEYS
    assert (drill.run["state"], drill.run["outcome"]) == ("success", "pass")
    after = drill.live_after
    assert differences(drill.live["state"], after["state"]) == {"public.evidence_ledger": 1}
    assert differences(drill.live["courier"], after["courier"]) == {}
    assert sandboxes(cli.place.state) == []
    inside = str(drill.bundle.relative_to(cli.home))
    made = {one for one in drill.files_after - drill.files if not inside.startswith(one)}
    assert made
    assert all(one.startswith(inside) for one in made)
    assert drill.files <= drill.files_after


def test_its_bundle_is_sealed_as_any_other(cli: Cli, drill: Drill) -> None:
    """And the controls that it shows are held."""
    assert cli.json("verify", drill.run["bundle"])["verified"] is True
    result = json.loads((drill.bundle / "result.json").read_text())
    steps = {(one["step"], one["part"]): one["outcome"] for one in result["steps"]}
    assert set(steps.values()) == {"pass"}
    assert {step for step, _ in steps} >= {*ANSWERS, "open_incident", "assess", "preserve", "send"}
    assert {one["state"] for one in result["controls"]} == {"held"}
    [decision] = result["approvals"]
    assert decision["decision"] == "Approve"
    kinds = [
        json.loads(line)["kind"]
        for line in (drill.bundle / "timeline.jsonl").read_text().splitlines()
    ]
    assert kinds.count("reported") == 4
    assert kinds[-1] == "summarised"


@pytest.mark.parametrize("language", MARK)
def test_the_report_says_that_it_was_a_drill_and_has_the_score_sheet(
    drill: Drill, language: str
) -> None:
    """On every page; the story is in the reader's language."""
    html = (drill.bundle / f"report.{language}.html").read_text(encoding="utf-8")
    assert html.count(MARK[language]) > 3
    english = language == "en"
    assert ("Score sheet" if english else "评分表") in html
    assert ("8 of 8 clocks were met" if english else "8 项时限中有 8 项按时完成") in html
    assert ("A forum offers the whole" if english else "某论坛公开出售公司全部客户数据") in html
    pages = drill.pdf(f"report.{language}.pdf")
    assert pages
    assert all(MARK[language] in page for page in pages)


@pytest.mark.parametrize("language", MARK)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_document_is_marked_as_a_drills(drill: Drill, name: str, language: str) -> None:
    """In all three forms, so that nobody hands it in."""
    stem = f"{name}.{language}"
    assert MARK[language] in (drill.bundle / f"{stem}.html").read_text(encoding="utf-8")
    assert all(MARK[language] in page for page in drill.pdf(f"{stem}.pdf"))
    with ZipFile(drill.bundle / f"{stem}.docx") as parts:
        headed = [
            one for one in parts.namelist() if "header" in one or one.endswith("document.xml")
        ]
        assert any(MARK[language] in parts.read(one).decode() for one in headed)


def test_the_command_line_knows_of_no_incident(cli: Cli, drill: Drill) -> None:
    """Its number is free for the first real one."""
    listed: dict[str, Any] = cli.json("incident", "list")
    assert all(one["run_id"] != drill.run["run_id"] for one in listed["incidents"])
