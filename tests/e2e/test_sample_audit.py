"""Tests of a sample audit from draw to conclusion, with corrective actions and retests."""

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
from include.sampling.issue import IssuedWorkpapers
from include.sampling.rules import AUDIT
from include.service_container import ROOT
from tests.cli.test_errors import RUN_KEYS
from tests.e2e.audited import STAGED, Audited, completed_workpapers
from tests.e2e.conftest import Cli

pytestmark = pytest.mark.airflow

ANSWERED, TESTED = "E00012", "E00007"
RISK = 0.05


def sealed(run: dict[str, Any]) -> dict[str, Any]:
    result = json.loads((Path(run["bundle"]) / "result.json").read_text())
    assert isinstance(result, dict)
    return result


def verdicts(run: dict[str, Any]) -> dict[str, Verdict]:
    """Return the verdicts of a run, by population."""
    (file,) = Path(run["bundle"]).glob("verdicts-*.json")
    return {
        load["population"]: Verdict.model_validate(load) for load in json.loads(file.read_text())
    }


def decided(issued: IssuedWorkpapers, name: str, by_stage: list[int]) -> str:
    """Return the decision on a population, computed with SciPy's distributions.

    The probability is that of the observed deviations at the tolerable rate. For a population in
    strata, independent trials with the smallest sampling rate of all strata replace the draws
    (Hoeffding).

    Args:
        issued: issued workpapers.
        name: id of the population.
        by_stage: number of deviations in each stage.
    """
    from scipy import stats  # takes a second, which only this test needs

    committed = issued.committed[name]
    too_many, drawn = (
        ceil(committed.tolerable * committed.items),
        sum(committed.plan.drawn.values()),
    )
    if committed.plan.stages == 2:
        return {0: "accepted", 1: "next_stage"}.get(by_stage[0], "not_accepted")
    if committed.stratified:
        thinnest = min(
            committed.plan.drawn[stratum] / size for stratum, size in committed.strata.items()
        )
        rate = float(committed.tolerable) * thinnest * committed.items / drawn
        chance = stats.binom.cdf(by_stage[0], drawn, rate)
    else:
        chance = stats.hypergeom.cdf(by_stage[0], committed.items, too_many, drawn)
    return "accepted" if chance <= RISK else "not_accepted"


def test_sealed_sample_draw_is_reproduced_by_command_sampling_verify_and_documented_script(
    cli: Cli, audited: Audited
) -> None:
    """`sampling verify` and the script in docs/how-to/verify-a-sample.md repeat the draw.

    The commitment is also in its own bundle.
    """
    run = audited.drawn
    assert set(run) == RUN_KEYS
    assert (run["state"], run["error"]) == ("success", None)
    assert run["outcome"] in {"pass", "attention"}
    seed = json.loads((Path(run["bundle"]) / "seed.json").read_text())
    assert seed["seed"] == audited.seed
    commitments = (cli.home / "evidence" / "sample_commitment").rglob("commitment.json")
    assert (Path(run["bundle"]) / "commitment.json").read_bytes() in {
        commitment.read_bytes() for commitment in commitments
    }
    assert cli.json("sampling", "verify", run["bundle"], **audited.environment)["verified"] is True
    page = (ROOT / "docs" / "how-to" / "verify-a-sample.md").read_text(encoding="utf-8")
    [script] = re.findall(r"```python\n(import hashlib, json, pathlib, sys\n.*?)```", page, re.S)
    completed = subprocess.run(
        [sys.executable, "-I", "-c", script, run["bundle"]],
        check=False,
        capture_output=True,
        text=True,
    )
    assert completed.returncode == 0, completed.stderr
    assert STAGED in completed.stdout


def test_audit_result_contains_exactly_the_deliberate_deviations_in_the_drawn_sample(
    cli: Cli, audited: Audited
) -> None:
    """The verdicts list exactly the drawn items that deviate, each with its attribute."""
    first = audited.issued(cli)[0]
    result = verdicts(audited.concluded)
    assert set(result) == set(first.samples)
    for name, verdict in result.items():
        expected = {
            (item.key, attribute)
            for item in first.samples[name].of_stage(1)
            for (population, attribute), ids in audited.broken.items()
            if population == name and item.key in ids
        }
        assert {
            (deviation.key, deviation.attribute) for deviation in verdict.deviations
        } == expected
        assert verdict.deviating == len({key for key, _attribute in expected})
    assert result["accesses"].deviating > 1


def test_audit_decisions_equal_those_of_an_independent_computation(
    cli: Cli, audited: Audited
) -> None:
    """One deviation in the first stage of the two-stage plan requires its second stage."""
    first = audited.issued(cli)[0]
    result = verdicts(audited.concluded)
    for name, verdict in result.items():
        assert verdict.decision == decided(first, name, [verdict.deviating]), name
    assert result[STAGED].decision == "next_stage"
    assert result["accesses"].decision == "not_accepted"
    codes = {
        (finding["code"], finding["subject"]) for finding in sealed(audited.concluded)["findings"]
    }
    assert ("sampling.not_accepted", "accesses") in codes
    assert "sampling.next_stage" in {code for code, _subject in codes}


