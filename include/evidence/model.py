"""The data model of ``result.json``: outcome, findings, metrics and controls of a run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from functools import partial
from types import MappingProxyType
from typing import Any

from pydantic import AwareDatetime, BaseModel, field_validator

from include.evidence.indicators import figure_message, requirement_message
from include.frozen import FrozenModel
from include.messages import Message, _
from include.policy.rules import Control, Role, clause_message, translated_message

SCHEMA_VERSION = "1"
_NO_ROLES: Mapping[str, Role] = MappingProxyType({})


class Outcome(StrEnum):
    """The outcome of a run, a step or a control.

    ``pass``: the control passed. ``attention``: the control passed, and a person has to examine a
    finding. ``fail``: the control failed, or evidence is missing. A run is also ``attention`` if
    its control failed only because of what the bundle of an earlier run reported as ``fail``.
    """

    PASS = "pass"  # noqa: S105 - not a password
    ATTENTION = "attention"
    FAIL = "fail"

    @classmethod
    def worst(cls, outcomes: list[Outcome]) -> Outcome:
        """Return the worst of several outcomes. Return ``fail`` if the list is empty."""
        order = [cls.FAIL, cls.ATTENTION, cls.PASS]
        return next((outcome for outcome in order if outcome in outcomes), cls.FAIL)


class Finding(FrozenModel):
    """A finding of a run: a fact that requires action. It never contains a customer's data.

    Attributes:
        code: stable identifier, such as ``backup.recipients.too_few``.
        severity: ``fail`` or ``attention``; never ``pass``.
        subject: the database, object key, table, bundle, control or step that the finding is about.
        subject_title: display name of the subject, if the subject is an id or the name of a file.
        message: text that describes the finding.
        action: advice to the reader, in words for compliance staff.
        clause: number of the policy clause, such as ``4.2``; if empty, the finding refers to the
            clause of the control.
        for_engineers: the command, file, key or task that the action needs, in words for engineers;
            None if the action needs none. Backticks mark code.
        step: name of the step that reported the finding; empty for a finding of the whole run.
        part: item that a mapped step worked on, such as a database; empty for other findings.
        aspect: id that distinguishes findings with the same code and subject, such as the id of an
            expectation; empty if there is at most one such finding.
    """

    code: str
    severity: Outcome
    subject: str
    message: Message
    action: Message
    clause: str = ""
    for_engineers: Message | None = None
    subject_title: Message | None = None
    step: str = ""
    part: str = ""
    aspect: str = ""

    @field_validator("severity")
    @classmethod
    def _something_is_wrong(cls, severity: Outcome) -> Outcome:
        if severity is Outcome.PASS:
            raise ValueError("a finding is never a pass")
        return severity


failure_finding = partial(Finding, severity=Outcome.FAIL)
attention_finding = partial(Finding, severity=Outcome.ATTENTION)


class Metric(FrozenModel):
    """A figure that a run measured.

    Attributes:
        name: stable identifier, such as ``backup.rows``.
        value: the figure; None if it was not measured.
        unit: ``rows``, ``bytes``, ``seconds``, or ``1`` for a ratio or count.
        target: required value, in the same unit; None if no value is required.
        subject: what the figure describes, such as a database; empty for a figure of the whole run.
    """

    name: str
    value: float | int | None
    unit: str
    target: float | int | None = None
    subject: str = ""


class Approval(FrozenModel):
    """A person's decision on an approval request.

    Attributes:
        step: name of the step that asked for the approval.
        decision: option that the approver chose.
        decided_by: user id of the approver.
        decided_at: when the approver decided.
        sha256: SHA-256 digest of the content that was decided on.
    """

    step: str
    decision: str
    decided_by: str
    decided_at: AwareDatetime
    sha256: str


class ControlState(StrEnum):
    """The state of a control in ``result.json``.

    The values were published before the members got their present names, so names and values
    differ.
    """

    PASSED = "held"
    FAILED = "not_held"
    NO_EVIDENCE = "not_shown"


class ControlStatus(FrozenModel):
    """The state of a control after a run whose bundle is evidence for this control.

    Attributes:
        id: id of the control.
        clause: number of the policy clause that the control belongs to.
        clause_title: title of the clause; None if the policy pack does not state it.
        title: display name of the control.
        indicator: name of the metric that decides whether the control passed.
        target: the target of the control in the policy pack, such as ``= 0``.
        value: the metric's value in this run; None if it was not measured.
        state: whether the control passed, failed or has no evidence.
        sources: laws and standards that require the control, with version and article.
        owner: title of the role that is responsible for the control; None if the policy pack states
            none.
    """

    id: str
    clause: str
    clause_title: Message | None = None
    title: Message
    indicator: str
    target: str
    value: float | int | None
    state: ControlState
    sources: Sequence[Message] = []
    owner: Message | None = None

    @property
    def clause_text(self) -> Message:
        """Return the number and title of the clause, or only the number if it has no title."""
        return clause_message(self.clause, self.clause_title)

    @property
    def figure(self) -> Message:
        """Return the measured value as text, for example "overdue workpapers: 3"."""
        return figure_message(self.indicator, self.target, self.value)

    @property
    def requirement(self) -> Message:
        """Return the target as text, for example "at least 95%"."""
        return requirement_message(self.target)


class RunContext(FrozenModel):
    """Facts about a run that are known when it starts. One instance is created per run.

    Attributes:
        dag_id: DAG id of the workflow.
        run_id: Airflow id of the run.
        started_at: when the run started.
        period_start: start of the Airflow data interval; None if the run has no data interval.
        period_end: end of the Airflow data interval; None if the run has no data interval.
        code_version: version of ParcelSeal.
        policy_hash: SHA-256 digest of the policy pack's files, in hex.
        policy_name: name of the policy pack.
        clock_source: description of the clock that gives the current time.
        timezone: IANA name of the policy pack's timezone.
    """

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


class Coverage(FrozenModel):
    """The subjects that a step examined completely.

    A finding of an earlier run is closed only if a later run examined its subject and reported
    nothing.

    Attributes:
        subjects: the examined subjects of findings; None if the step examined every possible
            subject of its part, such as all partners.
        codes: codes of findings for which the step examined every possible subject, although
            `subjects` is a list.
        steps: mapped steps for which the step selected every part that still exists, such as the
            batches that still wait. A part without a record was settled by an earlier run.
    """

    subjects: tuple[str, ...] | None = None
    codes: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()


class StepRecord(BaseModel):
    """The record of a step, which the seal and later steps of the run read.

    Step records are stored in the state database, never in XCom.

    Attributes:
        step: name of the step, such as ``backup``.
        part: name of what the task worked on if the step has several parallel tasks, such as the
            database ``courier``; otherwise empty.
        outcome: outcome of the step.
        findings: findings of the step.
        metrics: figures that the step measured.
        data: the step's result as plain JSON, for later steps and for ``result.json``. It contains
            no customer's data.
        coverage: subjects that the step examined completely; None if the step was interrupted,
            failed, waits for an answer, or compared only the records that changed.
        could_not_run: whether the step refused the run before any work, because the inputs of the
            run are wrong or the policy pack lacks the rules.
    """

    step: str
    part: str = ""
    outcome: Outcome
    findings: list[Finding] = []
    metrics: list[Metric] = []
    data: dict[str, Any] = {}
    coverage: Coverage | None = None
    could_not_run: bool = False


class StepSummary(FrozenModel):
    """A step in ``result.json``, without the step's findings and metrics.

    ``result.json`` lists the findings and metrics of all steps together.

    Attributes:
        step: name of the step, such as ``backup``.
        part: name of what the task worked on if the step has several parallel tasks, such as the
            database ``courier``; otherwise empty.
        outcome: outcome of the step.
        data: the step's result as plain JSON, without customers' data.
        coverage: subjects that the step examined completely; see `StepRecord`.
    """

    step: str
    part: str
    outcome: Outcome
    data: dict[str, Any]
    coverage: Coverage | None = None


class RegisterFigure(FrozenModel):
    """The digest and row counts of a register in the state database at the time of a seal.

    Attributes:
        rows: number of rows with ids up to ``highest_id``. In the erasure ledger, batches that are
            not settled are left out.
        entries: number of erased records in the erasure ledger; in other registers the same as
            ``rows``.
        highest_id: highest id of a row; 0 for an empty register.
        open: rows that could still change, such as open findings and active legal holds, as ranges
            (first id, last id). Of these rows, the digest covers only the columns that never
            change.
        ids: rows that the figure covers, as ranges (first id, last id); None for all rows. It is
            set only if rows of the register were missing when the figure was computed. If the
            missing rows are restored later, the figure still matches the register.
        sha256: SHA-256 over the digests of the rows, ordered by id; 64 hex digits.
    """

    rows: int
    entries: int
    highest_id: int
    open: tuple[tuple[int, int], ...] = ()
    ids: tuple[tuple[int, int], ...] | None = None
    sha256: str


class AcceptedLoss(FrozenModel):
    """A person's decision to continue although rows of registers were lost.

    Attributes:
        accepted_at: when the person decided.
        accepted_by: the person.
        because: the reason for the decision, without a customer's data.
        lost: register name -> the sealed figure that the register no longer matches.
        unread: folders of bundles whose figures could not be read.
    """

    accepted_at: AwareDatetime
    accepted_by: str
    because: str
    lost: dict[str, RegisterFigure]
    unread: tuple[str, ...] = ()


class RegisterState(FrozenModel):
    """The figures of the registers of the state database, as sealed in a bundle.

    Attributes:
        read_at: when the registers were read.
        figures: register name -> figure. The names are ``erasure``, ``erasure_request``,
            ``finding``, ``finding_event`` and ``legal_hold``. A register is left out if other
            sessions were writing to it.
        lost: register name -> figure of an earlier bundle that the register no longer matches.
        also_lost: register name -> further figures of earlier bundles that the register no longer
            matches. They may cover rows that the figure in `lost` does not cover.
        unread: folders of bundles whose figures could not be read because the bundles were not
            valid. Later bundles list the same folders until these bundles are valid again or a
            person accepts the loss of the figures.
        accepted: the newest accepted loss; None if no person accepted a loss.
    """

    read_at: AwareDatetime
    figures: dict[str, RegisterFigure]
    lost: Mapping[str, RegisterFigure] = {}
    also_lost: Mapping[str, tuple[RegisterFigure, ...]] = {}
    unread: tuple[str, ...] = ()
    accepted: AcceptedLoss | None = None


class Result(BaseModel):
    """The content of ``result.json``, the machine-readable part of a bundle.

    Attributes:
        schema_version: version of the file format.
        run: facts about the run.
        controls: states of the controls that the run is evidence for.
        outcome: outcome of the run.
        finished_at: when the checks of the run ended.
        metrics: figures that the run measured.
        findings: findings of the run.
        approvals: decisions on the run's approval requests.
        steps: the steps of the run.
        not_made: files, and sections of reports, that could not be created: name -> reason, in
            English.
        registers: figures of the registers of the state database; None if they were not read.
        is_complete: whether the run executed all of its steps to their end, on live data and for
            all databases. Only a complete run closes findings of earlier runs.
        is_drill: whether the run was a drill, whose steps worked in a sandbox. Its findings do not
            enter the register of findings.
        could_not_run: whether the run did nothing, because it was refused, its inputs were wrong,
            or the policy pack lacks the rules. Such a run is not evidence for any control.
    """

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
    is_complete: bool = False
    is_drill: bool = False
    could_not_run: bool = False


CONTROLS_STEP = "controls"
"""The step of findings which say that a control did not reach its target or has no figure."""
REGISTERS_STEP = "registers"
"""The step of findings about the evidence and the registers, which every run examines."""


def judge(
    controls: Sequence[Control],
    metrics: Sequence[Metric],
    roles: Mapping[str, Role] = _NO_ROLES,
) -> list[ControlStatus]:
    """Compare the measured value of each control's indicator with the target of the control.

    Args:
        controls: controls of the workflow that ran.
        metrics: metrics of the run. A control is judged by the metric that has the name of its
            indicator and an empty subject. If this metric is missing or was not measured, the
            control has no evidence.
        roles: roles of the policy pack, by id. They give the titles of the controls' owners.

    Returns:
        The state of each control, in the given order.
    """
    figures = {metric.name: metric.value for metric in metrics if not metric.subject}
    judged = []
    for control in controls:
        value = figures.get(control.indicator.name)
        if value is None:
            state = ControlState.NO_EVIDENCE
        else:
            state = (
                ControlState.PASSED if control.indicator.is_met_by(value) else ControlState.FAILED
            )
        judged.append(
            ControlStatus(
                id=control.id,
                clause=control.clause,
                clause_title=control.clause_title and translated_message(control.clause_title),
                title=control.message,
                indicator=control.indicator.name,
                target=control.indicator.target,
                value=value,
                state=state,
                sources=[source.message for source in control.sources],
                owner=owner.message if (owner := roles.get(control.owner or "")) else None,
            )
        )
    return judged


def unexplained(
    controls: Sequence[ControlStatus],
    outcome: Outcome,
    known_failures: Collection[str] = (),
) -> list[Finding]:
    """Return findings for controls that did worse than the outcome of the run suggests.

    A control can fail in a run that did not fail, if the target in the policy pack is stricter than
    that of the workflow. A control can have no evidence in a run that passed, if the run did not
    measure the indicator that the policy pack names.

    Args:
        controls: states of the controls after the run.
        outcome: outcome of the run without these findings.
        known_failures: indicators whose missed targets an earlier run reported. The findings of
            this run explain their controls.
    """
    findings = []
    for control in controls:
        is_explained = outcome is Outcome.FAIL or (
            outcome is Outcome.ATTENTION and control.indicator in known_failures
        )
        if control.state is ControlState.FAILED and not is_explained:
            findings.append(
                failure_finding(
                    code="control.not_held",
                    subject=control.id,
                    subject_title=control.title,
                    message=_(
                        "The control did not reach its target: {figure} (required: {requirement}).",
                        figure=control.figure,
                        requirement=control.requirement,
                    ),
                    step=CONTROLS_STEP,
                    action=_(
                        "Find out why the control did not reach its target and correct the "
                        "cause, or revise the target in the policy pack."
                    ),
                    clause=control.clause,
                )
            )
        elif control.state is ControlState.NO_EVIDENCE and outcome is Outcome.PASS:
            findings.append(
                attention_finding(
                    code="control.not_shown",
                    subject=control.id,
                    subject_title=control.title,
                    message=_(
                        "This run did not measure the figure that decides whether the "
                        "control passes."
                    ),
                    step=CONTROLS_STEP,
                    action=_(
                        "Find out the cause. If the run covered only some databases or steps, "
                        "run the whole workflow. If the policy pack has no mandatory "
                        "requirement that the workflow can measure, add one, or remove the "
                        "control. If the control refers to a figure that does not exist, have "
                        "the data engineers correct the control."
                    ),
                    for_engineers=_(
                        "`controls.yaml` names the indicator `{indicator}` for this control. "
                        "The indicator has no value if the workflow has no figure of this "
                        "name, or if no expectation has `severity: fail`.",
                        indicator=control.indicator,
                    ),
                    clause=control.clause,
                )
            )
    return findings
