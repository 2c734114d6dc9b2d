"""A control held only when its figure was measured and met its target."""

from __future__ import annotations

import pytest

from include.evidence.model import ControlState, Metric, Outcome, judge, unexplained
from include.policy.rules import Control


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
        ([figure(0)], ControlState.HELD),
        ([figure(1)], ControlState.NOT_HELD),
        ([figure(None)], ControlState.NOT_SHOWN),
        ([], ControlState.NOT_SHOWN),
        ([figure(0, "courier")], ControlState.NOT_SHOWN),
        ([Metric(name="other", value=0, unit="1")], ControlState.NOT_SHOWN),
    ],
)
def test_the_indicator_decides(metrics: list[Metric], state: ControlState) -> None:
    """The whole run's figure only; one of a single database says nothing of all."""
    (judged,) = judge([control()], metrics)
    assert judged.state is state
    assert (judged.indicator, judged.target, judged.clause) == ("missing", "= 0", "4.2")


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
def test_a_run_is_never_better_than_its_controls(
    value: float | None, outcome: Outcome, codes: list[tuple[str, Outcome]]
) -> None:
    """A pack stricter than the workflow turns the run; what findings explain is not said twice."""
    found = unexplained(judge([control()], [figure(value)]), outcome)
    assert [(one.code, one.severity) for one in found] == codes
    assert all(one.subject == "backup.offsite" and one.clause == "4.2" for one in found)


def test_the_advice_for_a_figure_that_was_not_measured_is_true_of_every_cause() -> None:
    """A wrong name, a part of the workflow, or a pack that requires nothing: none is known here."""
    (found,) = unexplained(judge([control()], [figure(None)]), Outcome.PASS)
    for cause in (
        "correct the name",
        "run the whole workflow",
        "no expectation has severity: fail",
    ):
        assert cause in found.action.text
