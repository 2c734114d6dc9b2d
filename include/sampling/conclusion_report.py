"""What `conclude_audit` says: its run, what is out, the findings; `signed_report` has the rest."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from include.evidence.model import Metric, Outcome, StepRecord
from include.findings.register import Found, State
from include.messages import Message, _, listed
from include.notify.report import messages
from include.policy.rules import Role
from include.reports.conclusion import Conclusion, by_step, missing_records, worst
from include.reports.model import Block, Column, Fact, Paragraph, Section, Table, table_of
from include.sampling.evaluation import Verdict
from include.sampling.names import CLAUSE, STEP_EVALUATE, STEP_FOLLOW_UP, STEP_LOOK
from include.sampling.signed_report import signed

NOT_YET = _("not yet")
FIGURE = "populations_above_tolerable_rate"  # of the control; the first screen says the same
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
    send: str,
) -> Conclusion:
    """Judge a run of `conclude_audit` from what its steps left.

    Args:
        records: of the run.
        roles: of roles.yaml.
        findings: the whole register, closed ones too.
        today: the day in the pack's timezone.
        send: name of the step that sends.
    """
    found = by_step(records)
    evaluated = [one for one in records if one.step == STEP_EVALUATE and "verdicts" in one.data]
    look = found.get((STEP_LOOK, ""))
    told = [finding for record in records for finding in record.findings]
    steps = {(STEP_LOOK, ""): _("The search"), (STEP_FOLLOW_UP, ""): _("The follow-up")}
    steps[send, ""] = _("The sending")
    for part in look.data.get("back", []) if look else []:
        steps[STEP_EVALUATE, part] = _("The evaluation of {part}", part=part)
    told += missing_records(records, steps, "sampling", CLAUSE)
    metrics = [metric for record in records for metric in record.metrics]
    seen = Seen(
        verdicts=[
            Verdict.model_validate(one) for record in evaluated for one in record.data["verdicts"]
        ],
        above=_figure(metrics),
        going=[title for record in evaluated for title in _going(record)],
        out=_still_out(look, evaluated),
        back=look.data.get("back") if look else None,
        evaluated={one.part for one in evaluated},
        findings=findings,
    )
    return Conclusion(
        title=_("Audit conclusion"),
        summary=_summary(seen),
        outcome=worst(records, told),
        findings=told,
        metrics=metrics,
        facts=_facts(seen, today),
        sections=[
            *(section for record in evaluated for section in signed(record)),
            *([_out(seen.out)] if seen.out else []),
            _register(findings, roles),
            *([messages(found[send, ""])] if (send, "") in found else []),
        ],
    )


def nothing_to_audit(
    records: Sequence[StepRecord], *, roles: Mapping[str, Role], findings: Sequence[Found]
) -> Conclusion:
    """Say that the pack has no audit.yaml; of the register is shown what others left there.

    Args:
        records: of the run.
        roles: of roles.yaml.
        findings: the whole register, closed ones too.
    """
    return Conclusion(
        title=_("Audit conclusion"),
        summary=_("The policy pack has no audit.yaml: nothing is audited by samples."),
        outcome=worst(records, []),
        findings=[finding for record in records for finding in record.findings],
        metrics=[metric for record in records for metric in record.metrics],
        sections=[_register(findings, roles)] if findings else [],
    )


def _figure(metrics: Sequence[Metric]) -> int | None:
    value = next((one.value for one in metrics if one.name == FIGURE), None)
    return None if value is None else int(value)


def _going(record: StepRecord) -> list[Message]:
    """Titles of the populations that go on to the next stage of their plan."""
    wanted = [one["population"] for one in record.data["verdicts"] if _goes_on(one)]
    titles = {one["population"]: one["title"] for one in record.data["asked"]}
    return [Message.model_validate(titles[one]) for one in wanted]


def _goes_on(verdict: Mapping[str, Any]) -> bool:
    return bool(verdict["decision"] == "next_stage")


def _still_out(
    look: StepRecord | None, evaluated: Sequence[StepRecord]
) -> list[tuple[str, datetime | None]] | None:
    """Workpapers that are out at the end of the run, with the moment of their issue.

    The search came first: what the evaluation issued since then is out too, without a moment.
    """
    if look is None or "out" not in look.data:
        return None
    out: dict[str, datetime | None] = {
        part: datetime.fromisoformat(at) for part, at in look.data["out"]
    }
    for record in evaluated:
        if any(_goes_on(one) for one in record.data["verdicts"]):
            audit, stage, draw = (record.data[key] for key in ("audit", "stage", "draw"))
            out.setdefault(f"{audit}-{stage + 1}-{draw[:6]}", None)
    return list(out.items())


@dataclass(frozen=True)
class Seen:
    """What a run saw.

    Attributes:
        verdicts: that were reached or go on.
        above: populations that are not accepted by their last verdict, whichever run reached it,
            and not mended: the figure of the control. None when it was not measured.
        going: titles of the populations that go on to the next stage.
        out: workpapers that are out; None when nobody looked.
        back: names of those that are back, likewise.
        evaluated: names of those that were evaluated.
        findings: the whole register, closed ones too.
    """

    verdicts: Sequence[Verdict]
    above: int | None
    going: Sequence[Message]
    out: Sequence[tuple[str, datetime | None]] | None
    back: Sequence[str] | None
    evaluated: Collection[str]
    findings: Sequence[Found]

    @property
    def judged(self) -> int:
        """Populations whose verdict was reached."""
        return sum(one.decision != "next_stage" for one in self.verdicts)

    @property
    def refused(self) -> int:
        """Populations that this run did not accept."""
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
    said = _judged(seen)
    if not seen.going:
        return said
    return _and(
        said, _("To the next stage of their plan: {populations}.", populations=listed(seen.going))
    )


def _judged(seen: Seen) -> Message:
    """What was judged, and what is not accepted: never less than the control's figure says."""
    if seen.refused and seen.above in (None, seen.refused):
        return _(
            "{above} of {count} populations that were judged are not accepted.",
            above=seen.refused,
            count=seen.judged,
        )
    if seen.refused:
        return _(
            "{above} of {count} populations that were judged are not accepted; not accepted by "
            "their last verdict and not mended yet: {all}.",
            above=seen.refused,
            count=seen.judged,
            all=seen.above,
        )
    said = _work(seen)
    if not seen.above:
        return said
    return _and(
        said,
        _("Judged before, still not accepted and not mended: {above}.", above=seen.above),
    )


