"""The Airflow assets that a workflow produces.

Other DAGs in the same Airflow installation can be scheduled on these assets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from include.evidence.bundle_reader import SealedRun
from include.evidence.model import Outcome, StepRecord
from include.workflow.run_records import RunRecords

SCHEME = "x-parcelseal"  # Airflow gives no meaning of its own to schemes that begin with "x-"
SEALED_BUNDLE = "sealed-bundle"
Details = Mapping[str, str | int | bool | None]


@dataclass(frozen=True)
class AssetEvent:
    """An event which records in Airflow that a run updated an asset.

    Attributes:
        name: name of the asset within its kind, such as ``courier`` or ``courier/customer``.
        outcome: outcome of the steps that produced the asset.
        details: ids, digests and counts; never values of customers.
    """

    name: str
    outcome: Outcome
    details: Details


@dataclass(frozen=True)
class SealedRecords:
    """The step records of a sealed run, as read from its evidence bundle.

    Attributes:
        records: step records, without findings and figures.
        digests: SHA-256 digests of the bundle's files, by file name.
    """

    records: RunRecords
    digests: Mapping[str, str]

    def outcome_of(self, *steps: tuple[str, str]) -> Outcome:
        """Return the worst outcome of the given steps.

        Steps without a record are ignored. If no step has a record, the outcome is ``fail``.

        Args:
            steps: name and part of each step, see `RecordedTask`.
        """
        records = [self.records.find(name, part) for name, part in steps]
        return Outcome.worst([record.outcome for record in records if record is not None])


@dataclass(frozen=True)
class Asset:
    """A kind of asset that a workflow produces, such as restore points.

    Attributes:
        kind: identifier of the kind, such as ``restore-point``.
        events: returns an event for each asset of this kind that a run produced.
    """

    kind: str
    events: Callable[[SealedRecords], Iterator[AssetEvent]]


def asset_uri(kind: str, name: str = "") -> str:
    """Return the URI of an asset, ``x-parcelseal://kind/name``.

    Without a name, return the URI that stands for all assets of the kind.

    Args:
        kind: identifier of the kind, such as ``restore-point``.
        name: name of the asset within its kind.
    """
    return f"{SCHEME}://{kind}/{name}".rstrip("/")


def events_of(assets: tuple[Asset, ...], sealed: SealedRun) -> Iterator[tuple[str, AssetEvent]]:
    """Yield (kind, event) for each asset that a sealed run produced.

    The first event is that of the evidence bundle. The events are read from the sealed bundle, so
    each attempt of the task `seal` yields the same events. The details of each event contain the
    bundle's path and the run's outcome.
    """
    row, result = sealed.row, sealed.result
    bundle: Details = {
        "bundle": row.bundle,
        "sums_sha256": row.sums_sha256,
        "run_outcome": str(result.outcome),
    }
    bundle_details = {**bundle, "findings": len(result.findings)}
    yield SEALED_BUNDLE, AssetEvent(result.run.dag_id, result.outcome, bundle_details)
    steps = [StepRecord(**step.model_dump()) for step in result.steps]
    records = SealedRecords(RunRecords(steps), sealed.digests)
    for asset in assets:
        for event in asset.events(records):
            details = {**bundle, **event.details}
            yield asset.kind, AssetEvent(event.name, event.outcome, details)
