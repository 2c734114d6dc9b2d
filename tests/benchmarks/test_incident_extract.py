"""Tests of the benchmark that measures the extraction of logs for an incident."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest

from benchmarks import _incident_extract as bench_module
from benchmarks._incident_extract import ExtractBench, make_log, measure_extract
from benchmarks._measure import Run, Targets, measure
from include.incident.evidence import extract
from include.local.postgres import EmbeddedPostgres
from tests.support.databases import temporary_database


@pytest.fixture(scope="module")
def bench(
    postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ExtractBench]:
    with temporary_database(postgres) as name:
        extract_bench = ExtractBench(postgres.conninfo(name), tmp_path_factory.mktemp("bench"))
        with psycopg.connect(extract_bench.conninfo, autocommit=True) as conn:
            make_log(conn, 3_000)
        extract_bench.prepare()
        yield extract_bench


def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the measured code in this process, because starting a new process takes a second."""

    def measured(command: list[str], environment: dict[str, str] | None = None) -> Run:
        if command[0] == "bash":
            return measure(command, environment)
        begun = time.monotonic()
        monkeypatch.setattr("sys.argv", command[2:])
        bench_module.main()
        return Run(time.monotonic() - begun, 0, 0)

    monkeypatch.setattr(bench_module, "measure", measured)


def test_benchmark_prints_a_measurement_for_every_performance_target(
    bench: ExtractBench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Measurements of such a small run are meaningless, so missed targets are allowed."""
    in_process(monkeypatch)
    measure_extract(bench, 1, Targets())
    printed = capsys.readouterr().out
    for target in ("extract against COPY | zstd | sha256sum", "memory for 3,000 rows beyond 300"):
        assert f"  {target}" in printed
    assert "what COPY gives, byte for byte" in printed


def test_benchmark_stops_if_log_extract_differs_from_result_of_copy_statement(
    bench: ExtractBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_process(monkeypatch)
    real = extract.create_extract
    monkeypatch.setattr(
        bench_module,
        "create_extract",
        lambda source, query, *more, **named: real(
            source, replace(query, accounts=("17",)), *more, **named
        ),
    )
    with pytest.raises(SystemExit, match="differs from what COPY gives"):
        measure_extract(bench, 1, Targets())
