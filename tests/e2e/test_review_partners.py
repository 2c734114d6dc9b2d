"""`review_partners` as it is run on the sample: what its answer sheet has, told and sealed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.e2e.conftest import Cli

pytestmark = pytest.mark.airflow


def result(done: dict[str, Any]) -> dict[str, Any]:
    return dict(json.loads((Path(done["bundle"]) / "result.json").read_text()))


def planted(cli: Cli, rule: str) -> set[str]:
    sheet = json.loads((cli.home / "sample" / "answer_sheet.json").read_text())
    ranges = sheet["planted"][rule]["ranges"]
    return {str(one) for first, last in ranges for one in range(first, last + 1)}


def test_lapsed_partners_turn_the_run_red_and_sealed(cli: Cli, partners: dict[str, Any]):
    """Those of the answer sheet and none else, with the figures of both controls."""
    assert (partners["state"], partners["outcome"]) == ("failed", "fail")
    sealed = result(partners)
    found: dict[str, set[str]] = {}
    for one in sealed["findings"]:
        if one["code"].startswith("partners."):
            found.setdefault(one["code"], set()).add(one["subject"])
    lapsed = planted(cli, "partner_lapsed_nda")
    assert found == {
        "partners.nda_lapsed": lapsed,
        "partners.agreement_lapsed": lapsed,
        "partners.review_lapsed": planted(cli, "partner_review_overdue"),
    }
    states = {one["id"]: (one["state"], one["value"]) for one in sealed["controls"]}
    assert states == {
        "partners.bound": ("not_held", len(lapsed)),
        "partners.reviewed": ("not_held", 1),
    }
    assert [one["step"] for one in sealed["steps"]] == ["check", "send"]


def test_no_contact_is_in_the_bundle(partners: dict[str, Any]):
    """Number and company name are enough to tell a partner by."""
    for file in Path(partners["bundle"]).iterdir():
        assert b"@partner.example" not in file.read_bytes()
    page = (Path(partners["bundle"]) / "report.zh-CN.html").read_text()
    assert "北方数据处理有限公司" in page


def test_a_second_run_tells_nobody_again(cli: Cli, partners: dict[str, Any]):
    """Every rung is queued once, to the owner and to the partner."""

    def queued() -> list[tuple[str, str]]:
        with psycopg.connect(cli.postgres("parcelseal_state")) as conn:
            query = "SELECT kind, key FROM notice WHERE kind LIKE 'partners.%' ORDER BY 1, 2"
            return conn.execute(query).fetchall()  # type: ignore[return-value]

    before = queued()
    assert {key.split("/")[0] for _kind, key in before} >= {"1", "11", "12", "13"}
    cli.json("run", "review_partners", code=1)
    assert queued() == before


def test_the_command_line_refuses_sharing(cli: Cli, partners: dict[str, Any]):
    """By exit code, at once and without Airflow."""
    assert cli.json("partners", "standing", "1")["allowed"] is True
    refused = cli.json("partners", "standing", "11", code=1)
    assert len(refused["reasons"]) == 2