def _work(seen: Seen) -> Message:
    if seen.unjudged is None or seen.out is None:
        return _(
            "Nobody could see which workpapers are back; open findings: {left}.", left=seen.left
        )
    if seen.unjudged:
        return _(
            "Workpapers that are back and could not be judged: {count}; open findings: {left}.",
            count=seen.unjudged,
            left=seen.left,
        )
    if seen.judged:
        return _(
            "Populations judged in this run, all of them accepted: {count}; open findings: {left}.",
            count=seen.judged,
            left=seen.left,
        )
    if seen.going:
        return _("No verdict was reached yet; open findings: {left}.", left=seen.left)
    return _(
        "No workpapers came back since the last run; out: {out}, open findings: {left}.",
        out=len(seen.out),
        left=seen.left,
    )


def _and(first: Message, then: Message) -> Message:
    """Two sentences; a Chinese reader sees no blank between them."""
    values = {"first": first, "then": then}
    return Message(text="{first} {then}", values=values, translations={"zh-CN": "{first}{then}"})


def _facts(seen: Seen, today: date) -> list[Fact]:
    late = sum(one.overdue(today) for one in seen.findings)
    return [
        Fact(
            label=_("Populations judged in this run"),
            value=None if seen.unjudged is None else seen.judged,
        ),
        Fact(
            label=_("Not accepted"),
            value=seen.above,
            status=None if seen.above is None else (Outcome.FAIL if seen.above else Outcome.PASS),
            note=_("last verdict, not mended yet"),
        ),
        Fact(label=_("Workpapers that are out"), value=None if seen.out is None else len(seen.out)),
        Fact(label=_("Open findings"), value=seen.left),
        Fact(
            label=_("Findings past their day"),
            value=late,
            status=Outcome.FAIL if late else Outcome.PASS,
        ),
    ]


def _out(out: Sequence[tuple[str, datetime | None]]) -> Section:
    return Section(
        heading=_("Workpapers that are out"),
        blocks=[
            Table(
                caption=_("Not handed in yet"),
                columns=[
                    Column(label=_("Workpapers"), kind="code"),
                    Column(label=_("Issued"), kind="datetime"),
                ],
                rows=[[part, at or _("by this run")] for part, at in out],
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
                "Closed findings, tested again by somebody and met: {count}.",
                count=closed,
            )
        )
    ]
    if left:
        blocks.append(
            table_of(
                _("Open findings"),
                left,
                [
                    (_("No."), "number", lambda finding: finding.id),
                    (_("Finding"), "text", lambda finding: finding.what),
                    (_("Owner"), "text", lambda finding: _owner(finding.owner, roles)),
                    (_("Due"), "text", lambda finding: finding.due_on),
                    (_("State"), "text", lambda finding: _STATES[finding.state]),
                    (_("Cause"), "text", lambda finding: finding.cause or NOT_YET),
                    (_("Corrective action"), "text", lambda finding: finding.action or NOT_YET),
                    (_("Reminded"), "datetime", lambda finding: finding.reminded_at or NOT_YET),
                ],
            )
        )
    return Section(heading=_("Findings and corrective actions"), blocks=blocks)


def _owner(role: str, roles: Mapping[str, Role]) -> Message | str:
    if role not in roles:
        return role
    titles = roles[role].title
    return Message(text=titles["en"], translations=titles)
