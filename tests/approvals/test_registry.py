"""Tests that an approval comes from another person, is given once, and is valid for one content."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Engine

from include.approvals import registry
from include.approvals.registry import APPROVE, REJECT, Decision, Refusal, RefusalCause, Request
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


def create_request(state: Engine, **more: Any) -> Request:
    fields = {"kind": "intake", "subject": "customers/IN-1", "sha256": HASH, "run_id": "r"}
    with state.begin() as conn:
        return registry.create_request(
            conn, CLOCK, requested_by=["E2"], dag_id="review_intake", **fields | more
        )


def decide(state: Engine, about: Request, person: str | None, **more: Any) -> Decision | Refusal:
    fields = {"decision": APPROVE, "reason": "", "decided_at": NOW, "content": about.content} | more
    with state.begin() as conn:
        return registry.decide(
            conn, about, decided_by=person, may_decide=["E2", "E3", "E4"], **fields
        )


def test_require_approval_raises_control_failed_error_if_content_changed_after_approval(
    state: Engine,
) -> None:
    about = create_request(state, deadline=NOW + timedelta(hours=72))
    decision = decide(state, about, "E3")
    assert isinstance(decision, Decision)
    with state.connect() as conn:
        assert registry.require_approval(conn, about.id, HASH) == decision
        with pytest.raises(ControlFailed, match="changed after its approval"):
            registry.require_approval(conn, about.id, "b" * 64)
        (stored,) = registry.approvals_of(conn, "review_intake", "r")
        assert (stored.decided_by, stored.sha256, stored.decision) == ("E3", HASH, APPROVE)
        assert registry.approvals_of(conn, "review_intake", "other") == []


@pytest.mark.parametrize(
    ("person", "cause", "more"),
    [
        ("E2", RefusalCause.OWN_REQUEST, {}),
        (" e2", RefusalCause.OWN_REQUEST, {}),
        ("Ｅ2", RefusalCause.OWN_REQUEST, {}),
        ("E9", RefusalCause.NOT_ENTITLED, {}),
        (None, RefusalCause.NOBODY, {}),
        (" ", RefusalCause.NOBODY, {}),
        ("\u200b", RefusalCause.NOBODY, {}),
        ("E\ufe0f2\u3164", RefusalCause.OWN_REQUEST, {}),
        ("E3", RefusalCause.NO_REASON, {"decision": REJECT, "reason": " \n"}),
    ],
)
def test_decide_stores_invalid_answer_to_approval_request_as_refusal(
    state: Engine, person: str | None, cause: RefusalCause, more: dict[str, str]
) -> None:
    about = create_request(state)
    assert decide(state, about, person, **more).cause is cause  # type: ignore[union-attr]
    decide(state, about, person, **more)  # a retry of the task stores no second row
    with state.connect() as conn:
        (stored,) = registry.refusals_of(conn, about.id)
        assert stored.cause is cause
        assert registry.decision_on(conn, about.id) is None
        with pytest.raises(ControlFailed, match="was not approved"):
            registry.require_approval(conn, about.id, HASH)


@pytest.mark.parametrize("decision", [APPROVE, REJECT])
def test_decide_refuses_answer_to_content_that_differs_from_content_of_the_request(
    state: Engine, decision: str
) -> None:
    """The cause of the refusal is `OTHER_CONTENT`.

    The approver may still answer the current form.
    """
    earlier, about = create_request(state), create_request(state, sha256="b" * 64)
    answers = [("E3", earlier.content), ("E2", earlier.content), ("E4", "")]
    for minutes, (person, content) in enumerate(answers):
        at = NOW + timedelta(minutes=minutes)
        answer = decide(state, about, person, decision=decision, content=content, decided_at=at)
        assert answer.cause is RefusalCause.OTHER_CONTENT  # type: ignore[union-attr]
    with state.connect() as conn:
        assert registry.decision_on(conn, about.id) is None
        assert registry.outdated_answers(conn, about) == len(answers)
        assert registry.outdated_answers(conn, create_request(state, run_id="next")) == 0
    assert isinstance(decide(state, about, "E3"), Decision)


def test_decide_accepts_name_of_approver_in_lower_case(state: Engine) -> None:
    """The comparison ignores case."""
    assert isinstance(decide(state, create_request(state), "e3"), Decision)


def test_decide_refuses_second_decision_of_another_approver_on_the_same_request(
    state: Engine,
) -> None:
    about = create_request(state)
    first = decide(state, about, "E3", decision=REJECT, reason="forms are missing")
    assert decide(state, about, "E3", decision=REJECT, reason="forms are missing") == first
    second = decide(state, about, "E4", decided_at=NOW + timedelta(minutes=1))
    assert isinstance(second, Refusal)
    assert second.cause is RefusalCause.DECIDED_BEFORE
    with state.connect() as conn:
        assert registry.decision_on(conn, about.id) == first
        assert registry.refusals_of(conn, about.id) == [second]
        with pytest.raises(ControlFailed, match="was not approved"):
            registry.require_approval(conn, about.id, HASH)


def test_create_request_returns_existing_request_if_content_and_run_are_the_same(
    state: Engine,
) -> None:
    assert create_request(state) == create_request(state)
    assert create_request(state).id != create_request(state, sha256="b" * 64).id
    assert create_request(state).id != create_request(state, run_id="next").id
    with pytest.raises(UsageError, match="has no requester"), state.begin() as conn:
        registry.create_request(
            conn, CLOCK, kind="k", subject="s", sha256=HASH, requested_by=[], dag_id="d", run_id="r"
        )


def test_phone_number_id_number_and_mail_address_are_redacted_in_reason_of_decision(
    state: Engine,
) -> None:
    reason_text = (
        "3 forms, e.g. 138 1234 5678 and\n11010119900307109X, and wang@example.com, are wrong"
    )
    about = create_request(state)
    decision = decide(state, about, "E3", decision=REJECT, reason=reason_text)
    assert isinstance(decision, Decision)
    assert decision.reason == "3 forms, e.g. … and …, and …, are wrong"


def test_find_request_returns_earlier_request_with_the_given_digest_despite_a_newer_request(
    state: Engine,
) -> None:
    first, newest = create_request(state), create_request(state, sha256="b" * 64)
    about = {"dag_id": "review_intake", "run_id": "r", "kind": "intake"}
    with state.connect() as conn:
        assert registry.latest_request(conn, **about, subject="customers/IN-1") == newest
        request_about = partial(registry.find_request, conn, **about)
        assert request_about(subject="customers/IN-1", sha256=HASH) == first
        assert request_about(subject="customers/IN-1", sha256="c" * 64) is None
        assert request_about(subject="customers/IN-2", sha256=HASH) is None
