"""A control passes only if its figure was measured and meets its target."""

from __future__ import annotations

import pytest

from include.evidence.model import ControlState, Metric, Outcome, judge, unexplained
from include.policy.rules import Control, Role


def control(target: str = "= 0") -> Control:
    return Control.model_validate(
        {
            "id": "backup.offsite",
            "clause": "4.2",
            "title": {"en": "Backed up", "zh-CN": "已备份"},
            "workflow": "backup_offsite",
            "cadence": "P1D",
            "indicator": {"name": "missing", "target": target},
            "sources": [{"instrument": "PIPL", "version": "2021-11-01", "article": "51"}],
        }
    )


def figure(value: float | None, subject: str = "") -> Metric:
    return Metric(name="missing", value=value, unit="1", subject=subject)


@pytest.mark.parametrize(
    ("metrics", "state"),
    [
        ([figure(0)], ControlState.PASSED),
        ([figure(1)], ControlState.FAILED),
        ([figure(None)], ControlState.NO_EVIDENCE),
        ([], ControlState.NO_EVIDENCE),
        ([figure(0, "courier")], ControlState.NO_EVIDENCE),
        ([Metric(name="other", value=0, unit="1")], ControlState.NO_EVIDENCE),
    ],
)
def test_control_state_is_computed_only_from_the_figure_of_the_whole_run(
    metrics: list[Metric], state: ControlState
) -> None:
    """The figure of a single database says nothing about all databases."""
    (judged,) = judge([control()], metrics)
    assert judged.state is state
    assert (judged.indicator, judged.target, judged.clause) == ("missing", "= 0", "4.2")


def test_control_state_names_the_title_of_the_owner_if_the_pack_has_the_role() -> None:
    owned = control().model_copy(update={"owner": "it"})
    role = Role(id="it", title={"en": "IT", "zh-CN": "信息技术部"})
    assert judge([owned], [], {"it": role})[0].owner == role.message
    assert judge([owned], [])[0].owner is None
    assert judge([control()], [], {"it": role})[0].owner is None


@pytest.mark.parametrize(
    ("outcome", "codes"),
    [
        (Outcome.PASS, ["control.not_held"]),  # no finding of the run explains the control
        (Outcome.ATTENTION, []),
        (Outcome.FAIL, []),
    ],
)
def test_known_failure_of_a_control_is_explained_by_a_finding_of_the_run(
    outcome: Outcome, codes: list[str]
) -> None:
    judged = judge([control()], [figure(1)])
    assert judged[0].state is ControlState.FAILED
    findings = unexplained(judged, outcome, {"missing"})
    assert [finding.code for finding in findings] == codes
    assert unexplained(judged, outcome, {"other"}) == unexplained(judged, outcome)


@pytest.mark.parametrize(
    ("value", "outcome", "codes"),
    [
        (0, Outcome.PASS, []),
        (1, Outcome.PASS, [("control.not_held", Outcome.FAIL)]),
        (1, Outcome.ATTENTION, [("control.not_held", Outcome.FAIL)]),
        (1, Outcome.FAIL, []),
        (None, Outcome.PASS, [("control.not_shown", Outcome.ATTENTION)]),
        (None, Outcome.ATTENTION, []),
    ],
)
def test_finding_is_added_if_control_state_is_worse_than_run_outcome(
    value: float | None, outcome: Outcome, codes: list[tuple[str, Outcome]]
) -> None:
    """A stricter policy pack can make the run fail.

    A failure with a finding is not reported twice.
    """
    findings = unexplained(judge([control()], [figure(value)]), outcome)
    assert [(finding.code, finding.severity) for finding in findings] == codes
    assert all(
        finding.subject == "backup.offsite" and finding.clause == "4.2" for finding in findings
    )


def test_finding_for_a_figure_without_a_value_contains_an_action_for_each_possible_cause() -> None:
    """The cause may be a wrong name, a partial run, or a policy pack without requirements."""
    (finding,) = unexplained(judge([control()], [figure(None)]), Outcome.PASS)
    for cause in (
        "correct the control",
        "run the whole workflow",
        "add one, or remove the control",
    ):
        assert cause in finding.action.text
    assert finding.for_engineers is not None
    assert "no expectation has `severity: fail`" in finding.for_engineers.text
