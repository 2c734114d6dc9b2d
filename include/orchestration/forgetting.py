"""Remove the step records of earlier runs after a seal."""

from __future__ import annotations

import logging

from include.evidence.forget import forget_sealed_runs
from include.orchestration.retrying import must_end_soon
from include.services import stopping
from include.workplace import Workplace

log = logging.getLogger(__name__)


def forget_earlier_runs(live: Workplace, run: tuple[str, str]) -> None:
    """Remove what the steps of earlier sealed runs left in the state database.

    The run is sealed already, so no failure here may fail its task: the next seal tries again.

    Args:
        live: the live workplace.
        run: dag id and run id of the run that was sealed just now; the next seal checks its bundle.
    """
    if stopping.interruption() is not None or must_end_soon():
        return
    try:
        done = forget_sealed_runs(
            live.store("evidence_store"), live.state, live.trusted, besides=run
        )
    except Exception as error:  # noqa: BLE001 - the text may quote a value
        log.warning("Records of earlier runs were not removed: %s.", type(error).__name__)
        return
    for bundle in done.refused:
        log.warning("The bundle %s does not verify; the records of its run stay.", bundle)
