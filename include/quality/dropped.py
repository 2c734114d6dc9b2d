"""Entries of the register whose rules, or whole suites, stand in the policy pack no longer."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from include.evidence.model import Outcome
from include.evidence.step_findings import StepFindings
from include.messages import _
from include.quality import history
from include.quality.run import Run
from include.quarantine import register


def close_dropped(
    seen: StepFindings, conn: Connection, place: register.Place, rules: Sequence[str]
) -> None:
    """Close what rules left open that the pack no longer has; that mends no record."""
    with conn.begin():
        closed = register.close_others(conn, place, rules)
    if closed:
        seen.find(
            "quality.rule_dropped",
            Outcome.ATTENTION,
            _(
                "{count} entries of the quarantine register were closed because the policy pack "
                "has their rules no longer: {rules}. Nobody found their records good.",
                count=sum(closed.values()),
                rules=", ".join(sorted(closed)),
            ),
            _("See that the rules were left out on purpose."),
            subject=f"{place.database}.{place.collection}",
        )


def notice_dropped(
    seen: StepFindings, conn: Connection, run: Run, database: str, collections: set[str]
) -> None:
    """The same for collections of which the pack no longer expects anything.

    What was closed is looked for again once it does: this run is noted as one of theirs.
    """
    with conn.begin():
        left = register.forsaken(conn, database, run.dag_id, collections)
    for name in left:
        place = register.Place(database, name, run.dag_id, run.run_id, run.at)
        with conn.begin():
            history.begin(conn, **place.__dict__)
        close_dropped(seen, conn, place, ())
