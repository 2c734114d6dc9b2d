"""Findings, figures and results of a run's steps, and the files that they keep for its seal.

Safe to repeat: a retried task replaces what its earlier try left. Files that are too large for the
state database go into the bundle's folder ahead of the seal. Until then the folder has no signature
and is no bundle; the seal takes in what its run names, after it has read it again, and removes
everything else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from include.evidence.folder import StoreFolder, check_file_names
from include.evidence.model import Finding, Metric, Outcome, StepRecord
from include.frozen import FrozenModel
from include.messages import Message
from include.services.clock import Clock
from include.services.objectstore.base import ObjectMissing, ObjectReader, ObjectStore, ObjectWriter
from include.state.tables import run_artifact, run_step


class StepResult(FrozenModel):
    """The result of a step, as later steps and the report read it.

    The state database and ``result.json`` store it as JSON, without customer values.
    """

    def as_json(self) -> dict[str, Any]:
        """Return the plain JSON form."""
        return self.model_dump(mode="json")


Result = TypeVar("Result", bound=StepResult)


def result_of(record: StepRecord | None, model: type[Result]) -> Result | None:
    """Return the result in a step's record; None if the step was interrupted, failed or skipped."""
    if record is None or not record.data:
        return None
    return model.model_validate(record.data)


@dataclass
class StepFindings:
    """Findings and figures of a step.

    Attributes:
        step: name of the step, ``backup``.
        clause: policy clause of its findings, where a finding names no other.
        part: what the step works on, ``courier``; empty when there is one.
    """

    step: str
    clause: str
    part: str = ""
    findings: list[Finding] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)

    def find(
        self,
        code: str,
        severity: Outcome,
        message: Message,
        action: Message,
        *,
        subject: str = "",
        clause: str = "",
    ) -> None:
        """Add a finding; its subject is the step's part unless another is named."""
        self.findings.append(
            Finding(
                code=code,
                severity=severity,
                subject=subject or self.part or self.step,
                message=message,
                action=action,
                clause=clause or self.clause,
            )
        )

    def fail(self, code: str, message: Message, action: Message, *, subject: str = "") -> None:
        """Report a finding that fails the step; see `find`."""
        self.find(code, Outcome.FAIL, message, action, subject=subject)

    def warn(
        self, code: str, message: Message, action: Message, *, subject: str = "", clause: str = ""
    ) -> None:
        """Report a finding that needs attention; see `find`."""
        self.find(code, Outcome.ATTENTION, message, action, subject=subject, clause=clause)

    def measure(
        self, name: str, value: float | None, unit: str, target: float | None = None
    ) -> None:
        """Add a figure about the step's part."""
        self.metrics.append(
            Metric(name=name, value=value, unit=unit, target=target, subject=self.part)
        )

    @property
    def has_failed(self) -> bool:
        """Return whether a finding fails the step."""
        return any(finding.severity is Outcome.FAIL for finding in self.findings)

    def record(self, result: StepResult | Mapping[str, Any]) -> StepRecord:
        """Return the step's record; its outcome is the worst finding.

        Args:
            result: of the step; no customer value. Plain JSON where a step has no type yet.
        """
        data = result.as_json() if isinstance(result, StepResult) else dict(result)
        return StepRecord(
            step=self.step,
            part=self.part,
            outcome=Outcome.worst([Outcome.PASS, *(finding.severity for finding in self.findings)]),
            findings=self.findings,
            metrics=self.metrics,
            data=data,
        )


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
    records = conn.scalars(
        select(run_step.c.record)
        .where(run_step.c.dag_id == dag_id, run_step.c.run_id == run_id)
        .order_by(run_step.c.recorded_at, run_step.c.step, run_step.c.part)
    )
    # Not model_validate_json: pydantic would read the string "5" there as a moment of 1970.
    return [StepRecord.model_validate(record) for record in records]


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
    rows = conn.execute(
        select(run_artifact.c.name, run_artifact.c.content)
        .where(run_artifact.c.dag_id == dag_id, run_artifact.c.run_id == run_id)
        .order_by(run_artifact.c.name)
    )
    return {row.name: bytes(row.content) for row in rows}


@dataclass(frozen=True)
class UnsealedFolder:
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
