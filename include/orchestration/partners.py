"""Tasks of `review_partners`: services in, step records out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from include.evidence.model import Outcome, StepRecord
from include.messages import _
from include.notify.asking import Confirm
from include.notify.outbox import Run
from include.orchestration import notices
from include.orchestration.partners_desk import desk_of
from include.orchestration.run import run_key, seal_run, step
from include.partners import look as looking
from include.partners import reminders, report
from include.partners.names import CLAUSE_BOUND, STEP_LOOK
from include.reports.conclusion import Conclusion
from include.workplace import Workplace


def look() -> dict[str, Any]:
    """Say what binds each partner today, and queue what people are to be told."""

    def work(place: Workplace) -> StepRecord:
        if place.pack.partners is None:
            return StepRecord(step=STEP_LOOK, outcome=Outcome.PASS, data={})
        return looking.look(desk_of(place, Run(*run_key())))

    return step(STEP_LOOK, "", _("The search"), work, CLAUSE_BOUND)


def send() -> dict[str, Any]:
    """Send what is queued and still so."""
    return notices.send(CLAUSE_BOUND)


def seal_partners() -> dict[str, Any]:
    """Seal the evidence of a look at the partners."""

    def conclude(
        place: Workplace, records: Sequence[StepRecord], artifacts: dict[str, bytes]
    ) -> Conclusion:
        del artifacts
        if place.pack.partners is None:
            return report.nothing_to_review(records)
        return report.conclude(records, send=notices.STEP_SEND)

    return seal_run(conclude)


def confirming(place: Workplace) -> Confirm:
    """Return what says which queued reminders are still so."""
    if place.pack.partners is None:  # no longer: what is queued is of no use
        return lambda keys: set()
    return reminders.confirm(desk_of(place))
