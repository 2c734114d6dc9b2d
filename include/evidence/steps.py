"""What the steps of a run leave for its seal: records, artifacts, and large files ahead of it.

Safe to repeat: a retried task replaces what its earlier try left. Files that are too large for the
state database go into the bundle's folder ahead of the seal. Until then the folder has no signature
and is no bundle; the seal takes in what its run names, after it has read it again, and removes
everything else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from include.evidence.folder import StoreFolder
from include.evidence.model import StepRecord
from include.evidence.names import check_file_names
from include.services.clock import Clock
from include.services.objectstore.base import ObjectMissing, ObjectReader, ObjectStore, ObjectWriter
from include.state.tables import run_artifact, run_step


def record_step(
    conn: Connection, dag_id: str, run_id: str, record: StepRecord, clock: Clock
) -> None:
    """Keep a step's record, in place of an earlier one of the same step and part."""
    row = {"recorded_at": clock.now(), "record": json.loads(record.model_dump_json())}
    conn.execute(
        insert(run_step)
        .values(dag_id=dag_id, run_id=run_id, step=record.step, part=record.part, **row)
        .on_conflict_do_update(constraint=run_step.primary_key, set_=row)
    )


def steps_of(conn: Connection, dag_id: str, run_id: str) -> list[StepRecord]:
    """Return the records of a run, in the order in which they were last recorded."""
    found = conn.scalars(
        select(run_step.c.record)
        .where(run_step.c.dag_id == dag_id, run_step.c.run_id == run_id)
        .order_by(run_step.c.recorded_at, run_step.c.step, run_step.c.part)
    )
    # Not model_validate_json: pydantic would read the string "5" there as a moment of 1970.
    return [StepRecord.model_validate(record) for record in found]


def keep_artifact(conn: Connection, dag_id: str, run_id: str, name: str, content: bytes) -> None:
    """Keep a file for the run's bundle, in place of an earlier one of that name.

    Raises:
        UsageError: the name cannot be a file of a bundle.
    """
    check_file_names([name])
    conn.execute(
        insert(run_artifact)
        .values(dag_id=dag_id, run_id=run_id, name=name, content=content)
        .on_conflict_do_update(constraint=run_artifact.primary_key, set_={"content": content})
    )


def artifacts_of(conn: Connection, dag_id: str, run_id: str) -> dict[str, bytes]:
    """Return the files that a run's steps kept, by name."""
    found = conn.execute(
        select(run_artifact.c.name, run_artifact.c.content)
        .where(run_artifact.c.dag_id == dag_id, run_artifact.c.run_id == run_id)
        .order_by(run_artifact.c.name)
    )
    return {row.name: bytes(row.content) for row in found}


@dataclass(frozen=True)
class FolderAhead:
    """The folder of a bundle that is yet to be sealed.

    Attributes:
        store: the evidence store.
        bundle: its folder, relative to the store.
    """

    store: ObjectStore
    bundle: str

    def writer(self, name: str) -> ObjectWriter:
        """Open a new file, in place of one that an earlier try left.

        Raises:
            UsageError: the name cannot be a file of a bundle.
        """
        check_file_names([name])
        return self.store.open_writer(f"{self.bundle}/{name}")

    def sha256(self, name: str) -> str | None:
        """Return the hex digest of a file as it is now; None when it is gone."""
        try:
            return StoreFolder(self.store, self.bundle).sha256(name)
        except ObjectMissing:
            return None

    def reader(self, name: str) -> ObjectReader:
        """Open a file; raises ObjectMissing."""
        return self.store.open_reader(f"{self.bundle}/{name}")
