"""Measure the freezing and drawing of `benchmarks.sampling` in a separate process.

``python -m benchmarks._sampling_once FILE`` reads the parameters as JSON from FILE and writes the
result into FILE.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks import _sampling_data as data
from include.evidence.step_findings import UnsealedFolder
from include.sampling.commitment import CommittedPopulation, Plan
from include.sampling.exact.strata import allocate
from include.sampling.frame import Frame, freeze
from include.sampling.rules import frame_file
from include.sampling.samples import sample
from include.services.database import DatabaseAddress
from include.services.objectstore.directory import DirectoryStore

SEED = "3241.17"


def commitment_of(name: str, frame: Frame, items: int) -> CommittedPopulation:
    """Return the commitment that `sample_audit` would make for a given sample size."""
    population = data.population(name)
    allocation = allocate(items, frame.strata)
    return CommittedPopulation(
        population=name,
        file=frame_file(name),
        sha256=frame.sha256,
        items=frame.items,
        strata=dict(frame.strata),
        stratified=population.strata is not None,
        tolerable=population.tolerable,
        expected=population.expected,
        confidence=population.confidence,
        planned_as="single",
        plan=Plan(
            kind="single",
            method="binomial",
            stages=1,
            n=allocation.total,
            acceptable=0,
            achieved_risk="0",
            drawn=dict(allocation.drawn),
        ),
        attributes=("approved",),
    )


def draw(parameters: dict[str, Any]) -> dict[str, Any]:
    """Measure freezing a population, hashing its sampling frame again, and drawing a sample."""
    name = parameters["name"]
    folder = UnsealedFolder(DirectoryStore(Path(parameters["store"])), "bundle")
    address = DatabaseAddress.from_conninfo(parameters["database"])
    started = time.monotonic()
    with folder.writer(frame_file(name)) as writer:
        frame = freeze(address, data.mapped_database(), data.population(name), data.QUARTER, writer)
        writer.commit()
    frozen = time.monotonic()
    commitment = commitment_of(name, frame, parameters["items"])
    digest = hashlib.sha256()
    with folder.reader(commitment.file) as reader:
        while chunk := reader.read(1024 * 1024):
            digest.update(chunk)
    hashed = time.monotonic()
    with folder.reader(commitment.file) as reader:
        drawn = sample(SEED, data.QUARTER.id, commitment, reader)
    ended = time.monotonic()
    if digest.hexdigest() != frame.sha256 or len(drawn.items) != commitment.plan.n:
        sys.exit("The drawn sample does not match the frozen population.")
    return {
        "sha256": frame.sha256,
        "items": frame.items,
        "strata": len(frame.strata),
        "drawn": len(drawn.items),
        "freeze": frozen - started,
        "hash": hashed - frozen,
        "draw": ended - hashed,
        "all": ended - started,
    }


def main() -> None:
    """Measure with the parameters in the file, and write the result into the file."""
    file = Path(sys.argv[1])
    file.write_text(json.dumps(draw(json.loads(file.read_text()))))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # as Airflow's task processes do
