"""Tests of the reminders benchmark."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest

from benchmarks import _reminders_data, _reminders_once, reminders
from benchmarks._measure import Run, Targets
from benchmarks.reminders import Day, Part

ANSWER = {"sent": 3, "left": 0, "seconds": 1.0}
RECEIVED = {"mails": 3, "recipients": 3, "ids": 3, "bytes": 3000}


def in_process(command: list[str]) -> Run:
    """Run the measured code in this process, because starting a new process takes a second."""
    file = Path(command[-1])
    parameters = json.loads(file.read_text())
    begun = time.monotonic()
    file.write_text(json.dumps(_reminders_once.PARTS[parameters["part"]](parameters)))
    return Run(time.monotonic() - begun, 0, 0)


def part(**more: Any) -> Part:
    return Part(Run(1, 1, 2**20), ANSWER | more)


def day(second: int = 0, **received: int) -> Day:
    return Day((part(), part()), (part(), part(sent=second)), RECEIVED | received)


def test_benchmark_prints_a_measurement_for_every_performance_target(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Measurements of such a small run are meaningless, so missed targets are allowed."""
    monkeypatch.setattr(reminders, "measure", in_process)
    words = ["reminders", "--employees", "1500", "--mails", "100", "--rounds", "1"]
    monkeypatch.setattr("sys.argv", words)
    with pytest.raises(SystemExit) as ended:
        reminders.main()
    assert ended.value.code in (0, 1)
    printed = capsys.readouterr().out
    for target in (
        "obligations against the query by hand",
        "mails a second",
        "memory for ",
        "second run of the day against the first",
    ):
        assert f"  {target}" in printed
    assert "The same rows: 100 on a rung" in printed
    assert "the second run sent none" in printed


def test_benchmark_stops_if_workflow_and_query_written_by_hand_give_different_results(
    database: str,
) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        _reminders_data.make(connection, 3000, 150)
    parameters = {"company": database, "state": database, "run": "r"}
    ours, hand = _reminders_once.ours(parameters), _reminders_once.by_hand(parameters)
    assert ours["digest"] == hand["digest"]
    assert ours["due"] == 150
    with pytest.MonkeyPatch.context() as patch:
        other = _reminders_data.BY_HAND.replace(">= 7 THEN 7", ">= 8 THEN 7")
        patch.setattr(_reminders_data, "BY_HAND", other)
        wrong = _reminders_once.by_hand(parameters)
    assert wrong["digest"] != hand["digest"]
    answers = {"ours": ours, "by_hand": wrong}
    bench = SimpleNamespace(part=lambda name: part(**answers[name]))
    with pytest.raises(SystemExit, match="differ: one of them is wrong"):
        reminders.measure_obligations(bench, 1, Targets())  # type: ignore[arg-type]  # its one use


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (day(mails=4), "Not everybody got one mail"),
        (day(recipients=2), "Not everybody got one mail"),
        (day(ids=2), "Not everybody got one mail"),
        (day(second=1), "The second run of the day told somebody"),
    ],
)
def test_benchmark_stops_if_a_reminder_is_missing_or_sent_twice(wrong: Day, why: str) -> None:
    with pytest.raises(SystemExit, match=why):
        reminders._require_right(wrong)
    reminders._require_right(day())


def test_reminders_benchmark_lists_all_performance_targets_that_were_missed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    targets = Targets()
    targets.least("mails a second", day().rate, reminders.RATE)
    targets.most("second run of the day against the first", day().again, reminders.AGAIN)
    assert targets.missed == ["mails a second", "second run of the day against the first"]
    assert capsys.readouterr().out.count("MISS") == 2
