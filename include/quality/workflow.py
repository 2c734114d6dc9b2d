"""Declaration of the workflow `check_quality`."""

from __future__ import annotations

from collections.abc import Iterator

from include.evidence.model import Outcome
from include.messages import _
from include.quality import report
from include.quality.check import CHECK
from include.workflow.assets import Asset, AssetEvent, SealedRecords
from include.workflow.declaration import AccessGroup, Cadence, Workflow


def checked_collections(sealed: SealedRecords) -> Iterator[AssetEvent]:
    """Yield an asset event for each collection that a run checked.

    The outcome of the event is the worst outcome of the collection's expectations.
    """
    for database, check in sealed.records.results(CHECK).items():
        for collection in check.collections:
            outcomes = [rule.outcome for rule in collection.rules]
            yield AssetEvent(
                f"{database}/{collection.collection}",
                Outcome.worst(outcomes),
                {
                    "database": database,
                    "collection": collection.collection,
                    "records": collection.rows,
                    "is_full": collection.whole,
                    "rules": len(outcomes),
                    "rules_failed": outcomes.count(Outcome.FAIL),
                },
            )


CHECK_QUALITY = Workflow[None](
    id="check_quality",
    title=_("Quality check"),
    summary="Check collected records against the policy's expectations; name failures by key; "
    "seal.",
    topic="quality",
    clauses=("4.1", "5.1"),
    cadence=Cadence.DAILY,
    owner="information_management",
    access=AccessGroup.RECORDS,
    chooses_databases=True,
    steps=(CHECK,),
    conclude=report.conclude,
    produces=(Asset("checked-collection", checked_collections),),
)
