"""Tests of `review_partners` on the sample: findings, notifications and evidence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.e2e.conftest import Cli

pytestmark = pytest.mark.airflow


def result(run: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads((Path(run["bundle"]) / "result.json").read_text()))


def planted(cli: Cli, rule: str) -> set[str]:
    sheet = json.loads((cli.home / "sample" / "answer_sheet.json").read_text())
    ranges = sheet["planted"][rule]["ranges"]
    return {str(number) for first, last in ranges for number in range(first, last + 1)}


def test_run_with_lapsed_partner_agreements_fails_and_is_sealed(cli: Cli, partners: dict[str, Any]):
    """The findings are those that the answer sheet lists."""
    assert (partners["state"], partners["outcome"]) == ("failed", "fail")
    sealed = result(partners)
    subjects: dict[str, set[str]] = {}
    for finding in sealed["findings"]:
        if finding["code"].startswith("partners."):
            subjects.setdefault(finding["code"], set()).add(finding["subject"])
    lapsed = planted(cli, "partner_lapsed_nda")
    assert subjects == {
        "partners.nda_lapsed": lapsed,
        "partners.agreement_lapsed": lapsed,
        "partners.review_lapsed": planted(cli, "partner_review_overdue"),
    }
    states = {control["id"]: (control["state"], control["value"]) for control in sealed["controls"]}
    assert states == {
        "partners.bound": ("not_held", len(lapsed)),
        "partners.reviewed": ("not_held", 1),
    }
    assert [step["step"] for step in sealed["steps"]] == ["check", "send"]


def test_bundle_has_no_partner_contacts(partners: dict[str, Any]):
    """The number and the company name are enough to identify a partner."""
    for file in Path(partners["bundle"]).iterdir():
        assert b"@partner.example" not in file.read_bytes()
    page = (Path(partners["bundle"]) / "report.zh-CN.html").read_text()
    assert "北方数据处理有限公司" in page


def test_second_review_partners_run_queues_no_further_notification(
    cli: Cli, partners: dict[str, Any]
):
    """Each reminder stage is queued once for the owner and once for the partner."""

    def queued() -> list[tuple[str, str]]:
        with psycopg.connect(cli.postgres("parcelseal_state")) as conn:
            query = "SELECT kind, key FROM notification WHERE kind LIKE 'partners.%' ORDER BY 1, 2"
            return conn.execute(query).fetchall()  # type: ignore[return-value]

    before = queued()
    assert {key.split("/")[0] for _kind, key in before} >= {"1", "11", "12", "13"}
    cli.json("run", "review_partners", code=1)
    assert queued() == before


def test_findings_of_two_runs_enter_the_register_once_each(cli: Cli, partners: dict[str, Any]):
    """The runs are complete although the control failed, so they could also close findings."""
    sealed = result(partners)
    assert sealed["is_complete"] is True
    assert all(step["coverage"] is not None for step in sealed["steps"])
    partner = "partners."  # a run that sends no mail closes the finding about the mail server
    reported = {
        (finding["code"], finding["subject"])
        for finding in sealed["findings"]
        if finding["code"].startswith(partner)
    }

    def entries() -> list[tuple[str, str]]:
        listed = cli.json("findings", "list")["findings"]
        return sorted(
            (entry["code"], entry["subject"])
            for entry in listed
            if entry["workflow"] == "review_partners" and entry["code"].startswith(partner)
        )

    assert entries() == sorted(reported)
    cli.json("run", "review_partners", code=1)
    assert entries() == sorted(reported)
    listed = cli.json("findings", "list")["findings"]
    opened = [entry for entry in listed if entry["workflow"] == "review_partners"]
    assert {entry["owner"] for entry in opened} == {"compliance"}
    assert all(Path(cli.home, "evidence", entry["opened_in"]).exists() for entry in opened)


def test_command_partners_standing_exits_with_1_if_the_partner_agreement_has_expired(
    cli: Cli, partners: dict[str, Any]
):
    """The command answers with its exit code, at once and without Airflow."""
    assert cli.json("partners", "standing", "1")["allowed"] is True
    refused = cli.json("partners", "standing", "11", code=1)
    assert len(refused["reasons"]) == 2
