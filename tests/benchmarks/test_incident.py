"""Tests of the incident benchmark: a small run, and the checks that stop the benchmark."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import _incident_data, _incident_hand, _incident_once, incident
from benchmarks._measure import Run
from include.local.postgres import EmbeddedPostgres
from tests.support.databases import temporary_database

DELIVERED = {"mails": 104, "sent": 104, "left": 0}  # four mails call the incident team


def in_process(command: list[str]) -> Run:
    """Run the measured code in this process, because starting a new process takes a second."""
    file = Path(command[-1])
    parameters = json.loads(file.read_text())
    begun = time.monotonic()
    file.write_text(json.dumps(_incident_once.PARTS[parameters["part"]](parameters)))
    return Run(time.monotonic() - begun, 0, 0)


def test_benchmark_prints_a_measurement_for_every_performance_target(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Measurements of such a small run are meaningless, so missed targets are allowed."""
    monkeypatch.setattr(incident, "measure", in_process)
    hasty = {"fsync": "off", "full_page_writes": "off"}
    monkeypatch.setattr(incident, "SETTINGS", incident.SETTINGS | hasty)
    extracts: list[int] = []
    monkeypatch.setattr(
        incident, "measure_extract", lambda bench, rounds, targets: extracts.append(rounds)
    )
    words = ["--customers", "3000", "--log", "15000", "--mails", "100", "--rows", "1000"]
    monkeypatch.setattr("sys.argv", ["incident", *words, "--rounds", "1"])
    with pytest.raises(SystemExit) as ended:
        incident.main()
    assert ended.value.code in (0, 1)
    printed = capsys.readouterr().out
    for target in (
        "notices a second, queued and rendered",
        "memory to queue 100 beyond 10",
        "memory to render 100 beyond 10",
    ):
        assert f"  {target}" in printed
    for case in _incident_hand.CASES.values():
        assert f"{case.name}: by hand" in printed
    assert "ParcelSeal, 3,000 people" in printed
    assert "All figures are those of the queries by hand" in printed
    assert "Each of 100 people got one mail of" in printed
    assert extracts == [1]


def test_benchmark_stops_if_workflow_and_query_written_by_hand_give_different_results(
    postgres: EmbeddedPostgres, migrated_database: str
) -> None:
    with temporary_database(postgres) as name:
        parameters: dict[str, Any] = {
            "courier": postgres.conninfo(name),
            "state": migrated_database,
        }
        _incident_data.make(parameters["courier"], 2000, 10_000)
        for case in ("accounts", "window"):
            case_parameters = parameters | {"case": case, "run": case}
            ours, hand = (
                _incident_once.ours(case_parameters),
                _incident_once.by_hand(case_parameters),
            )
            figures = incident._same([ours["figures"], hand["figures"]])
            assert figures["minors"] > 0
            assert 0 < figures["subjects"] < 2000
        with pytest.MonkeyPatch.context() as patch:
            older = _incident_hand._MARKED.replace("'14 years'", "'5 years'")
            patch.setattr(_incident_hand, "_MARKED", older)
            wrong = _incident_once.by_hand(case_parameters)
    with pytest.raises(SystemExit, match="Figures differ, one of them is wrong"):
        incident._same([ours["figures"], wrong["figures"]])


@pytest.mark.parametrize(
    ("queued", "wrong"),
    [(99, {}), (100, {"left": 1}), (100, {"sent": 103}), (100, {"mails": 99, "sent": 99})],
)
def test_incident_benchmark_stops_if_a_person_did_not_get_exactly_one_notice(
    queued: int, wrong: dict[str, int]
) -> None:
    incident._require_all(100, DELIVERED, 100)
    with pytest.raises(SystemExit, match="Not everybody got one notice"):
        incident._require_all(queued, DELIVERED | wrong, 100)
