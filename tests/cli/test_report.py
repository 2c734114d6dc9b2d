"""What `run` and `up` tell of a sealed run."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import cast

import pytest

from include.cli.report import result_of
from include.evidence import ledger
from include.evidence.model import Finding, Outcome, Result
from include.messages import _
from include.workplace import Workplace
from tests.evidence.support import result_of as sealed


def place_of(result: Result, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    """A workplace whose one bundle holds a result."""
    row = SimpleNamespace(bundle="2026/run", outcome=result.outcome.value)
    monkeypatch.setattr(ledger, "find", lambda *_: row)
    store = SimpleNamespace(
        description="the store",
        get=lambda _key: result.model_dump_json().encode(),
        list=lambda _prefix: [],
    )
    state = SimpleNamespace(connect=lambda: nullcontext(None))
    return cast(Workplace, SimpleNamespace(state=state, store=lambda _name: store))


def finding(severity: Outcome, subject: str) -> Finding:
    return Finding(
        code="schema.drift.undeclared_table",
        severity=severity,
        subject=subject,
        message=_("The database has a table that the data map lacks, with {n} columns.", n=2),
        action=_("Declare it."),
    )


def test_the_error_says_what_it_is_about(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first finding that fails: its message alone names neither database nor table."""
    findings = [
        finding(Outcome.ATTENTION, "courier.public.other"),
        finding(Outcome.FAIL, "courier.public.scratch"),
        finding(Outcome.FAIL, "courier.public.third"),
    ]
    place = place_of(sealed().model_copy(update={"findings": findings}), monkeypatch)
    assert result_of(place, "check_quality", "r", "failed", "log").error == (
        "courier.public.scratch: The database has a table that the data map lacks, with 2 columns."
    )


def test_nothing_that_fails_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """What only needs attention is in the report."""
    findings = [finding(Outcome.ATTENTION, "courier.public.other")]
    place = place_of(sealed().model_copy(update={"findings": findings}), monkeypatch)
    assert result_of(place, "check_quality", "r", "success", "log").error is None
