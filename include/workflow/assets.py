"""The assets that a workflow produces: other DAGs of the same Airflow may be scheduled on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from include.evidence.model import Outcome, StepRecord
from include.evidence.shelf import SealedRun
from include.workflow.run_records import RunRecords

SCHEME = "x-parcelseal"  # Airflow gives no meaning of its own to schemes that begin with "x-"
SEALED_BUNDLE = "sealed-bundle"
Details = Mapping[str, str | int | bool | None]


@dataclass(frozen=True)
class AssetEvent:
    """An update of an asset by a run.

    Attributes:
        name: of the asset within its kind: ``courier``, ``courier/customer``.
        outcome: of the steps that it comes from.
        details: ids, digests and counts; no customer value.
    """

    name: str
    outcome: Outcome
    details: Details


@dataclass(frozen=True)
class SealedRecords:
    """The records of a sealed run, as its bundle has them.

    Attributes:
        records: of the steps, without findings and figures.
        digests: SHA-256 of the bundle's files, by name.
    """

    records: RunRecords
    digests: Mapping[str, str]

    def outcome_of(self, *steps: tuple[str, str]) -> Outcome:
        """Return the worst outcome of steps, each given by name and part, that left a record."""
        records = [self.records.find(name, part) for name, part in steps]
        return Outcome.worst([record.outcome for record in records if record is not None])


@dataclass(frozen=True)
class Asset:
    """A kind of assets that a workflow produces.

    Attributes:
        kind: ``restore-point``.
        events: returns the updates by a run. An asset that the run did not produce has none.
    """

    kind: str
    events: Callable[[SealedRecords], Iterator[AssetEvent]]


def asset_uri(kind: str, name: str = "") -> str:
    """Return the URI of an asset, or of a kind without a name: ``x-parcelseal://kind/name``."""
    return f"{SCHEME}://{kind}/{name}".rstrip("/")


def events_of(assets: tuple[Asset, ...], sealed: SealedRun) -> Iterator[tuple[str, AssetEvent]]:
    """Yield kind and event of each asset that a sealed run produced; its bundle comes first.

    They are read from the bundle, so each try of a task that seals yields the same ones. Details
    name the bundle and the outcome of the whole run.
    """
    row, result = sealed.row, sealed.result
    bundle: Details = {
        "bundle": row.bundle,
        "sums_sha256": row.sums_sha256,
        "run_outcome": str(result.outcome),
    }
    of_bundle = {**bundle, "findings": len(result.findings)}
    yield SEALED_BUNDLE, AssetEvent(result.run.dag_id, result.outcome, of_bundle)
    steps = [StepRecord(**step.model_dump()) for step in result.steps]
    records = SealedRecords(RunRecords(steps), sealed.digests)
    for asset in assets:
        for event in asset.events(records):
            details = {**bundle, **event.details}
            yield asset.kind, AssetEvent(event.name, event.outcome, details)
