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
from include.sampling.commitment import Committed, Plan
from include.sampling.exact.strata import allocate
from include.sampling.frame import Frame, freeze
from include.sampling.rules import frame_file
from include.sampling.samples import sample
from include.services.database import DatabaseAddress
from include.services.objectstore.directory import DirectoryStore

SEED = "3241.17"


def committed(name: str, frame: Frame, items: int) -> Committed:
    """What `sample_audit` would commit to, for so many items whatever the rates are."""
    population = data.population(name)
    drawn = allocate(items, frame.strata)
    return Committed(
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
            n=drawn.total,
            acceptable=0,
            achieved_risk="0",
            drawn=dict(drawn.drawn),
        ),
        attributes=("approved",),
    )


def draw(given: dict[str, Any]) -> dict[str, Any]:
    """Freeze a population, hash its frame once more as the step that draws does, and draw."""
    name = given["name"]
    folder = UnsealedFolder(DirectoryStore(Path(given["store"])), "bundle")
    address = DatabaseAddress.from_conninfo(given["database"])
    begun = time.monotonic()
    with folder.writer(frame_file(name)) as writer:
        frame = freeze(address, data.mapped(), data.population(name), data.QUARTER, writer)
        writer.commit()
    frozen = time.monotonic()
    made = committed(name, frame, given["items"])
    digest = hashlib.sha256()
    with folder.reader(made.file) as reader:
        while piece := reader.read(1024 * 1024):
            digest.update(piece)
    hashed = time.monotonic()
    with folder.reader(made.file) as reader:
        drawn = sample(SEED, data.QUARTER.id, made, reader)
    ended = time.monotonic()
    if digest.hexdigest() != frame.sha256 or len(drawn.items) != made.plan.n:
        sys.exit("What was drawn is not what was frozen.")
    return {
        "sha256": frame.sha256,
        "items": frame.items,
        "strata": len(frame.strata),
        "drawn": len(drawn.items),
        "freeze": frozen - begun,
        "hash": hashed - frozen,
        "draw": ended - hashed,
        "all": ended - begun,
    }


def main() -> None:
    """Do what the file says."""
    file = Path(sys.argv[1])
    file.write_text(json.dumps(draw(json.loads(file.read_text()))))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # so do Airflow's task processes
