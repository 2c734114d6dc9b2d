"""Approvals: another person, once, for one exact content."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine

from include.approvals import registry
from include.approvals.registry import APPROVE, REJECT, Cause, Decision, Refusal, Request
from include.services.clock import FixedClock
from include.services.errors import ControlFailed, UsageError
from include.state.connect import engine

NOW = datetime(2026, 3, 2, 1, 0, tzinfo=UTC)
CLOCK = FixedClock(NOW)
HASH = "a" * 64


@pytest.fixture
def state(migrated_database: str) -> Iterator[Engine]:
    db = engine(migrated_database)
    yield db
    db.dispose()


def asked(state: Engine, **more: Any) -> Request:
    given = {"kind": "intake", "subject": "customers/IN-1", "sha256": HASH, "run_id": "r"}
    with state.begin() as conn:
        return registry.ask(
            conn, CLOCK, requested_by=["E2"], dag_id="review_intake", **given | more
        )


def decide(state: Engine, about: Request, who: str | None, **more: Any) -> Decision | Refusal:
    given = {"decision": APPROVE, "reason": "", "decided_at": NOW, "content": about.content} | more
    with state.begin() as conn:
        return registry.decide(conn, about, decided_by=who, may_decide=["E2", "E3", "E4"], **given)


def test_an_approval_is_good_for_the_content_that_was_asked_about(state: Engine) -> None:
    """And for no other: a changed hash is refused at use."""
    about = asked(state, deadline=NOW + timedelta(hours=72))
    made = decide(state, about, "E3")
    assert isinstance(made, Decision)
    with state.connect() as conn:
        assert registry.require(conn, about.id, HASH) == made
        with pytest.raises(ControlFailed, match="changed since"):
            registry.require(conn, about.id, "b" * 64)
        (kept,) = registry.approvals_of(conn, "review_intake", "r")
        assert (kept.decided_by, kept.sha256, kept.decision) == ("E3", HASH, APPROVE)
        assert registry.approvals_of(conn, "review_intake", "other") == []


@pytest.mark.parametrize(
    ("who", "cause", "more"),
    [
        ("E2", Cause.OWN_REQUEST, {}),
        (" e2", Cause.OWN_REQUEST, {}),
        ("Ｅ2", Cause.OWN_REQUEST, {}),
        ("E9", Cause.NOT_ENTITLED, {}),
        (None, Cause.NOBODY, {}),
        (" ", Cause.NOBODY, {}),
        ("\u200b", Cause.NOBODY, {}),
        ("E\ufe0f2\u3164", Cause.OWN_REQUEST, {}),
        ("E3", Cause.NO_REASON, {"decision": REJECT, "reason": " \n"}),
    ],
)
def test_an_answer_that_may_not_count_is_refused_and_kept(
    state: Engine, who: str | None, cause: Cause, more: dict[str, str]
) -> None:
    """The one who entered it, a stranger, nobody at all, a rejection without a word of why."""
    about = asked(state)
    assert decide(state, about, who, **more).cause is cause  # type: ignore[union-attr]
    decide(state, about, who, **more)  # a repeated task leaves no second row
    with state.connect() as conn:
        (kept,) = registry.refusals_of(conn, about.id)
        assert kept.cause is cause
        assert registry.decision_on(conn, about.id) is None
        with pytest.raises(ControlFailed, match="Nobody approved"):
            registry.require(conn, about.id, HASH)


@pytest.mark.parametrize("decision", [APPROVE, REJECT])
def test_decide_refuses_an_answer_to_another_form(state: Engine, decision: str) -> None:
    """The cause is the content, whoever answered; the approver may still decide."""
    earlier, about = asked(state), asked(state, sha256="b" * 64)
    answers = [("E3", earlier.content), ("E2", earlier.content), ("E4", "")]
    for minutes, (who, content) in enumerate(answers):
        at = NOW + timedelta(minutes=minutes)
        found = decide(state, about, who, decision=decision, content=content, decided_at=at)
        assert found.cause is Cause.OTHER_CONTENT  # type: ignore[union-attr]
    with state.connect() as conn:
        assert registry.decision_on(conn, about.id) is None
        assert registry.outdated_answers(conn, about) == len(answers)
        assert registry.outdated_answers(conn, asked(state, run_id="next")) == 0
    assert isinstance(decide(state, about, "E3"), Decision)


def test_decide_accepts_an_approver_in_any_spelling(state: Engine) -> None:
    """The comparison ignores case."""
    assert isinstance(decide(state, asked(state), "e3"), Decision)


def test_the_first_decision_stands(state: Engine) -> None:
    """A second one is kept as an attempt; the same one, entered again by a retry, is not."""
    about = asked(state)
    first = decide(state, about, "E3", decision=REJECT, reason="forms are missing")
    assert decide(state, about, "E3", decision=REJECT, reason="forms are missing") == first
    second = decide(state, about, "E4", decided_at=NOW + timedelta(minutes=1))
    assert isinstance(second, Refusal)
    assert second.cause is Cause.DECIDED_BEFORE
    with state.connect() as conn:
        assert registry.decision_on(conn, about.id) == first
        assert registry.refusals_of(conn, about.id) == [second]
        with pytest.raises(ControlFailed, match="Nobody approved"):
            registry.require(conn, about.id, HASH)


def test_asking_again_is_the_same_request_until_the_content_changes(state: Engine) -> None:
    """So a repeated task does not ask twice."""
    assert asked(state) == asked(state)
    assert asked(state).id != asked(state, sha256="b" * 64).id
    assert asked(state).id != asked(state, run_id="next").id
    with pytest.raises(UsageError, match="nobody whose work"), state.begin() as conn:
        registry.ask(
            conn, CLOCK, kind="k", subject="s", sha256=HASH, requested_by=[], dag_id="d", run_id="r"
        )


def test_numbers_and_addresses_in_a_reason_do_not_get_into_the_evidence(state: Engine) -> None:
    """People quote what they see; a count stays readable."""
    said = "3 forms, e.g. 138 1234 5678 and\n11010119900307109X, and wang@example.com, are wrong"
    about = asked(state)
    made = decide(state, about, "E3", decision=REJECT, reason=said)
    assert isinstance(made, Decision)
    assert made.reason == "3 forms, e.g. … and …, and …, are wrong"


def test_request_about_returns_the_request_of_a_content_that_changed_back(state: Engine) -> None:
    """The newest request is about another content; other runs and subjects have their own."""
    first, newest = asked(state), asked(state, sha256="b" * 64)
    about = {"dag_id": "review_intake", "run_id": "r", "kind": "intake"}
    with state.connect() as conn:
        assert registry.request_of(conn, **about, subject="customers/IN-1") == newest
        request_about = partial(registry.request_about, conn, **about)
        assert request_about(subject="customers/IN-1", sha256=HASH) == first
        assert request_about(subject="customers/IN-1", sha256="c" * 64) is None
        assert request_about(subject="customers/IN-2", sha256=HASH) is None
