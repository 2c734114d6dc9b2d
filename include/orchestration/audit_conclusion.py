"""Tasks of `conclude_audit`: services in, step records out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from include.evidence.model import Outcome, StepRecord
from include.findings import register as findings
from include.findings.following import still_open
from include.messages import _
from include.notify.asking import Confirm
from include.notify.outbox import Run
from include.orchestration.notices import STEP_SEND
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
from include.workplace import Workplace


def look(asked: str | None) -> list[str]:
    """Find the workpapers that are back and not concluded."""
    found: list[str] = []

    def work(place: Workplace) -> StepRecord:
        if place.pack.audit is None:
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
        if pack.audit is not None:
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


def confirming(place: Workplace) -> Confirm:
    """Return what says which notices of findings are still wanted: nobody closed them since."""

    def confirm(keys: Sequence[str]) -> set[str]:
        with place.state.connect() as conn:
            return still_open(conn, keys)

    return confirm


def seal_conclusion() -> dict[str, Any]:
    """Seal the evidence of a conclusion."""

    def conclude(
        place: Workplace, records: Sequence[StepRecord], artifacts: dict[str, bytes]
    ) -> Conclusion:
        del artifacts
        pack = place.pack
        with place.state.connect() as conn:
            every = findings.listed(conn, closed=True)
        if pack.audit is None:
            return conclusion_report.nothing_to_audit(records, roles=pack.roles, findings=every)
        return conclusion_report.conclude(
            records,
            roles=pack.roles,
            findings=every,
            today=place.clock.now().astimezone(pack.calendar.zone).date(),
            send=STEP_SEND,
        )

    return seal_run(conclude)
