"""Outcome, findings, metrics and controls of a run: the shape of ``result.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import partial
from typing import Any

from pydantic import AwareDatetime, BaseModel, field_validator

from include.frozen import FrozenModel
from include.messages import Message, _
from include.policy.rules import Control

SCHEMA_VERSION = "1"


class Outcome(StrEnum):
    """The outcome of a control.

    ``pass``: the control is met. ``attention``: it is met, and a person should look at something.
    ``fail``: it is not met, or there is no proof that it is.
    """

    PASS = "pass"  # noqa: S105 - not a password
    ATTENTION = "attention"
    FAIL = "fail"

    @classmethod
    def worst(cls, outcomes: list[Outcome]) -> Outcome:
        """Return the worst of several outcomes; nothing looked at is a fail."""
        order = [cls.FAIL, cls.ATTENTION, cls.PASS]
        return next((outcome for outcome in order if outcome in outcomes), cls.FAIL)


class Finding(FrozenModel):
    """A deviation. It never contains a customer's value.

    Attributes:
        code: stable identifier, ``backup.recipients.too_few``.
        severity: ``fail`` or ``attention``; never ``pass``.
        subject: what it is about: database, object key, table, bundle.
        message: what was seen.
        action: what the reader should do.
        clause: policy clause, ``4.2``.
    """

    code: str
    severity: Outcome
    subject: str
    message: Message
    action: Message
    clause: str = ""

    @field_validator("severity")
    @classmethod
    def _something_is_wrong(cls, severity: Outcome) -> Outcome:
        if severity is Outcome.PASS:
            raise ValueError("a finding is never a pass")
        return severity


failure_finding = partial(Finding, severity=Outcome.FAIL)
attention_finding = partial(Finding, severity=Outcome.ATTENTION)


class Metric(FrozenModel):
    """A figure of a run.

    Attributes:
        name: stable identifier, ``backup.rows``.
        value: the figure; None when it was not measured.
        unit: ``rows``, ``bytes``, ``seconds``, ``1`` for a ratio or count.
        target: what the pack asks for, in the same unit, None without a target.
        subject: what it is about, empty for the whole run.
    """

    name: str
    value: float | int | None
    unit: str
    target: float | int | None = None
    subject: str = ""


class Approval(FrozenModel):
    """A person's decision on an exact content."""

    step: str
    decision: str
    decided_by: str
    decided_at: AwareDatetime
    sha256: str


class ControlState(StrEnum):
    """Whether a control held: shown, shown not to, or not measured."""

    HELD = "held"
    NOT_HELD = "not_held"
    NOT_SHOWN = "not_shown"


class ControlStatus(FrozenModel):
    """A control of the policy pack that a run is evidence for, and whether it held.

    Attributes:
        indicator: name of the metric that decides.
        target: what the pack asks of it, ``= 0``.
        value: the metric's value in this run; None when it was not measured.
        sources: law and standards behind it: instrument, version, article.
    """

    id: str
    clause: str
    title: Message
    indicator: str
    target: str
    value: float | int | None
    state: ControlState
    sources: Sequence[Message] = []


class RunContext(FrozenModel):
    """The run: its trigger, period, code and policy. Orchestration makes it once per run."""

    dag_id: str
    run_id: str
    started_at: AwareDatetime
    period_start: AwareDatetime | None = None
    period_end: AwareDatetime | None = None
    code_version: str
    policy_hash: str
    policy_name: str
    clock_source: str
    timezone: str = "Asia/Shanghai"


class StepRecord(BaseModel):
    """The record of a step for the seal; stored in ``state``, never in XCom.

    Attributes:
        step: name of the step, ``backup``.
        part: what it worked on, ``courier``; empty when there is one.
        outcome: the step's own outcome.
        data: plain JSON for the workflow's own conclusion and for ``result.json``; no customer
            value.
    """

    step: str
    part: str = ""
    outcome: Outcome
    findings: list[Finding] = []
    metrics: list[Metric] = []
    data: dict[str, Any] = {}


class StepSummary(FrozenModel):
    """A step in ``result.json``, beside the findings and metrics of the whole run."""

    step: str
    part: str
    outcome: Outcome
    data: dict[str, Any]


