"""Tests of the shipped audit.yaml on the sample courier: each population has a frame and a plan."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from include.local.postgres import EmbeddedPostgres
from include.policy import SHIPPED
from include.registry import load_pack
from include.sample_company import load
from include.sampling.commitment import plan_for
from include.sampling.frame import Frame, freeze, quarter_of
from include.sampling.rules import AUDIT
from include.services.database import DatabaseAddress
from tests.support.databases import temporary_database

NOW = datetime(2026, 10, 5, 1, 30, tzinfo=UTC)
PACK = load_pack(SHIPPED)
POPULATIONS = PACK.require(AUDIT).populations


@pytest.fixture(scope="module")
def source(postgres: EmbeddedPostgres) -> Iterator[str]:
    """Provide the connection string of a database with the sample courier's data."""
    with temporary_database(postgres) as name:
        with psycopg.connect(postgres.conninfo(name)) as connection:
            load(connection, customers=300, as_of=NOW)
        yield postgres.conninfo(name)


def frozen(source: str, name: str) -> tuple[Frame, bytes, Any]:
    """Freeze a population for the last quarter in which it has items.

    Returns:
        The frame, its content, and the population.
    """
    (audited,) = [population for population in POPULATIONS if population.id == name]
    address = DatabaseAddress.from_conninfo(source)
    database = PACK.databases[audited.database]
    for quarter in ("2026Q3", "2026Q2", "2026Q1", "2025Q4"):
        sink = io.BytesIO()
        period = quarter_of(quarter, NOW, PACK.calendar.timezone)
        frame = freeze(address, database, audited, period, sink)
        if frame.items:
            return frame, sink.getvalue(), audited
    raise AssertionError(f"{name} has no items in a year")


@pytest.mark.parametrize("name", [population.id for population in POPULATIONS])
def test_population_of_sample_company_has_items_and_sampling_plan(source: str, name: str) -> None:
    """The SQL of the population runs on the sample data, ids are unique, and a plan exists."""
    frame, content, audited = frozen(source, name)
    assert content.count(b"\n") == frame.items == sum(frame.strata.values())
    plan = plan_for(
        audited.plan,
        audited.tolerable,
        audited.expected,
        audited.confidence,
        frame.strata,
        stratified=audited.strata is not None,
    )
    assert set(plan.drawn) == set(frame.strata)
    assert 1 <= plan.n * plan.stages <= frame.items


@pytest.mark.parametrize("name", [population.id for population in POPULATIONS])
def test_repeated_freeze_of_sample_company_population_gives_same_sampling_frame(
    source: str, name: str
) -> None:
    """The frame does not depend on the current time or the database session."""
    assert frozen(source, name)[:2] == frozen(source, name)[:2]


def test_sql_of_sample_company_populations_uses_period_of_audited_quarter() -> None:
    """Their SQL uses ``period`` and not the current time."""
    for population in POPULATIONS:
        for word in ("period.starts", "period.ends"):
            assert word in population.sql
        for word in ("now()", "current_date", "CURRENT_TIMESTAMP"):
            assert word not in population.sql
