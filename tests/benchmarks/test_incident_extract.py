"""The benchmark of the extract runs, and stops where the extract is not what COPY gives."""

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
from tests.support.databases import fresh


@pytest.fixture(scope="module")
def bench(
    postgres: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ExtractBench]:
    with fresh(postgres) as name:
        made = ExtractBench(postgres.conninfo(name), tmp_path_factory.mktemp("bench"))
        with psycopg.connect(made.conninfo, autocommit=True) as conn:
            make_log(conn, 3_000)
        made.prepare()
        yield made


def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do ours in this process: it starts a second sooner."""

    def measured(command: list[str], environment: dict[str, str] | None = None) -> Run:
        if command[0] == "bash":
            return measure(command, environment)
        begun = time.monotonic()
        monkeypatch.setattr("sys.argv", command[2:])
        bench_module.main()
        return Run(time.monotonic() - begun, 0, 0)

    monkeypatch.setattr(bench_module, "measure", measured)


def test_it_measures_every_target_at_a_small_size(
    bench: ExtractBench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its figures do not count."""
    in_process(monkeypatch)
    measure_extract(bench, 1, Targets())
    printed = capsys.readouterr().out
    for what in ("extract against COPY | zstd | sha256sum", "memory for 3,000 rows beyond 300"):
        assert f"  {what}" in printed
    assert "what COPY gives, byte for byte" in printed


def test_an_extract_that_lacks_rows_stops_it(
    bench: ExtractBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fast and wrong is no figure."""
    in_process(monkeypatch)
    real = extract.extract
    monkeypatch.setattr(
        bench_module,
        "extract",
        lambda source, query, *more, **named: real(
            source, replace(query, accounts=("17",)), *more, **named
        ),
    )
    with pytest.raises(SystemExit, match="differs from what COPY gives"):
        measure_extract(bench, 1, Targets())