class RegisterFigure(FrozenModel):
    """A register of the state database as far as it was written when a bundle was sealed.

    Attributes:
        rows: that the figure covers: those up to ``highest_id``, open erasures left out.
        entries: erased records, of the register of erasures; elsewhere the same as ``rows``.
        highest_id: of a row; 0 for an empty register.
        open: first and last id of each range of rows that could still be settled, released or
            closed. The digest covers only what stays of these rows.
        ids: first and last id of each range of rows that the figure covers, where the register
            lacked rows when it was taken: these may be put back. None for all rows.
        sha256: over the digests of the rows, ordered by id; 64 hex digits.
    """

    rows: int
    entries: int
    highest_id: int
    open: tuple[tuple[int, int], ...] = ()
    ids: tuple[tuple[int, int], ...] | None = None
    sha256: str


class AcceptedLoss(FrozenModel):
    """A person's decision to go on without rows that registers lost.

    Attributes:
        lost: register -> the sealed figure that it does not contain any more.
        because: the reason, in plain words without a customer's value.
        unread: bundles whose figures nobody could read any more.
    """

    accepted_at: AwareDatetime
    accepted_by: str
    because: str
    lost: dict[str, RegisterFigure]
    unread: tuple[str, ...] = ()


class RegisterState(FrozenModel):
    """The registers of the state database when a bundle was sealed; later ones contain it.

    Attributes:
        read_at: when they were read.
        figures: by register: ``erasure``, ``erasure_request``, ``finding``, ``finding_event``,
            ``legal_hold``. One is missing where it was being written all the time.
        lost: register -> figure of an earlier bundle that it does not contain any more.
        also_lost: register -> further such figures, each of which may show another loss.
        unread: bundles whose figures could not be read: they did not verify. Later bundles repeat
            their names until they verify again, or a person accepts the loss.
        accepted: the newest loss that a person accepted; None where none ever was.
    """

    read_at: AwareDatetime
    figures: dict[str, RegisterFigure]
    lost: Mapping[str, RegisterFigure] = {}
    also_lost: Mapping[str, tuple[RegisterFigure, ...]] = {}
    unread: tuple[str, ...] = ()
    accepted: AcceptedLoss | None = None


class Result(BaseModel):
    """``result.json``: the machine-readable part of a bundle."""

    schema_version: str = SCHEMA_VERSION
    run: RunContext
    controls: list[ControlStatus]
    outcome: Outcome
    finished_at: AwareDatetime
    metrics: list[Metric]
    findings: list[Finding]
    approvals: list[Approval] = []
    steps: list[StepSummary] = []
    not_made: dict[str, str] = {}
    registers: RegisterState | None = None


def judge(controls: Sequence[Control], metrics: Sequence[Metric]) -> list[ControlStatus]:
    """Compare each control's indicator with its target.

    Args:
        controls: of the workflow that ran.
        metrics: of the run; an indicator is the metric of its name that has no subject. One that is
            absent or None was not measured, and then nobody has shown that the control held.
    """
    figures = {metric.name: metric.value for metric in metrics if not metric.subject}
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
                sources=[source.message for source in control.sources],
            )
        )
    return judged


def unexplained(controls: Sequence[ControlStatus], outcome: Outcome) -> list[Finding]:
    """Return findings for controls that are worse than the run's outcome says.

    A target of the pack may be stricter than the workflow, or ask for a figure that this run does
    not have; why it does not have it cannot be told from here.
    """
    findings = []
    for control in controls:
        if control.state is ControlState.NOT_HELD and outcome is not Outcome.FAIL:
            findings.append(
                failure_finding(
                    code="control.not_held",
                    subject=control.id,
                    message=_(
                        "The indicator {name} is {value}; the policy pack asks for {target}.",
                        name=control.indicator,
                        value=control.value,
                        target=control.target,
                    ),
                    action=_("See what keeps the figure from its target, or revise the target."),
                    clause=control.clause,
                )
            )
        elif control.state is ControlState.NOT_SHOWN and outcome is Outcome.PASS:
            findings.append(
                attention_finding(
                    code="control.not_shown",
                    subject=control.id,
                    message=_("The indicator {name} was not measured.", name=control.indicator),
                    action=_(
                        "Find out why: controls.yaml names a figure that the workflow does not "
                        "have (correct the name), the run left something out (run the whole "
                        "workflow), or the policy pack requires nothing of the kind, as when no "
                        "expectation has severity: fail (require something, or take the control "
                        "out of controls.yaml)."
                    ),
                    clause=control.clause,
                )
            )
    return findings
