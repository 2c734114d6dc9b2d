"""Which mapped databases a run works on."""

from __future__ import annotations

from collections.abc import Sequence

from include.evidence.model import Outcome, StepRecord
from include.messages import _
from include.orchestration.run import open_run, step
from include.services.errors import UsageError
from include.workplace import Workplace


def mapped_databases() -> list[str]:
    """Return the names of all mapped databases."""
    return list(open_run().pack.databases)


def wanted_databases(asked: Sequence[str] | None, clause: str) -> list[str]:
    """Return the databases a run was asked for, all mapped ones when it was not.

    Args:
        asked: names of the data map.
        clause: of the policy, for the finding when it fails.

    Raises:
        AirflowFailException: one of them is not mapped.
    """
    names: list[str] = []

    def work(place: Workplace) -> StepRecord:
        known = list(place.pack.databases)
        unknown = [name for name in asked or [] if name not in known]
        if unknown:
            raise UsageError(
                f"Not in the data map: {', '.join(unknown)}.", f"It maps: {', '.join(known)}."
            )
        names.extend(dict.fromkeys(asked or known))
        return StepRecord(step="databases", outcome=Outcome.PASS, data={"databases": names})

    step("databases", "", _("The choice of databases"), work, clause)
    return names
