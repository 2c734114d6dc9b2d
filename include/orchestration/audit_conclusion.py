"""Tasks of `conclude_audit`: services in, step records out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from include.evidence.model import Outcome, StepRecord
from include.findings import register as findings
from include.messages import _
from include.notify.outbox import Run
from include.notify.sending import STEP_SEND
from include.orchestration.run import run_key, seal_run, step
from include.orchestration.sampling import desk_of
from include.reports.conclusion import Conclusion
from include.sampling import closing, conclusion_report, following
from include.sampling.names import (
    CLAUSE,
    STEP_EVALUATE,
    STEP_FOLLOW_UP,
    STEP_LOOK,
)
from include.sampling.rules import AUDIT
from include.workplace import Workplace


def look(asked: str | None) -> list[str]:
    """Find the workpapers that are back and not concluded."""
    found: list[str] = []

    def work(place: Workplace) -> StepRecord:
        if place.pack.section(AUDIT) is None:
            return StepRecord(step=STEP_LOOK, outcome=Outcome.PASS, data={"back": []})
        record = closing.look(desk_of(place), asked)
        found.extend(record.data["back"])
        return record

    step(STEP_LOOK, "", _("The search"), work, CLAUSE)
    return found


def evaluate(part: str) -> dict[str, Any]:
    """Judge every population of returned workpapers."""

    def work(place: Workplace) -> StepRecord:
        return closing.evaluate_returned(desk_of(place), part)

    return step(STEP_EVALUATE, part, _("The evaluation of {part}", part=part), work, CLAUSE)


def follow_up() -> dict[str, Any]:
    """Remind the owners of open findings, whatever left them, and say which are overdue."""

    def work(place: Workplace) -> StepRecord:
        pack = place.pack
        if pack.section(AUDIT) is not None:
            return following.follow_up(desk_of(place))
        with place.state.begin() as conn:
            return following.follow_up_only(
                conn,
                roles=pack.roles,
                rules=pack.notices,
                run=Run(*run_key()),
                now=place.clock.now().astimezone(pack.calendar.zone),
            )

    return step(STEP_FOLLOW_UP, "", _("The follow-up"), work, CLAUSE)


def seal_conclusion() -> dict[str, Any]:
    """Seal the evidence of a conclusion."""

    def conclude(
        place: Workplace, records: Sequence[StepRecord], artifacts: dict[str, bytes]
    ) -> Conclusion:
        del artifacts
        pack = place.pack
        with place.state.connect() as conn:
            every = findings.listed(conn, closed=True)
        if pack.section(AUDIT) is None:
            return conclusion_report.nothing_to_audit(records, roles=pack.roles, findings=every)
        return conclusion_report.conclude(
            records,
            roles=pack.roles,
            findings=every,
            today=place.clock.now().astimezone(pack.calendar.zone).date(),
            send=STEP_SEND,
        )

    return seal_run(conclude)
