"""Test of the incident workflow on the Chinook database, with the GDPR's time limits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from include.service_container import ROOT
from tests.e2e import databases
from tests.e2e.conftest import Cli
from tests.e2e.forked import WITHOUT_PDF
from tests.e2e.test_tabletop import WORDS
from tests.retention.chinook_pack import DATABASE

pytestmark = pytest.mark.airflow

WHAT = "Invoices of 2021 went to other customers"
SINCE, UNTIL = "2021-01-01T00:00:00+08:00", "2021-04-01T00:00:00+08:00"
# Queries that were written without ParcelSeal's code.
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
    """The numbers of affected customers and records in the Chinook database."""
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
    """The result of the incident's run."""
    form = {
        "type": "misdirected", "what": WHAT, "since": SINCE, "until": UNTIL,
        "collections": ["chinook.invoice", "chinook.invoice_line"],
    }  # fmt: skip
    answers = [
        f"{step}={option}:{json.dumps(fields)}" for step, (option, fields) in ANSWERS.items()
    ]
    return cli.json(
        "run",
        "respond_to_incident",
        "--conf",
        json.dumps(form),
        *(argument for answer in answers for argument in ("--answer", answer)),
        AIRFLOW_CONN_CUSTOMER_DB=cli.uri("chinook", "chinook_reader", "reader"),
        PARCELSEAL_POLICY=str(ROOT / "examples" / "packs" / "chinook"),
        **{WITHOUT_PDF: ""},
    )


def test_incident_has_the_team_the_time_limits_and_the_scope_of_the_policy_pack(
    breach: dict[str, Any], counted: tuple[int, int]
) -> None:
    bundle = Path(breach["bundle"])
    result = json.loads((bundle / "result.json").read_text())
    lines = (bundle / "timeline.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    assert {finding["code"] for finding in result["findings"]} == {
        "incident.no_access_log", "notices.local_only",
    }  # fmt: skip
    assert (breach["state"], breach["outcome"]) == ("success", "attention")
    assert all(entry["incident"].startswith("BREACH-") for entry in entries)
    scoped = {step["step"]: step["data"] for step in result["steps"]}["assess"]["scope"]
    (count,) = scoped["counted"]
    assert (count["subjects"], sum(count["records"].values())) == counted
    by = {entry["kind"]: entry["by"] for entry in entries}
    assert {kind: by[kind] for kind in BY} == BY
    assert [entry["data"]["authority"] for entry in entries if entry["kind"] == "reported"] == [
        "supervisory_authority"
    ] * 2
    report = (bundle / "report.en.html").read_text(encoding="utf-8")
    assert "General Data Protection Regulation (2018-05-25), article 33(1)" in report
    assert (
        "does not apply to incidents of this grade" in report
    )  # the GDPR requires notices only at high risk


def test_command_incident_documents_exports_each_document_in_all_formats_and_languages(
    cli: Cli, breach: dict[str, Any], tmp_path: Path
) -> None:
    entry = json.loads((Path(breach["bundle"]) / "timeline.jsonl").read_text().splitlines()[0])
    policy = {"PARCELSEAL_POLICY": str(ROOT / "examples" / "packs" / "chinook")}
    output = cli.json("incident", "documents", entry["incident"], "--out", str(tmp_path), **policy)
    names = {Path(document).name.partition(".") for document in output["documents"]}
    stems = {stem for stem, _, _ in names}
    expected = {"first-supervisory_authority", "rest-supervisory_authority", "summary"}
    assert {stem for stem in stems if not stem.startswith("notice-")} == expected
    kinds = {
        f"{language}.{kind}" for language in ("en", "zh-CN") for kind in ("html", "pdf", "docx")
    }
    for stem in stems:
        assert {end for name, _, end in names if name == stem} == kinds
