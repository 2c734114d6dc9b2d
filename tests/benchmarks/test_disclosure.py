"""Tests of the benchmark of extracts: a small run, and the check that stops the benchmark."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import _disclosure_data, _disclosure_once, disclosure
from benchmarks._disclosure_expiry import ConcurrentSession, ExpiryCompany
from benchmarks._measure import Run
from include.local.postgres import EmbeddedPostgres
from include.state.connect import StateLock, lock_for_transaction


def in_process(command: list[str], _environment: dict[str, str] | None = None) -> Run:
    """Run the measured code in this process, because starting a new process takes a second."""
    begun = time.monotonic()
    if "benchmarks._disclosure_once" in command:
        file = Path(command[-1])
        parameters = json.loads(file.read_text())
        file.write_text(json.dumps(_disclosure_once.PARTS[parameters["part"]](parameters)))
    return Run(time.monotonic() - begun, 0, 0)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of the benchmark with few rows."""
    monkeypatch.setattr(disclosure, "measure", in_process)
    hasty = {"fsync": "off", "full_page_writes": "off"}
    monkeypatch.setattr(disclosure, "SETTINGS", disclosure.SETTINGS | hasty)
    monkeypatch.setattr("sys.argv", ["disclosure", "--rows", "10000", "--rounds", "1"])


@pytest.mark.usefixtures("small")
def test_benchmark_prints_a_measurement_for_every_performance_target(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Measurements of such a small run are meaningless, so missed targets are allowed."""
    with pytest.raises(SystemExit) as ended:
        disclosure.main()
    assert ended.value.code in (0, 1)
    printed = capsys.readouterr().out
    for target in (
        "ZIP against COPY | age",
        "age against COPY | age",
        "XLSX against openpyxl, msoffcrypto",
        "memory of ZIP",
        "memory of age",
        "memory of XLSX",
        "end of 5 accesses",
        "longest concurrent transaction",
    ):
        assert f"  {target}" in printed
    assert "Extract of 1,000 rows" in printed
    assert "Workbook with 1,000 rows" in printed
    assert "End of 5 accesses with 500 people" in printed


@pytest.mark.usefixtures("small")
def test_benchmark_stops_if_an_access_does_not_end(
    monkeypatch: pytest.MonkeyPatch, postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    bench = SimpleNamespace(server=postgres, folder=tmp_path)
    expire = _disclosure_once.PARTS["expire"]

    def unproved(parameters: dict[str, Any]) -> dict[str, Any]:
        return expire(parameters) | {"rows": 1}

    monkeypatch.setitem(_disclosure_once.PARTS, "expire", unproved)
    with pytest.raises(SystemExit, match="Not every access ended with a proof"):
        disclosure.measure_expiry(bench, 2, disclosure.Targets())  # type: ignore[arg-type] # no rows


@pytest.mark.usefixtures("small")
def test_longest_concurrent_transaction_includes_the_wait_for_a_lock(
    postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    company = ExpiryCompany(postgres, tmp_path, 1)
    try:
        with (
            ConcurrentSession(company) as latencies,
            company.company.state.begin() as conn,
        ):
            lock_for_transaction(conn, StateLock.NOTIFICATIONS)
            time.sleep(1)
    finally:
        company.close()
    assert latencies.longest["delivery with its mail"] > 0.5
    assert latencies.longest["opening"] < latencies.longest["delivery with its mail"]


@pytest.mark.usefixtures("small")
def test_benchmark_stops_if_an_extract_has_other_rows_than_the_copy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = _disclosure_data._QUERY
    wrong = text.replace("s.address, s.weight", "s.address || ' ' AS address, s.weight")
    queries = iter([text, wrong, wrong])
    monkeypatch.setattr(_disclosure_data, "query", lambda _most_rows=None: next(queries))
    with pytest.raises(SystemExit, match="differ from the rows of the COPY"):
        disclosure.main()
