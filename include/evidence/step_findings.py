"""Store the findings, figures, results and files of a run's steps until the run is sealed.

All functions can be repeated: if Airflow retries a task, the new records replace those of the
earlier attempt. Files that are too large for the state database are written to the bundle's folder
before the seal. The seal checks the files that the steps recorded, includes them in the bundle, and
deletes all other files in the folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert

from include.evidence.folder import StoreFolder, check_file_names
from include.evidence.model import Coverage, Finding, Metric, Outcome, StepRecord
from include.frozen import FrozenModel
from include.messages import Message
from include.services.clock import Clock
from include.services.objectstore.base import ObjectMissing, ObjectReader, ObjectStore, ObjectWriter
from include.state.tables import run_artifact, run_step


class StepResult(FrozenModel):
    """The base class of step results, which later steps and the report read.

    A result is stored as JSON in the state database and in ``result.json``, so it must not contain
    customers' data.
    """

    def as_json(self) -> dict[str, Any]:
        """Return the result as plain JSON values."""
        return self.model_dump(mode="json")


Result = TypeVar("Result", bound=StepResult)


def result_of(record: StepRecord | None, model: type[Result]) -> Result | None:
    """Return the result in a step record; None if the step left no record or no result.

    A step leaves no result if it was interrupted, failed or skipped.

    Args:
        record: the step record; None if the step left no record.
        model: the class of the result.
    """
    if record is None or not record.data:
        return None
    return model.model_validate(record.data)


@dataclass
class StepFindings:
    """Collects the findings and figures of a step.

    Attributes:
        step: name of the step, such as ``backup``.
        clause: number of the policy clause for findings that state no clause of their own.
        part: name of what the task works on if the step has several parallel tasks, such as the
            database ``courier``; otherwise empty.
        title: display name of the step, which findings about the step itself show; None if there
            are no such findings.
        findings: the findings so far.
        metrics: the figures so far.
        subject_titles: display names of the subjects of findings: id of the subject -> display
            name.
        coverage: subjects that the step examines completely; see `examine_only` and
            `select_parts_of`.
        could_not_run: whether the step refused the run before any work.
    """

    step: str
    clause: str
    part: str = ""
    title: Message | None = None
    findings: list[Finding] = field(default_factory=list)
    metrics: list[Metric] = field(default_factory=list)
    subject_titles: dict[str, Message] = field(default_factory=dict)
    coverage: Coverage = field(default_factory=Coverage)
    could_not_run: bool = False

    def examine_only(self, subjects: Iterable[str], codes: Iterable[str] = ()) -> None:
        """State that the step examines only the given subjects, the step itself and its part.

        A step that is limited by the policy pack, such as the check of mapped tables, must call
        this method. Otherwise a finding would be closed when its subject is removed from the policy
        pack.

        Args:
            subjects: subjects of possible findings.
            codes: codes of findings for which the step examines every possible subject.
        """
        examined = {self.step, self.part, *subjects} - {""}
        self.coverage = Coverage(subjects=tuple(sorted(examined)), codes=tuple(sorted(codes)))

    def select_parts_of(self, *steps: str) -> None:
        """State that the step selected every part of the given mapped steps that still exists.

        Without this statement, a finding about a part is closed only by a run that works on the
        part again.

        Args:
            steps: names of the mapped steps.
        """
        self.coverage = self.coverage.model_copy(update={"steps": steps})

    def find(
        self,
        code: str,
        severity: Outcome,
        message: Message,
        action: Message,
        *,
        subject: str = "",
        clause: str = "",
        for_engineers: Message | None = None,
        aspect: str = "",
    ) -> None:
        """Add a finding.

        Args:
            code: stable identifier, such as ``backup.recipients.too_few``.
            severity: ``fail`` or ``attention``.
            message: text that describes the finding.
            action: what the reader should do, in words for compliance staff.
            subject: what the finding is about, such as a database. If it is empty, the finding is
                about `part`, or about the step if `part` is empty too.
            clause: number of the policy clause; if it is empty, the clause of the step.
            for_engineers: the command, file, key or task that the action concerns, in words for
                engineers.
            aspect: id that distinguishes findings with the same code and subject, such as the id of
                an expectation.
        """
        is_about_step = not (subject or self.part)
        self.findings.append(
            Finding(
                code=code,
                severity=severity,
                subject=subject or self.part or self.step,
                subject_title=self.title
                if is_about_step
                else self.subject_titles.get(subject or self.part),
                message=message,
                action=action,
                clause=clause or self.clause,
                for_engineers=for_engineers,
                aspect=aspect,
            )
        )

    def fail(
        self,
        code: str,
        message: Message,
        action: Message,
        *,
        subject: str = "",
        for_engineers: Message | None = None,
    ) -> None:
        """Add a finding with severity ``fail``. The outcome of the step is then ``fail``.

        For arguments, see `find`.
        """
        self.find(code, Outcome.FAIL, message, action, subject=subject, for_engineers=for_engineers)

    def warn(
        self,
        code: str,
        message: Message,
        action: Message,
        *,
        subject: str = "",
        clause: str = "",
        for_engineers: Message | None = None,
        aspect: str = "",
    ) -> None:
        """Add a finding with severity ``attention``. For arguments, see `find`."""
        self.find(
            code,
            Outcome.ATTENTION,
            message,
            action,
            subject=subject,
            clause=clause,
            for_engineers=for_engineers,
            aspect=aspect,
        )

    def measure(
        self, name: str, value: float | None, unit: str, target: float | None = None
    ) -> None:
        """Add a figure about `part`, such as the database that the task works on.

        Args:
            name: stable identifier of the figure, such as ``backup.rows``.
            value: the figure; None if it was not measured.
            unit: ``rows``, ``bytes``, ``seconds``, or ``1`` for a ratio or count.
            target: required value, in the same unit; None if no value is required.
        """
        self.metrics.append(
            Metric(name=name, value=value, unit=unit, target=target, subject=self.part)
        )

    def refuse_run(self) -> None:
        """Record that the run did nothing, because its inputs are wrong."""
        self.could_not_run = True

    @property
    def has_failed(self) -> bool:
        """Return whether any finding so far has severity ``fail``."""
        return any(finding.severity is Outcome.FAIL for finding in self.findings)

    def record(self, result: StepResult | Mapping[str, Any]) -> StepRecord:
        """Return the step's record with its findings, figures and result.

        The outcome is the worst severity of the findings, or ``pass`` if the step has no findings.

        Args:
            result: result of the step, without customers' data.
        """
        data = result.as_json() if isinstance(result, StepResult) else dict(result)
        return StepRecord(
            step=self.step,
            part=self.part,
            outcome=Outcome.worst([Outcome.PASS, *(finding.severity for finding in self.findings)]),
            findings=[
                finding.model_copy(update={"step": self.step, "part": self.part})
                for finding in self.findings
            ],
            metrics=self.metrics,
            data=data,
            coverage=self.coverage,
            could_not_run=self.could_not_run,
        )


def record_step(
    conn: Connection, dag_id: str, run_id: str, record: StepRecord, clock: Clock
) -> None:
    """Store a step record.

    An earlier record of the run with the same `step` and `part` is replaced.
    """
    row = {"recorded_at": clock.now(), "record": json.loads(record.model_dump_json())}
    conn.execute(
        insert(run_step)
        .values(dag_id=dag_id, run_id=run_id, step=record.step, part=record.part, **row)
        .on_conflict_do_update(constraint=run_step.primary_key, set_=row)
    )


def steps_of(conn: Connection, dag_id: str, run_id: str) -> list[StepRecord]:
    """Return the step records of a run, ordered by the time at which they were last stored."""
    records = conn.scalars(
        select(run_step.c.record)
        .where(run_step.c.dag_id == dag_id, run_step.c.run_id == run_id)
        .order_by(run_step.c.recorded_at, run_step.c.step, run_step.c.part)
    )
    # Not model_validate_json: pydantic would read the string "5" there as a moment of 1970.
    return [StepRecord.model_validate(record) for record in records]


def keep_artifact(conn: Connection, dag_id: str, run_id: str, name: str, content: bytes) -> None:
    """Store a file for the run's bundle in the state database.

    The file replaces an earlier file with the same name.

    Args:
        conn: connection to the state database.
        dag_id: DAG id of the workflow.
        run_id: Airflow id of the run.
        name: relative name of the file in the bundle.
        content: content of the file.

    Raises:
        UsageError: the file name is not allowed in a bundle.
    """
    check_file_names([name])
    conn.execute(
        insert(run_artifact)
        .values(dag_id=dag_id, run_id=run_id, name=name, content=content)
        .on_conflict_do_update(constraint=run_artifact.primary_key, set_={"content": content})
    )


def artifacts_of(conn: Connection, dag_id: str, run_id: str) -> dict[str, bytes]:
    """Return the files that a run's steps stored in the state database: name -> content."""
    rows = conn.execute(
        select(run_artifact.c.name, run_artifact.c.content)
        .where(run_artifact.c.dag_id == dag_id, run_artifact.c.run_id == run_id)
        .order_by(run_artifact.c.name)
    )
    return {row.name: bytes(row.content) for row in rows}


@dataclass(frozen=True)
class UnsealedFolder:
    """The folder of a bundle that is not sealed yet. Steps write large files to it.

    Attributes:
        store: the evidence store.
        bundle: folder of the bundle, relative to the store.
    """

    store: ObjectStore
    bundle: str

    def writer(self, name: str) -> ObjectWriter:
        """Open a file for writing. A file that an earlier attempt of the step left is replaced.

        Raises:
            UsageError: the file name is not allowed in a bundle.
        """
        check_file_names([name])
        return self.store.open_writer(f"{self.bundle}/{name}")

    def sha256(self, name: str) -> str | None:
        """Return the SHA-256 digest of a stored file, in hex; None if the file does not exist."""
        try:
            return StoreFolder(self.store, self.bundle).sha256(name)
        except ObjectMissing:
            return None

    def reader(self, name: str) -> ObjectReader:
        """Open a file for reading.

        Raises:
            ObjectMissing: the file is missing.
        """
        return self.store.open_reader(f"{self.bundle}/{name}")
