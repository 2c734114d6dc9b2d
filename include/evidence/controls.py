"""Whether each control that a run is evidence for held, by the pack's own indicator."""

from __future__ import annotations

from collections.abc import Sequence

from include.evidence.model import ControlState, ControlStatus, Finding, Metric, Outcome
from include.messages import _
from include.policy.rules import Control


def judge(controls: Sequence[Control], metrics: Sequence[Metric]) -> list[ControlStatus]:
    """Hold each control's indicator against its target.

    Args:
        controls: of the workflow that ran.
        metrics: of the run; an indicator is the metric of its name that has no subject. One that is
            absent or None was not measured, and then nobody has shown that the control held.
    """
    figures = {one.name: one.value for one in metrics if not one.subject}
    judged = []
    for control in controls:
        value = figures.get(control.indicator.name)
        if value is None:
            state = ControlState.NOT_SHOWN
        else:
            state = ControlState.HELD if control.indicator.met(value) else ControlState.NOT_HELD
        judged.append(
            ControlStatus(
                id=control.id,
                clause=control.clause,
                title=control.message,
                indicator=control.indicator.name,
                target=control.indicator.target,
                value=value,
                state=state,
                sources=[one.message for one in control.sources],
            )
        )
    return judged


def unexplained(controls: Sequence[ControlStatus], outcome: Outcome) -> list[Finding]:
    """Return findings for controls that are worse than the run's outcome says.

    A target of the pack may be stricter than the workflow, or ask for a figure that this run does
    not have; why it does not have it cannot be told from here.
    """
    findings = []
    for one in controls:
        if one.state is ControlState.NOT_HELD and outcome is not Outcome.FAIL:
            findings.append(
                Finding(
                    code="control.not_held",
                    severity=Outcome.FAIL,
                    subject=one.id,
                    message=_(
                        "The indicator {name} is {value}; the policy pack asks for {target}.",
                        name=one.indicator,
                        value=one.value,
                        target=one.target,
                    ),
                    action=_("See what keeps the figure from its target, or revise the target."),
                    clause=one.clause,
                )
            )
        elif one.state is ControlState.NOT_SHOWN and outcome is Outcome.PASS:
            findings.append(
                Finding(
                    code="control.not_shown",
                    severity=Outcome.ATTENTION,
                    subject=one.id,
                    message=_("The indicator {name} was not measured.", name=one.indicator),
                    action=_(
                        "Find out why: controls.yaml names a figure that the workflow does not "
                        "have (correct the name), the run left something out (run the whole "
                        "workflow), or the policy pack requires nothing of the kind, as when no "
                        "expectation has severity: fail (require something, or take the control "
                        "out of controls.yaml)."
                    ),
                    clause=one.clause,
                )
            )
    return findings
