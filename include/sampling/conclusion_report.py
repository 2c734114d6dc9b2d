"""What `conclude_audit` says: its run, what is out, the findings; `signed_report` has the rest."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from include.evidence.model import Outcome, StepRecord
from include.findings.register import Found, State
from include.messages import Message, _
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

NOT_YET = _("not yet")
_STATES = {
    State.OPEN: _("open"),
    State.ANSWERED: _("answered, to be tested again"),
    State.CLOSED: _("closed"),
}


def conclude(
    records: Sequence[StepRecord],
    *,
    roles: Mapping[str, Role],
    findings: Sequence[Found],
    today: date,
) -> Conclusion:
    """Judge a run of `conclude_audit` from what its steps left.

    Args:
        records: of the run.
        roles: of roles.yaml.
        findings: of audits, closed ones too.
        today: the day in the pack's timezone.
    """
    found = by_step(records)
    evaluated = [one for one in records if one.step == STEP_EVALUATE and "verdicts" in one.data]
    look = found.get((STEP_LOOK, ""))
    told = [one for record in records for one in record.findings]
    if not any(one.outcome is Outcome.FAIL for one in records):
        steps = {(STEP_LOOK, ""): _("The search"), (STEP_FOLLOW_UP, ""): _("The follow-up")}
        for part in look.data.get("back", []) if look else []:
            steps[STEP_EVALUATE, part] = _("The evaluation of {part}", part=part)
        told += [
            missing_record(title, part or step, f"sampling.{step}.missing", CLAUSE)
            for (step, part), title in steps.items()
            if (step, part) not in found
        ]
    seen = Seen(
        verdicts=[
            Verdict.model_validate(one) for record in evaluated for one in record.data["verdicts"]
        ],
        out=look.data.get("out") if look else None,
        back=look.data.get("back") if look else None,
        evaluated={one.part for one in evaluated},
        findings=findings,
    )
    return Conclusion(
        title=_("Audit conclusion"),
        summary=_summary(seen),
        outcome=worst(records, told),
        findings=told,
        metrics=[one for record in records for one in record.metrics],
        facts=_facts(seen, today),
        sections=[
            *(section for record in evaluated for section in signed(record)),
            *([_out(seen.out)] if seen.out else []),
            _register(findings, roles),
        ],
    )


def nothing_to_audit(records: Sequence[StepRecord]) -> Conclusion:
    """Say that the pack has no audit.yaml: nothing was done, and nothing is shown."""
    return Conclusion(
        title=_("Audit conclusion"),
        summary=_("The policy pack has no audit.yaml: nothing is audited by samples."),
        outcome=worst(records, []),
        findings=[one for record in records for one in record.findings],
        metrics=[],
    )


@dataclass(frozen=True)
class Seen:
    """What a run saw.

    Attributes:
        verdicts: that were reached or go on.
        out: workpapers that are out; None when nobody looked.
        back: names of those that are back, likewise.
        evaluated: names of those that were evaluated.
        findings: of audits, closed ones too.
    """

    verdicts: Sequence[Verdict]
    out: Sequence[Sequence[str]] | None
    back: Sequence[str] | None
    evaluated: Collection[str]
    findings: Sequence[Found]

    @property
    def judged(self) -> int:
        """Populations whose verdict was reached."""
        return sum(one.decision != "next_stage" for one in self.verdicts)

    @property
    def above(self) -> int:
        """Populations that are not accepted."""
        return sum(one.decision == "not_accepted" for one in self.verdicts)

    @property
    def left(self) -> int:
        """Findings that are not closed."""
        return sum(one.state is not State.CLOSED for one in self.findings)

    @property
    def unjudged(self) -> int | None:
        """Workpapers that are back and were not evaluated; None when nobody looked."""
        return None if self.back is None else len(set(self.back) - set(self.evaluated))


def _summary(seen: Seen) -> Message:
    if seen.above:
        return _(
            "{above} of {count} populations that were judged are not accepted.",
            above=seen.above,
            count=seen.judged,
        )
    if seen.unjudged is None or seen.out is None:
        return _(
            "Nobody could see which workpapers are back; {left} findings are open.", left=seen.left
        )
    if seen.unjudged:
        return _(
            "{count} workpapers are back and could not be judged; {left} findings are open.",
            count=seen.unjudged,
            left=seen.left,
        )
    if more := len(seen.verdicts) - seen.judged:
        return _(
            "{count} populations were accepted, {more} need the next stage of their plan; {left} "
            "findings are open.",
            count=seen.judged,
            more=more,
            left=seen.left,
        )
    if seen.judged:
        return _(
            "{count} populations were judged and accepted; {left} findings are open.",
            count=seen.judged,
            left=seen.left,
        )
    return _(
        "No workpapers came back since the last run: {out} are out, {left} findings are open.",
        out=len(seen.out),
        left=seen.left,
    )


def _facts(seen: Seen, today: date) -> list[Fact]:
    late = sum(one.overdue(today) for one in seen.findings)
    return [
        Fact(
            label=_("Populations judged in this run"),
            value=None if seen.unjudged is None else seen.judged,
        ),
        Fact(
            label=_("Not accepted"),
            value=seen.above if seen.judged else None,
            status=(Outcome.FAIL if seen.above else Outcome.PASS) if seen.judged else None,
        ),
        Fact(label=_("Workpapers that are out"), value=None if seen.out is None else len(seen.out)),
        Fact(label=_("Open findings"), value=seen.left),
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
                one.cause or NOT_YET,
                one.action or NOT_YET,
                one.reminded_at or NOT_YET,
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
