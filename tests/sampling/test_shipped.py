"""The shipped audit.yaml on the sample courier: every population is frozen, committed and drawn."""

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
from tests.support.databases import fresh

NOW = datetime(2026, 10, 5, 1, 30, tzinfo=UTC)
PACK = load_pack(SHIPPED)
POPULATIONS = PACK.require(AUDIT).populations


@pytest.fixture(scope="module")
def source(postgres: EmbeddedPostgres) -> Iterator[str]:
    """A loaded courier."""
    with fresh(postgres) as name:
        with psycopg.connect(postgres.conninfo(name)) as connection:
            load(connection, customers=300, as_of=NOW)
        yield postgres.conninfo(name)


def frozen(source: str, name: str) -> tuple[Frame, bytes, Any]:
    """Freeze a population of the last quarter that has any items."""
    (made,) = [one for one in POPULATIONS if one.id == name]
    address = DatabaseAddress.from_conninfo(source)
    database = PACK.databases[made.database]
    for quarter in ("2026Q3", "2026Q2", "2026Q1", "2025Q4"):
        sink = io.BytesIO()
        asked = quarter_of(quarter, NOW, PACK.calendar.timezone)
        frame = freeze(address, database, made, asked, sink)
        if frame.items:
            return frame, sink.getvalue(), made
    raise AssertionError(f"{name} has no items in a year")


@pytest.mark.parametrize("name", [one.id for one in POPULATIONS])
def test_every_shipped_population_has_items_and_a_plan(source: str, name: str) -> None:
    """Its SQL fits the sample, its ids are unique, and a sample can show what it asks for."""
    frame, content, made = frozen(source, name)
    assert content.count(b"\n") == frame.items == sum(frame.strata.values())
    plan = plan_for(
        made.plan,
        made.tolerable,
        made.expected,
        made.confidence,
        frame.strata,
        stratified=made.strata is not None,
    )
    assert set(plan.drawn) == set(frame.strata)
    assert 1 <= plan.n * plan.stages <= frame.items


@pytest.mark.parametrize("name", [one.id for one in POPULATIONS])
def test_a_frame_is_the_same_when_it_is_frozen_again(source: str, name: str) -> None:
    """Nothing in it depends on the moment or the session."""
    assert frozen(source, name)[:2] == frozen(source, name)[:2]


def test_the_period_of_every_shipped_population_is_the_quarter() -> None:
    """Named by ``period`` alone: no other clock decides what is audited."""
    for one in POPULATIONS:
        for word in ("period.starts", "period.ends"):
            assert word in one.sql
        for word in ("now()", "current_date", "CURRENT_TIMESTAMP"):
            assert word not in one.sql
