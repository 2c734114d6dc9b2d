"""An audit by samples as people do it: drawn, looked at, concluded, mended, tested again."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from math import ceil
from pathlib import Path
from typing import Any

import pytest

from include.findings import register
from include.registry import load_pack
from include.sampling.evaluation import Verdict
from include.sampling.issue import Issued
from include.sampling.rules import AUDIT
from include.workplace import ROOT
from tests.cli.test_errors import RUN_KEYS
from tests.e2e.audited import STAGED, Audited, looked_at
from tests.e2e.conftest import Cli

pytestmark = pytest.mark.airflow

ANSWERED, TESTED = "E00012", "E00007"
RISK = 0.05


def sealed(run: dict[str, Any]) -> dict[str, Any]:
    found = json.loads((Path(run["bundle"]) / "result.json").read_text())
    assert isinstance(found, dict)
    return found


def verdicts(run: dict[str, Any]) -> dict[str, Verdict]:
    """What a run came to, by population."""
    (file,) = Path(run["bundle"]).glob("verdicts-*.json")
    return {one["population"]: Verdict.model_validate(one) for one in json.loads(file.read_text())}


def decided(issued: Issued, name: str, by_stage: list[int]) -> str:
    """Decide by SciPy's distributions: how surely would a population at the tolerable rate show it.

    In strata, independent trials with the density of the thinnest stratum stand in (Hoeffding).
    """
    from scipy import stats  # a second of imports, which every worker would pay

    one = issued.committed[name]
    too_many, drawn = ceil(one.tolerable * one.items), sum(one.plan.drawn.values())
    if one.plan.stages == 2:
        return {0: "accepted", 1: "next_stage"}.get(by_stage[0], "not_accepted")
    if one.stratified:
        thinnest = min(one.plan.drawn[stratum] / size for stratum, size in one.strata.items())
        rate = float(one.tolerable) * thinnest * one.items / drawn
        chance = stats.binom.cdf(by_stage[0], drawn, rate)
    else:
        chance = stats.hypergeom.cdf(by_stage[0], one.items, too_many, drawn)
    return "accepted" if chance <= RISK else "not_accepted"


def test_a_draw_is_sealed_and_drawn_again(cli: Cli, audited: Audited) -> None:
    """By `sampling verify`, by the script of the page, and the commitment has its own bundle."""
    run = audited.drawn
    assert set(run) == RUN_KEYS
    assert (run["state"], run["error"]) == ("success", None)
    assert run["outcome"] in {"pass", "attention"}
    seed = json.loads((Path(run["bundle"]) / "seed.json").read_text())
    assert seed["seed"] == audited.seed
    commitments = (cli.home / "evidence" / "sample_commitment").rglob("commitment.json")
    assert (Path(run["bundle"]) / "commitment.json").read_bytes() in {
        one.read_bytes() for one in commitments
    }
    assert cli.json("sampling", "verify", run["bundle"], **audited.environment)["verified"] is True
    page = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
    [script] = re.findall(r"```python\n(import hashlib, json, pathlib, sys\n.*?)```", page, re.S)
    done = subprocess.run(
        [sys.executable, "-I", "-c", script, run["bundle"]],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert STAGED in done.stdout


def test_deviations_are_those_of_the_answer_sheet(cli: Cli, audited: Audited) -> None:
    """Of each population just the drawn items that deviate, each with its attribute."""
    first = audited.issued(cli)[0]
    found = verdicts(audited.concluded)
    assert set(found) == set(first.samples)
    for name, verdict in found.items():
        wanted = {
            (item.key, attribute)
            for item in first.samples[name].of_stage(1)
            for (population, attribute), ids in audited.broken.items()
            if population == name and item.key in ids
        }
        assert {(one.key, one.attribute) for one in verdict.deviations} == wanted
        assert verdict.deviating == len({key for key, _attribute in wanted})
    assert found["accesses"].deviating > 1


def test_decisions_are_those_of_an_independent_computation(cli: Cli, audited: Audited) -> None:
    """One exact deviation of the staged population calls for its second stage."""
    first = audited.issued(cli)[0]
    found = verdicts(audited.concluded)
    for name, verdict in found.items():
        assert verdict.decision == decided(first, name, [verdict.deviating]), name
    assert found[STAGED].decision == "next_stage"
    assert found["accesses"].decision == "not_accepted"
    codes = {(one["code"], one["subject"]) for one in sealed(audited.concluded)["findings"]}
    assert ("sampling.not_accepted", "accesses") in codes
    assert "sampling.next_stage" in {code for code, _subject in codes}


def test_every_deviation_is_a_finding_whose_owner_is_reminded(cli: Cli, audited: Audited) -> None:
    """With the population's owner and a day, also where a second stage is still to come."""
    rules = load_pack(Path(audited.environment["PARCELSEAL_POLICY"])).section(AUDIT)
    assert rules is not None
    owners = {one.id: one.owner for one in rules.populations}
    found = {one["reference"]: one["owner"] for one in opened(cli, audited)}
    assert found == {
        f"{audited.audit}/{name}/{one.number}/{one.attribute}": owners[name]
        for name, verdict in verdicts(audited.concluded).items()
        for one in verdict.deviations
    }
    (followed,) = [
        one["data"] for one in sealed(audited.concluded)["steps"] if one["step"] == "follow_up"
    ]
    assert len(followed["reminded"]) == len(found)


