"""The register of audits: commitments, seeds, drawn samples and verdicts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, Table, and_, not_, select
from sqlalchemy.dialects.postgresql import insert

from include.evidence import ledger
from include.notify.outbox import Run
from include.sampling.commitment import Sealed
from include.sampling.evaluation import Verdict
from include.sampling.rules import COMMITMENT_WORKFLOW
from include.sampling.samples import Cause, Sample, Seed
from include.sampling.tables import audit_commitment, audit_result, audit_sample, audit_seed


@dataclass(frozen=True)
class Refusal:
    """A seed that was not taken."""

    entered_by: str
    entered_at: datetime
    cause: str


@dataclass(frozen=True)
class Earlier:
    """A run that committed to an audit before, or drew it.

    Attributes:
        run_id: of the run.
        at: when it sealed its commitment, or drew.
    """

    run_id: str
    at: datetime


def drawn_by(conn: Connection, audit: str, population: str) -> Earlier | None:
    """Return the run that drew a population of an audit, or None."""
    return _drawn(conn, audit, audit_sample.c.population == population)


def has_drawn(conn: Connection, audit: str, run_id: str) -> bool:
    """Return whether a run drew anything of an audit, under whatever names."""
    return _drawn(conn, audit, audit_sample.c.run_id == run_id) is not None


def frame_drawn_by(conn: Connection, audit: str, sha256: str, run: Run) -> Earlier | None:
    """Return the other run that drew just this frame for an audit, under another name."""
    table = audit_sample.c
    return _drawn(conn, audit, table.frame_sha256 == sha256, table.run_id != run.run_id)


def _drawn(conn: Connection, audit: str, *conditions: ColumnElement[bool]) -> Earlier | None:
    table = audit_sample.c
    query = select(table.run_id, table.drawn_at).where(table.audit == audit, *conditions)
    row = conn.execute(query).first()
    return Earlier(*row) if row else None


def _of(table: Table, run: Run) -> ColumnElement[bool]:
    return and_(table.c.dag_id == run.dag_id, table.c.run_id == run.run_id)


def remember_commitment(conn: Connection, run: Run, audit: str, sha256: str, at: Sealed) -> None:
    """Record where a run's commitment was sealed; the first one stands."""
    row = {**asdict(run), "audit": audit, "sha256": sha256, **at.model_dump()}
    conn.execute(insert(audit_commitment).values(row).on_conflict_do_nothing())


def commitment_of(conn: Connection, run: Run) -> Sealed | None:
    """Return where a run's commitment was sealed, by the ledger of evidence.

    The register's own row says only that the run came so far: the ledger is what is chained.
    """
    row = ledger.find(conn, COMMITMENT_WORKFLOW, run.run_id)
    query = select(audit_commitment.c.bundle).where(_of(audit_commitment, run))
    if row is None or conn.execute(query).first() is None:
        return None
    return Sealed(bundle=row.bundle, sums_sha256=row.sums_sha256, sealed_at=row.sealed_at)


def commitments_before(conn: Connection, audit: str, run: Run) -> list[Earlier]:
    """Return the other runs that committed to an audit, oldest first.

    One that was never drawn may mean that somebody did not like what a seed would have drawn.
    """
    table = audit_commitment.c
    query = (
        select(table.run_id, table.sealed_at)
        .where(table.audit == audit, not_(_of(audit_commitment, run)))
        .order_by(table.sealed_at)
    )
    return [Earlier(*row) for row in conn.execute(query)]


def is_used(conn: Connection, seed: str, run: Run) -> bool:
    """Return whether another run was drawn by a seed."""
    table = audit_seed.c
    query = select(table.id).where(
        table.seed == seed, table.refused.is_(None), not_(_of(audit_seed, run))
    )
    return conn.execute(query).first() is not None


def keep_seed(
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
    """Keep what an auditor entered, taken or refused; a repeated try changes nothing.

    Returns:
        Why it is refused, now or when it was kept before: another run may take the seed between a
        look and this. None where it is taken.
    """
    row = {**asdict(run), "seed": seed, "source": source, "published_at": published_at}
    row |= {"entered_by": entered_by, "entered_at": entered_at}
    table = audit_seed.c
    same = select(table.refused).where(
        _of(audit_seed, run), table.entered_by == entered_by, table.entered_at == entered_at
    )
    for cause in (refused, Cause.USED):
        entry = insert(audit_seed).values(**row, refused=cause).on_conflict_do_nothing()
        conn.execute(entry)
        if (kept := conn.execute(same).first()) is not None:
            break
    return kept.refused if kept else Cause.USED


def seed_of(conn: Connection, run: Run) -> Seed | None:
    """Return the seed of a run with the commitment before it, or None."""
    columns = (audit_seed.c[name] for name in Seed.model_fields if name != "commitment")
    query = select(*columns).where(_of(audit_seed, run), audit_seed.c.refused.is_(None))
    row = conn.execute(query).mappings().first()
    commitment = commitment_of(conn, run)
    return Seed(**row, commitment=commitment) if row and commitment else None


def refusals_of(conn: Connection, run: Run) -> list[Refusal]:
    """Return the seeds of a run that were not taken, oldest first."""
    table = audit_seed.c
    query = (
        select(table.entered_by, table.entered_at, table.refused)
        .where(_of(audit_seed, run), table.refused.is_not(None))
        .order_by(table.entered_at)
    )
    return [Refusal(*row) for row in conn.execute(query)]


def remember_sample(
    conn: Connection, run: Run, sample: Sample, sha256: str, drawn_at: datetime
) -> bool:
    """Keep that a population was drawn; False when another run did before."""
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


def conclude(conn: Connection, run: Run, audit: str, verdict: Verdict, at: datetime) -> Verdict:
    """Keep a verdict; the first one of a quarter and population stands and is returned."""
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
    return of_audit(conn, audit)[verdict.population]


def of_audit(conn: Connection, audit: str) -> dict[str, Verdict]:
    """Return the verdicts of a quarter, by population."""
    table = audit_result.c
    rows = conn.execute(
        select(table.population, table.verdict)
        .where(table.audit == audit)
        .order_by(table.population)
    )
    return {row.population: Verdict.model_validate(row.verdict) for row in rows}


def latest(conn: Connection) -> dict[str, tuple[str, bool]]:
    """Return the last verdict of each population: its quarter, and whether it was accepted."""
    table = audit_result.c
    rows = conn.execute(select(table.population, table.audit, table.accepted).order_by(table.audit))
    return {row.population: (row.audit, row.accepted) for row in rows}  # the last one stays
