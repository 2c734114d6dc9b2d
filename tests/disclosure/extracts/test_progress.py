"""Tests of the reports of progress, and of an extract that its caller ends."""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable

import psycopg
import pytest

from include.disclosure.extracts import reading
from include.disclosure.extracts.extract import ExtractForm, ExtractSource, write_extract
from tests.disclosure.extracts.extract_fixtures import MARKS, secret_of, snapshot, source

SLOW = source("SELECT n FROM generate_series(1, 3) n WHERE pg_sleep(0.4) IS NOT NULL", "n")
ENDLESS = source("SELECT 1 AS n FROM pg_sleep(600)", "n")
LARGE = source("SELECT n FROM generate_series(1, 100000000) AS n", "n")


_END_OTHERS = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


class Stopped(BaseException):
    """The error with which a caller ends an extract, such as a signal."""


def _write(
    conninfo: str,
    query: ExtractSource,
    form: ExtractForm,
    progress: Callable[[], None],
    *,
    is_usable: bool = True,
) -> None:
    """Write an extract, and require that the transaction is still usable."""
    with snapshot(conninfo) as connection:
        try:
            write_extract(
                connection,
                query,
                MARKS,
                form,
                secret_of(form),
                io.BytesIO(),
                max_rows=10**9,
                progress=progress,
            )
        finally:
            assert not is_usable or connection.execute("SELECT 1").fetchone() == (1,)


@pytest.mark.parametrize("form", ExtractForm)
def test_progress_is_reported_while_the_server_sends_nothing(
    database: str, monkeypatch: pytest.MonkeyPatch, form: ExtractForm
) -> None:
    monkeypatch.setattr(reading, "INTERVAL", 0.1)
    beats: list[float] = []
    _write(database, SLOW, form, lambda: beats.append(time.monotonic()))
    assert len(beats) >= 5


@pytest.mark.parametrize(
    ("form", "query"),
    [
        *((form, ENDLESS) for form in ExtractForm),
        (ExtractForm.ZIP, LARGE),  # a workbook ends at its own limit
        (ExtractForm.AGE, LARGE),
    ],
)
def test_error_in_progress_cancels_the_query(
    database: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    form: ExtractForm,
    query: ExtractSource,
) -> None:
    monkeypatch.setattr(reading, "INTERVAL", 0.1)

    def stop() -> None:
        raise Stopped

    started = time.monotonic()
    with caplog.at_level(logging.WARNING), pytest.raises(Stopped):
        _write(database, query, form, stop)
    assert time.monotonic() - started < 30
    assert not caplog.records


@pytest.mark.parametrize("form", ExtractForm)
def test_error_of_the_query_is_raised(database: str, form: ExtractForm) -> None:
    query = source("SELECT 1 / (500 - n) AS n FROM generate_series(1, 10000) AS n", "n")
    with pytest.raises(psycopg.errors.DivisionByZero):
        _write(database, query, form, lambda: None)


@pytest.mark.parametrize("form", ExtractForm)
def test_lost_connection_ends_the_extract(
    database: str, monkeypatch: pytest.MonkeyPatch, form: ExtractForm
) -> None:
    monkeypatch.setattr(reading, "INTERVAL", 0.1)
    with psycopg.connect(database, autocommit=True) as admin:
        query = source("SELECT pg_backend_pid() AS n WHERE pg_sleep(600) IS NOT NULL", "n")

        def end_sessions() -> None:
            admin.execute(_END_OTHERS)

        with pytest.raises(psycopg.OperationalError):
            _write(database, query, form, end_sessions, is_usable=False)
