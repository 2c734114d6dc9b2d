"""The register of audits: commitments, seeds, samples and verdicts in the state database."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Table, and_, not_, select
from sqlalchemy.dialects.postgresql import insert

from include.evidence import ledger
from include.notify.outbox import Run
from include.sampling.commitment import CommitmentLocation
from include.sampling.evaluation import Verdict
from include.sampling.rules import COMMITMENT_WORKFLOW
from include.sampling.samples import Sample, Seed, SeedRefusalCause
from include.sampling.tables import audit_commitment, audit_result, audit_sample, audit_seed


@dataclass(frozen=True)
class SeedRefusal:
    """A random seed that was refused.

    Attributes:
        entered_by: user id of the person who entered the seed.
        entered_at: time at which the seed was entered.
        cause: value of `SeedRefusalCause`, the reason for the refusal.
    """

    entered_by: str
    entered_at: datetime
    cause: str


@dataclass(frozen=True)
class EarlierRun:
    """A run that sealed a commitment, or drew a sample, for an audited quarter.

    Attributes:
        run_id: id of the run.
        at: time at which the run sealed its commitment, or drew the sample.
    """

    run_id: str
    at: datetime


def drawn_by(conn: Connection, audit: str, population: str) -> EarlierRun | None:
    """Return the run that drew the sample of a population for a quarter; None if no run did.

    Args:
        conn: the state database.
        audit: id of the audited quarter.
        population: id of the population.
    """
    return _drawn(conn, audit, audit_sample.c.population == population)


def has_drawn(conn: Connection, audit: str, run_id: str) -> bool:
    """Return whether a run drew at least one sample for an audited quarter.

    Args:
        conn: the state database.
        audit: id of the audited quarter.
        run_id: id of the run.
    """
    return _drawn(conn, audit, audit_sample.c.run_id == run_id) is not None


def frame_drawn_by(conn: Connection, audit: str, sha256: str, run: Run) -> EarlierRun | None:
    """Return a run, other than `run`, that drew a sample from a frame with the given digest.

    Return None if no other run drew such a sample for the quarter. The digest covers only the
    items. Therefore the other run may have drawn its sample under another population id.

    Args:
        conn: the state database.
        audit: id of the audited quarter.
        sha256: hex digest of the frame.
        run: DAG id and run id of the run that is left out.
    """
    table = audit_sample.c
    return _drawn(conn, audit, table.frame_sha256 == sha256, table.run_id != run.run_id)


def _drawn(conn: Connection, audit: str, *conditions: ColumnElement[bool]) -> EarlierRun | None:
    table = audit_sample.c
    query = select(table.run_id, table.drawn_at).where(table.audit == audit, *conditions)
    row = conn.execute(query).first()
    return EarlierRun(*row) if row else None


def _of_run(table: Table, run: Run) -> ColumnElement[bool]:
    return and_(table.c.dag_id == run.dag_id, table.c.run_id == run.run_id)


def record_commitment(
    conn: Connection, run: Run, audit: str, sha256: str, at: CommitmentLocation
) -> None:
    """Record where a run's commitment is sealed. A repeated call keeps the earlier record.

    Args:
        conn: the state database, in a transaction.
        run: DAG id and run id.
        audit: id of the audited quarter.
        sha256: hex digest of commitment.json.
        at: location of the sealed commitment.
    """
    row = {**asdict(run), "audit": audit, "sha256": sha256, **at.model_dump()}
    conn.execute(insert(audit_commitment).values(row).on_conflict_do_nothing())


def commitment_of(conn: Connection, run: Run) -> CommitmentLocation | None:
    """Return where a run's commitment is sealed; None if the run has no commitment.

    The register of audits only shows whether the run has a commitment. The location is read from
    the evidence ledger, whose entries are chained and therefore cannot be changed unnoticed.
    """
    row = ledger.find(conn, COMMITMENT_WORKFLOW, run.run_id)
    query = select(audit_commitment.c.bundle).where(_of_run(audit_commitment, run))
    if row is None or conn.execute(query).first() is None:
        return None
    return CommitmentLocation(
        bundle=row.bundle, sums_sha256=row.sums_sha256, sealed_at=row.sealed_at
    )


def commitments_before(conn: Connection, audit: str, run: Run) -> list[EarlierRun]:
    """Return the runs, other than `run`, that sealed a commitment for a quarter, oldest first.

    If one of these runs drew no sample, the auditors may have abandoned it on purpose. They could
    compute the sample as soon as the seed was published, and may have wanted another sample.

    Args:
        conn: the state database.
        audit: id of the audited quarter.
        run: DAG id and run id of the run that is left out.
    """
    table = audit_commitment.c
    query = (
        select(table.run_id, table.sealed_at)
        .where(table.audit == audit, not_(_of_run(audit_commitment, run)))
        .order_by(table.sealed_at)
    )
    return [EarlierRun(*row) for row in conn.execute(query)]


def is_used(conn: Connection, seed: str, run: Run) -> bool:
    """Return whether a seed was already accepted in another run.

    Args:
        conn: the state database.
        seed: text of the seed.
        run: DAG id and run id of the run in which the seed was entered now.
    """
    table = audit_seed.c
    query = select(table.id).where(
        table.seed == seed, table.refused.is_(None), not_(_of_run(audit_seed, run))
    )
    return conn.execute(query).first() is not None


def record_seed(
    conn: Connection,
    run: Run,
    *,
    seed: str,
    source: str,
    published_at: datetime | None,
    entered_by: str,
    entered_at: datetime,
    refused: str | None,
) -> str | None:
    """Record a seed that an auditor entered, as accepted or refused.

    A repeated call for the same person and time changes nothing and returns the recorded result.

    Args:
        conn: the state database, in a transaction.
        run: DAG id and run id.
        seed: text of the seed.
        source: publication in which the auditor read the seed.
        published_at: time of publication; None if the auditor did not enter a valid time.
        entered_by: user id of the person who entered the seed.
        entered_at: time at which the seed was entered.
        refused: value of `SeedRefusalCause`, the reason why the caller refuses the seed; None if
            the caller accepts it.

    Returns:
        The reason why the seed is refused, or None if it is accepted. The seed is also refused if
        another run recorded the same seed after the caller's check.
    """
    row = {**asdict(run), "seed": seed, "source": source, "published_at": published_at}
    row |= {"entered_by": entered_by, "entered_at": entered_at}
    table = audit_seed.c
    own_entry = select(table.refused).where(
        _of_run(audit_seed, run), table.entered_by == entered_by, table.entered_at == entered_at
    )
    for cause in (refused, SeedRefusalCause.USED):
        entry = insert(audit_seed).values(**row, refused=cause).on_conflict_do_nothing()
        conn.execute(entry)
        if (recorded := conn.execute(own_entry).first()) is not None:
            break
    return recorded.refused if recorded else SeedRefusalCause.USED


def seed_of(conn: Connection, run: Run) -> Seed | None:
    """Return the accepted seed of a run, with the commitment that was sealed before it.

    The result is None if the run has no accepted seed or no commitment.
    """
    columns = (audit_seed.c[name] for name in Seed.model_fields if name != "commitment")
    query = select(*columns).where(_of_run(audit_seed, run), audit_seed.c.refused.is_(None))
    row = conn.execute(query).mappings().first()
    commitment = commitment_of(conn, run)
    return Seed(**row, commitment=commitment) if row and commitment else None


def refusals_of(conn: Connection, run: Run) -> list[SeedRefusal]:
    """Return the seeds that were refused in a run, oldest first."""
    table = audit_seed.c
    query = (
        select(table.entered_by, table.entered_at, table.refused)
        .where(_of_run(audit_seed, run), table.refused.is_not(None))
        .order_by(table.entered_at)
    )
    return [SeedRefusal(*row) for row in conn.execute(query)]


def record_sample(
    conn: Connection, run: Run, sample: Sample, sha256: str, drawn_at: datetime
) -> bool:
    """Record that a run drew the sample of a population for a quarter, and return True.

    If another run has already recorded its sample of this population for the quarter, nothing is
    recorded and False is returned.

    Args:
        conn: the state database, in a transaction.
        run: DAG id and run id.
        sample: the sample, which names its quarter and population.
        sha256: hex digest of the file that contains the sample.
        drawn_at: time of the draw.
    """
    conn.execute(
        insert(audit_sample)
        .values(
            audit=sample.audit,
            population=sample.population,
            dag_id=run.dag_id,
            run_id=run.run_id,
            frame_sha256=sample.frame_sha256,
            sample_sha256=sha256,
            items=len(sample.items),
            drawn_at=drawn_at,
        )
        .on_conflict_do_nothing()
    )
    earlier = drawn_by(conn, sample.audit, sample.population)
    return earlier is not None and earlier.run_id == run.run_id


def record_verdict(
    conn: Connection, run: Run, audit: str, verdict: Verdict, at: datetime
) -> Verdict:
    """Record the verdict on a population, if the population has no verdict for the quarter yet.

    Args:
        conn: the state database, in a transaction.
        run: DAG id and run id of the run that evaluated the population.
        audit: id of the audited quarter.
        verdict: the verdict, which names the population.
        at: time of the verdict.

    Returns:
        The recorded verdict. If the population already had a verdict for the quarter, this is the
        earlier verdict.
    """
    row = {
        "audit": audit,
        "population": verdict.population,
        "dag_id": run.dag_id,
        "run_id": run.run_id,
        "concluded_at": at,
        "accepted": verdict.decision == "accepted",
        "verdict": verdict.model_dump(mode="json"),
    }
    conn.execute(insert(audit_result).values(row).on_conflict_do_nothing())
    return verdicts_of(conn, audit)[verdict.population]


def verdicts_of(conn: Connection, audit: str) -> dict[str, Verdict]:
    """Return the verdicts of an audited quarter: population -> verdict."""
    table = audit_result.c
    rows = conn.execute(
        select(table.population, table.verdict)
        .where(table.audit == audit)
        .order_by(table.population)
    )
    return {row.population: Verdict.model_validate(row.verdict) for row in rows}


def latest_verdicts(conn: Connection) -> dict[str, tuple[str, bool]]:
    """Return the verdict on each population for the last quarter in which it was audited.

    Returns:
        Population -> (last audited quarter, whether the population was accepted).
    """
    table = audit_result.c
    rows = conn.execute(select(table.population, table.audit, table.accepted).order_by(table.audit))
    return {row.population: (row.audit, row.accepted) for row in rows}  # a later quarter wins
