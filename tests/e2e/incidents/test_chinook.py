"""The same workflow on a database nobody here designed, by a pack with the GDPR's clocks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.workplace import ROOT
from tests.e2e import databases
from tests.e2e.conftest import Cli
from tests.e2e.forked import WITHOUT_PDF
from tests.e2e.test_tabletop import WORDS
from tests.retention.chinook import DATABASE

pytestmark = pytest.mark.airflow

WHAT = "Invoices of 2021 went to other customers"
SINCE, UNTIL = "2021-01-01T00:00:00+08:00", "2021-04-01T00:00:00+08:00"
# Written without ParcelSeal's help.
AFFECTED = """
SELECT count(DISTINCT customer_id), count(*) FROM invoice
WHERE invoice_date >= '2021-01-01' AND invoice_date < '2021-04-01'
"""
LINES = """
SELECT count(*) FROM invoice_line JOIN invoice USING (invoice_id)
WHERE invoice_date >= '2021-01-01' AND invoice_date < '2021-04-01'
"""
ANSWERS = {
    "contain": ("Contained", {"recall": True, "list_invoices": True}),
    "grade": ("Confirm", {"grade": "risk"}),
    "report": ("Handed in", {"receipt": "SA-1"}),
    "impact": ("Assessed", WORDS),
    "decide": ("Do not tell", {"reason": "They sent them back, and the risk is low"}),
    "report_rest": ("Handed in", {"receipt": "SA-2"}),
    "close": ("Close", {"words": "It is over"}),
    "review": ("Reviewed", {"lessons": "The merge of two lists was wrong"}),
    "summary": ("Handed in or approved", {"receipt": "SA-3"}),
}
BY = {
    "contained": "ben", "graded": "cleo", "impact": "dora", "decided": "emil", "closed": "ada",
    "reviewed": "ada", "summarised": "cleo",
}  # fmt: skip


@pytest.fixture(scope="module")
def counted(cli: Cli) -> tuple[int, int]:
    """Chinook, and how many customers and records are affected in it."""
    script = DATABASE.read_text(encoding="utf-8")
    databases.make(cli.postgres("postgres"), "chinook", script, "chinook_reader", "reader")
    with psycopg.connect(cli.postgres("chinook")) as connection:
        people, invoices = connection.execute(AFFECTED).fetchone() or (0, 0)
        (lines,) = connection.execute(LINES).fetchone() or (0,)
        (customers,) = connection.execute("SELECT count(*) FROM customer").fetchone() or (0,)
    assert 0 < people < customers
    return people, invoices + lines


@pytest.fixture(scope="module")
def breach(cli: Cli, counted: tuple[int, int]) -> dict[str, Any]:
    """The incident, led to its end."""
    form = {
        "type": "misdirected", "what": WHAT, "since": SINCE, "until": UNTIL,
        "collections": ["chinook.invoice", "chinook.invoice_line"],
    }  # fmt: skip
    answers = [f"{step}={option}:{json.dumps(given)}" for step, (option, given) in ANSWERS.items()]
    return cli.json(
        "run",
        "respond_to_incident",
        "--conf",
        json.dumps(form),
        *(one for answer in answers for one in ("--answer", answer)),
        AIRFLOW_CONN_CUSTOMER_DB=cli.uri("chinook", "chinook_reader", "reader"),
        PARCELSEAL_POLICY=str(ROOT / "examples" / "packs" / "chinook"),
        **{WITHOUT_PDF: ""},
    )


def test_the_workflow_runs_with_the_packs_own_people_clocks_and_figures(
    breach: dict[str, Any], counted: tuple[int, int]
) -> None:
    """No log of accesses is kept: that needs a look, and nothing else does."""
    bundle = Path(breach["bundle"])
    result = json.loads((bundle / "result.json").read_text())
    lines = (bundle / "timeline.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(one) for one in lines]
    assert {one["code"] for one in result["findings"]} == {
        "incident.no_access_log", "notices.local_only",
    }  # fmt: skip
    assert (breach["state"], breach["outcome"]) == ("success", "attention")
    assert all(one["incident"].startswith("BREACH-") for one in entries)
    scoped = {step["step"]: step["data"] for step in result["steps"]}["assess"]["scope"]
    (found,) = scoped["counted"]
    assert (found["subjects"], sum(found["records"].values())) == counted
    by = {one["kind"]: one["by"] for one in entries}
    assert {kind: by[kind] for kind in BY} == BY
    assert [one["data"]["authority"] for one in entries if one["kind"] == "reported"] == [
        "supervisory_authority"
    ] * 2
    report = (bundle / "report.en.html").read_text(encoding="utf-8")
    assert "General Data Protection Regulation (2018-05-25) 33(1)" in report
    assert "not for this grade" in report  # who is told is a matter of high risk


def test_its_documents_can_be_taken_out_by_command(
    cli: Cli, breach: dict[str, Any], tmp_path: Path
) -> None:
    """In three forms and two languages, as they were sealed before they were handed in."""
    entry = json.loads((Path(breach["bundle"]) / "timeline.jsonl").read_text().splitlines()[0])
    policy = {"PARCELSEAL_POLICY": str(ROOT / "examples" / "packs" / "chinook")}
    told = cli.json("incident", "documents", entry["incident"], "--out", str(tmp_path), **policy)
    names = {Path(one).name.partition(".") for one in told["documents"]}
    stems = {stem for stem, _, _ in names}
    wanted = {"first-supervisory_authority", "rest-supervisory_authority", "summary"}
    assert {one for one in stems if not one.startswith("notice-")} == wanted
    kinds = {
        f"{language}.{kind}" for language in ("en", "zh-CN") for kind in ("html", "pdf", "docx")
    }
    for stem in stems:
        assert {end for name, _, end in names if name == stem} == kinds
