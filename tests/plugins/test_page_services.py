"""The cache and the services that all requests of the pages share."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine

from include.composition import services_from
from include.findings.register import open_finding
from include.messages import verbatim
from include.services.objectstore.s3 import S3Store
from plugins.compliance_ui.page_services import (
    COUNTS,
    FINDINGS_CACHED_FOR,
    PageServices,
    SharedCache,
)
from tests.evidence.register_fixtures import sealed_company


class CountingFactory:
    """A callable that returns how often it was called."""

    def __init__(self) -> None:
        self.made = 0

    def __call__(self) -> int:
        self.made += 1
        return self.made


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def cache(now: list[float]) -> SharedCache:
    return SharedCache(lambda: now[0])


def test_s3_client_of_the_compliance_pages_has_short_timeouts_unless_the_connection_sets_them(
    cache: SharedCache,
) -> None:
    """A timeout that is set in the connection has priority."""
    connection = {
        "conn_type": "aws", "login": "k", "password": "s",
        "extra": {"bucket": "b", "region_name": "cn-north-1", "read_timeout": 5},
    }  # fmt: skip
    environment = {"AIRFLOW_CONN_EVIDENCE_STORE": json.dumps(connection)}
    store = PageServices(services_from(environment), cache).store("evidence_store")
    assert isinstance(store, S3Store)
    config = store._bucket.client.meta.config
    assert (config.connect_timeout, config.read_timeout) == (3, 5)
    assert config.retries == {"mode": "standard", "total_max_attempts": 2}


def test_cache_returns_the_same_value_until_it_expires(
    cache: SharedCache, now: list[float]
) -> None:
    make = CountingFactory()
    for at, expected in ((0.0, 1), (299.0, 1), (300.0, 2), (301.0, 2), (600.0, 3)):
        now[0] = at
        assert cache.get("points", make, seconds=300) == expected
    for at in (0.0, 1e9):
        now[0] = at
        assert cache.get("for good", lambda: "made", seconds=float("inf")) == "made"


def test_cache_creates_a_new_value_for_another_key(cache: SharedCache) -> None:
    make = CountingFactory()
    assert cache.get("bundle_reader", make, "store a") == 1
    assert cache.get("bundle_reader", make, "store a") == 1
    assert cache.get("bundle_reader", make, "store b") == 2
    assert cache.get("reader", make, "store b") == 3


def test_cache_closes_database_connections_of_an_engine_that_another_engine_replaces(
    cache: SharedCache,
) -> None:
    first = cache.get("reader", lambda: create_engine("sqlite://"), "a")
    pool = first.pool
    second = cache.get("reader", lambda: create_engine("sqlite://"), "b")
    assert isinstance(second, Engine)
    assert second is not first
    assert first.pool is not pool  # a disposed engine gets a new pool


def test_cache_creates_a_value_once_for_concurrent_requests(cache: SharedCache) -> None:
    make, started, go = CountingFactory(), threading.Event(), threading.Event()
    values: list[int] = []

    def slow() -> int:
        started.set()
        assert go.wait(10)
        return make()

    people = [
        threading.Thread(target=lambda: values.append(cache.get("points", slow)))
        for _number in range(5)
    ]
    for person in people:
        person.start()
    assert started.wait(10)
    go.set()
    for person in people:
        person.join()
    assert values == [1] * 5


def test_cache_calls_the_factory_again_if_its_last_call_raised_an_error(cache: SharedCache) -> None:
    def failing() -> int:
        raise OSError("down")

    with pytest.raises(OSError, match="down"):
        cache.get("reader", failing)
    assert cache.get("reader", lambda: 1) == 1


def test_cache_forgets_the_oldest_count_after_too_many_other_counts_were_cached(
    cache: SharedCache,
) -> None:
    make: Callable[[], int] = CountingFactory()
    assert cache.count(("all", 1), make) == 1
    assert cache.count(("all", 1), make) == 1
    assert cache.count(("all", 2), make) == 2
    for number in range(COUNTS):
        cache.count(number, lambda: 0)
    assert cache.count(("all", 1), make) == 3


def test_ledger_state_is_broken_if_the_newest_evidence_bundle_reports_lost_register_rows(
    migrated_database: str, tmp_path: Path, cache: SharedCache
) -> None:
    """The pages read the loss from the bundle, because their login cannot read the registers."""
    with sealed_company(migrated_database, tmp_path) as (company, services):
        page_services = PageServices(services, cache)
        with company.state.connect() as conn:
            assert not page_services.ledger(conn, 0).broken
        company.harm("DELETE FROM legal_hold")
        company.seal()
        with company.state.connect() as conn:
            ledger = page_services.ledger(conn, 0)
        assert (ledger.registers_lost, ledger.broken) == (True, True)


def test_open_findings_are_read_again_when_a_run_was_sealed_or_their_lifetime_ended(
    migrated_database: str, tmp_path: Path, cache: SharedCache, now: list[float]
) -> None:
    with sealed_company(migrated_database, tmp_path) as (company, services):
        page_services = PageServices(services, cache)

        def enter(reference: str) -> None:
            with company.state.begin() as conn:
                open_finding(
                    conn, kind="audit", reference=reference, description=verbatim(reference),
                    owner="dpo", opened_at=services.clock.now(),
                    due_on=services.clock.now().date(),
                )  # fmt: skip

        def references() -> set[str]:
            with company.state.connect() as conn:
                ledger = page_services.ledger(conn, 0)
                return {item.reference for item in page_services.findings(conn, ledger, None)}

        before = references()
        enter("first")
        assert references() == before
        company.seal()
        assert references() == before | {"first"}
        enter("second")
        now[0] += FINDINGS_CACHED_FOR - 1
        assert references() == before | {"first"}
        now[0] += 1
        assert references() == before | {"first", "second"}
