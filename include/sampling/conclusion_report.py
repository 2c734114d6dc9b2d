"""What `conclude_audit` says: its run, what is out, the findings; `signed_report` has the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any

from include.evidence.model import Metric, Outcome, StepRecord
from include.findings.register import Found, State
from include.messages import Message, _
from include.policy.audit import AuditRules
from include.policy.rules import Role
from include.reports.conclusion import Conclusion, by_step, missing_record, worst
from include.reports.model import (
    Block,
    Cell,
    Column,
    Fact,
    Paragraph,
    Section,
    Table,
)
from include.sampling.evaluation import Verdict
from include.sampling.names import CLAUSE, STEP_EVALUATE, STEP_FOLLOW_UP, STEP_LOOK
from include.sampling.signed_report import signed

_STATES = {
    State.OPEN: _("open"),
    State.ANSWERED: _("answered, to be tested again"),
    State.CLOSED: _("closed"),
}


def conclude(
    records: Sequence[StepRecord],
    *,
    rules: AuditRules,
    roles: Mapping[str, Role],
    findings: Sequence[Found],
    policy_hash: str,
    today: date,
) -> Conclusion:
    """Judge a run of `conclude_audit` from what its steps left.

    Args:
        records: of the run.
        rules: audit.yaml.
        roles: of roles.yaml.
        findings: of audits, closed ones too.
        policy_hash: of the policy pack.
        today: the day in the pack's timezone.
    """
    found = by_step(records)
    evaluated = [one for one in records if one.step == STEP_EVALUATE and "verdicts" in one.data]
    verdicts = [
        Verdict.model_validate(one) for record in evaluated for one in record.data["verdicts"]
    ]
    told = [one for record in records for one in record.findings]
    if not any(one.outcome is Outcome.FAIL for one in records):
        steps = {STEP_LOOK: _("The search"), STEP_FOLLOW_UP: _("The follow-up")}
        told += [
            missing_record(title, step, f"sampling.{step}.missing", CLAUSE)
            for step, title in steps.items()
            if (step, "") not in found
        ]
    above = sum(one.decision == "not_accepted" for one in verdicts)
    look = found.get((STEP_LOOK, ""))
    out = look.data.get("out", []) if look else []
    return Conclusion(
        title=_("Audit conclusion"),
        summary=_summary(verdicts, above, out, findings),
        outcome=worst(records, told),
        findings=told,
        metrics=[
            *(one for record in records for one in record.metrics),
            Metric(name="populations_above_tolerable_rate", value=above, unit="1"),
        ],
        facts=_facts(verdicts, above, out, findings, today),
        sections=[
            *(section for record in evaluated for section in signed(record, rules, policy_hash)),
            *([_out(out)] if out else []),
            _register(findings, roles),
        ],
    )


def nothing_to_audit(records: Sequence[StepRecord]) -> Conclusion:
    """Say that the pack has no audit.yaml; the run's first step failed with it."""
    return Conclusion(
        title=_("Audit conclusion"),
        summary=_("The policy pack has no audit.yaml: nothing is audited by samples."),
        outcome=worst(records, []),
        findings=[one for record in records for one in record.findings],
        metrics=[],
    )


def _summary(
    verdicts: Sequence[Verdict], above: int, out: Sequence[Any], findings: Sequence[Found]
) -> Message:
    left = sum(one.state is not State.CLOSED for one in findings)
    if above:
        return _(
            "{above} of {count} populations are not accepted: more may deviate than is tolerable.",
            above=above,
            count=len(verdicts),
        )
    if verdicts:
        return _(
            "{count} populations were judged, and none deviates more than is tolerable; {left} "
            "findings are open.",
            count=len(verdicts),
            left=left,
        )
    return _(
        "No workpapers came back since the last run: {out} are out, {left} findings are open.",
        out=len(out),
        left=left,
    )


def _facts(
    verdicts: Sequence[Verdict],
    above: int,
    out: Sequence[Any],
    findings: Sequence[Found],
    today: date,
) -> list[Fact]:
    late = sum(one.overdue(today) for one in findings)
    left = sum(one.state is not State.CLOSED for one in findings)
    return [
        Fact(label=_("Populations judged in this run"), value=len(verdicts)),
        Fact(
            label=_("Not accepted"),
            value=above if verdicts else None,
            status=(Outcome.FAIL if above else Outcome.PASS) if verdicts else None,
        ),
        Fact(label=_("Workpapers that are out"), value=len(out)),
        Fact(label=_("Open findings"), value=left),
        Fact(
            label=_("Findings past their day"),
            value=late,
            status=Outcome.FAIL if late else Outcome.PASS,
        ),
    ]


def _out(out: Sequence[Sequence[str]]) -> Section:
    return Section(
        heading=_("Workpapers that are out"),
        blocks=[
            Table(
                caption=_("Not handed in yet"),
                columns=[
                    Column(label=_("Workpapers"), kind="code"),
                    Column(label=_("Issued"), kind="datetime"),
                ],
                rows=[[part, datetime.fromisoformat(at)] for part, at in out],
            )
        ],
    )


def _register(findings: Sequence[Found], roles: Mapping[str, Role]) -> Section:
    """Previous findings and their state: the open ones, and how many were closed."""
    left = [one for one in findings if one.state is not State.CLOSED]
    closed = len(findings) - len(left)
    blocks: list[Block] = [
        Paragraph(
            text=_(
                "{count} findings of audits are closed: somebody tested again, and it was met.",
                count=closed,
            )
        )
    ]
    if left:
        rows: list[list[Cell]] = [
            [
                one.id,
                one.what,
                _owner(one.owner, roles),
                one.due_on,
                _STATES[one.state],
                one.cause or None,
                one.action or None,
                one.reminded_at,
            ]
            for one in left
        ]
        blocks.append(
            Table(
                caption=_("Open findings"),
                columns=[
                    Column(label=_("No."), kind="number"),
                    Column(label=_("Finding")),
                    Column(label=_("Owner")),
                    Column(label=_("Due")),
                    Column(label=_("State")),
                    Column(label=_("Cause")),
                    Column(label=_("Corrective action")),
                    Column(label=_("Reminded"), kind="datetime"),
                ],
                rows=rows,
            )
        )
    return Section(heading=_("Findings and corrective actions"), blocks=blocks)


def _owner(role: str, roles: Mapping[str, Role]) -> Message | str:
    if role not in roles:
        return role
    titles = roles[role].title
    return Message(text=titles["en"], translations=titles)