def opened(cli: Cli, audited: Audited) -> list[dict[str, Any]]:
    found = cli.json("findings", "list", **audited.environment)["findings"]
    assert isinstance(found, list)
    return found


@pytest.fixture(scope="module")
def mended(cli: Cli, audited: Audited) -> dict[str, Any]:
    """Every finding is answered and tested again; one of them with a failed test between.

    Returns:
        What the command line said to each step of the first one.
    """
    first, *others = [one["id"] for one in opened(cli, audited)]
    cause = ("--cause", "No deputy was named", "--action", "Deputies are named", "--by", ANSWERED)
    said = {
        "unanswered": cli.json("findings", "retest", str(first), "--met", "--by", TESTED, code=2),
        "answered": cli.json("findings", "answer", str(first), *cause),
        "own": cli.json("findings", "retest", str(first), "--met", "--by", ANSWERED, code=2),
        "met": cli.json("findings", "retest", str(first), "--met", "--by", TESTED),
    }
    now = cli.place.clock.now()
    with cli.place.state.begin() as conn:
        for one in others:
            register.answer(conn, one, cause="As 1", action="As 1", by=ANSWERED, at=now)
            register.retest(conn, one, met=True, by=TESTED, at=now)
    return said


def test_only_another_persons_retest_closes_a_finding(mended: dict[str, Any]) -> None:
    """Neither before there is an answer nor by who answered."""
    assert "no corrective action yet" in mended["unanswered"]["error"]
    assert mended["answered"]["state"] == "answered"
    assert "cannot test it" in mended["own"]["error"]
    assert (mended["met"]["state"], mended["met"]["closed_by"]) == ("closed", TESTED)


@pytest.fixture(scope="module")
def second_stage(
    cli: Cli, audited: Audited, mended: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The conclusion after the second stage's workpapers came back, without a deviation."""
    (blank,) = Path(audited.concluded["bundle"]).glob("workpapers-*.xlsx")
    second = audited.issued(cli)[1]
    file = tmp_path_factory.mktemp("papers") / "second.xlsx"
    file.write_bytes(looked_at(cli, audited, second, blank))
    taken = cli.json("sampling", "return", str(file), "--by", "E00020", **audited.environment)
    assert (taken["stage"], taken["items"]) == (2, len(second.samples[STAGED].of_stage(2)))
    return cli.json("run", "conclude_audit", **audited.environment)


def test_a_clean_second_stage_accepts(second_stage: dict[str, Any]) -> None:
    """The deviation of the first stage is a finding all the same; the run is not red."""
    (verdict,) = verdicts(second_stage).values()
    assert (verdict.population, verdict.stage) == (STAGED, 2)
    assert (verdict.decision, verdict.deviating) == ("accepted", 1)
    assert float(verdict.upper_limit) <= float(verdict.tolerable)
    assert (second_stage["state"], second_stage["outcome"]) == ("success", "attention")
    codes = [one["code"] for one in sealed(second_stage)["findings"]]
    assert codes == ["sampling.deviations"]


def test_with_everything_mended_the_conclusion_is_green_and_verified(
    cli: Cli, audited: Audited, second_stage: dict[str, Any]
) -> None:
    """No finding is open, nothing is left to judge, and every bundle verifies."""
    assert opened(cli, audited) == []
    run = cli.json("run", "conclude_audit", **audited.environment)
    assert (run["state"], run["outcome"], run["findings"]) == ("success", "pass", 0)
    assert cli.json("verify", "--all", **audited.environment)["verified"] is True