def test_every_deviation_is_a_finding_whose_owner_is_reminded(cli: Cli, audited: Audited) -> None:
    """The owner of the population is reminded, even if a second stage follows."""
    rules = load_pack(Path(audited.environment["PARCELSEAL_POLICY"])).section(AUDIT)
    assert rules is not None
    owners = {population.id: population.owner for population in rules.populations}
    result = {finding["reference"]: finding["owner"] for finding in opened(cli, audited)}
    assert result == {
        f"{audited.audit}/{name}/{deviation.number}/{deviation.attribute}": owners[name]
        for name, verdict in verdicts(audited.concluded).items()
        for deviation in verdict.deviations
    }
    (followed,) = [
        step["data"] for step in sealed(audited.concluded)["steps"] if step["step"] == "follow_up"
    ]
    assert len(followed["reminded"]) == len(result)


def opened(cli: Cli, audited: Audited) -> list[dict[str, Any]]:
    """Return the open findings of the audit, without those that runs reported."""
    listed = cli.json("findings", "list", **audited.environment)["findings"]
    return [finding for finding in listed if finding["kind"] == "audit"]


@pytest.fixture(scope="module")
def corrected(cli: Cli, audited: Audited) -> dict[str, Any]:
    """The output of the commands that answered and retested the first finding.

    All other findings were answered and retested too.
    """
    first, *others = [finding["id"] for finding in opened(cli, audited)]
    cause = ("--cause", "No deputy was named", "--action", "Deputies are named", "--by", ANSWERED)
    answers = {
        "unanswered": cli.json("findings", "retest", str(first), "--met", "--by", TESTED, code=2),
        "answered": cli.json("findings", "answer", str(first), *cause),
        "own": cli.json("findings", "retest", str(first), "--met", "--by", ANSWERED, code=2),
        "met": cli.json("findings", "retest", str(first), "--met", "--by", TESTED),
    }
    now = cli.services.clock.now()
    with cli.services.state.begin() as conn:
        for number in others:
            register.answer(conn, number, cause="As 1", action="As 1", by=ANSWERED, at=now)
            register.retest(conn, number, met=True, by=TESTED, at=now)
    return answers


def test_finding_is_closed_only_by_retest_of_another_person(corrected: dict[str, Any]) -> None:
    """A retest without a corrective action, or by the person who answered, is refused."""
    assert "no corrective action yet" in corrected["unanswered"]["error"]
    assert corrected["answered"]["state"] == "answered"
    assert "cannot retest it" in corrected["own"]["error"]
    assert (corrected["met"]["state"], corrected["met"]["closed_by"]) == ("closed", TESTED)


@pytest.fixture(scope="module")
def second_stage(
    cli: Cli, audited: Audited, corrected: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The conclusion after the workpapers of the second stage were returned without a deviation."""
    (blank,) = Path(audited.concluded["bundle"]).glob("workpapers-*.xlsx")
    second = audited.issued(cli)[1]
    file = tmp_path_factory.mktemp("papers") / "second.xlsx"
    file.write_bytes(completed_workpapers(cli, audited, second, blank))
    taken = cli.json("sampling", "return", str(file), "--by", "E00020", **audited.environment)
    assert (taken["stage"], taken["items"]) == (2, len(second.samples[STAGED].of_stage(2)))
    return cli.json("run", "conclude_audit", **audited.environment)


def test_population_is_accepted_if_the_second_sampling_stage_has_no_deviations(
    second_stage: dict[str, Any],
) -> None:
    """The deviation of the first stage remains a finding, but the run does not fail."""
    (verdict,) = verdicts(second_stage).values()
    assert (verdict.population, verdict.stage) == (STAGED, 2)
    assert (verdict.decision, verdict.deviating) == ("accepted", 1)
    assert float(verdict.upper_limit) <= float(verdict.tolerable)
    assert (second_stage["state"], second_stage["outcome"]) == ("success", "attention")
    codes = [finding["code"] for finding in sealed(second_stage)["findings"]]
    assert codes == ["sampling.deviations"]


def test_conclude_audit_run_passes_without_findings_after_corrective_actions(
    cli: Cli, audited: Audited, second_stage: dict[str, Any]
) -> None:
    """No finding is open, no population is left to evaluate, and every bundle verifies."""
    assert opened(cli, audited) == []
    run = cli.json("run", "conclude_audit", **audited.environment)
    assert (run["state"], run["outcome"], run["findings"]) == ("success", "pass", 0)
    assert cli.json("verify", "--all", **audited.environment)["verified"] is True
