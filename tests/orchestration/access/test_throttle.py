"""The limit on failed log-ins."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from airflow.api_fastapi.auth.managers.base_auth_manager import COOKIE_NAME_JWT_TOKEN
from fastapi import FastAPI, Form, HTTPException
from fastapi.responses import RedirectResponse
from starlette.testclient import TestClient

from include.orchestration.access.throttle import (
    MAX_BODY_BYTES,
    PER_ACCOUNT,
    PER_ADDRESS,
    WINDOW,
    Attempt,
    FailedLogins,
    LoginThrottle,
)

RIGHT = "the right one"
WRONG = "a wrong one"


class Clock:
    """A clock whose time a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def counts(clock: Clock) -> FailedLogins:
    return FailedLogins(clock, capacity=100)


def fail(counts: FailedLogins, account: str, address: str = "10.0.0.1") -> bool:
    """Simulate a failed log-in; return whether the throttle accepted the attempt."""
    return isinstance(counts.begin(account, address), Attempt)


def test_throttle_refuses_account_after_failed_logins_from_several_addresses(
    counts: FailedLogins, clock: Clock
) -> None:
    """The spelling of the account is ignored. Other accounts are not affected."""
    accepted = [fail(counts, "Anna ", f"10.0.0.{i}") for i in range(PER_ACCOUNT)]
    assert all(accepted)
    clock.now += 60
    assert counts.begin("anna", "10.0.1.1") == WINDOW - 60
    assert fail(counts, "bert")
    clock.now += WINDOW - 60
    assert fail(counts, "anna")


def test_throttle_ignores_failed_logins_older_than_the_time_window(
    counts: FailedLogins, clock: Clock
) -> None:
    assert fail(counts, "anna")
    clock.now += WINDOW - 10
    later = [fail(counts, "anna", f"10.0.0.{i}") for i in range(PER_ACCOUNT)]
    assert later.count(True) == PER_ACCOUNT - 1
    clock.now += 11  # only the first failure is forgotten
    assert [fail(counts, "anna", "10.0.1.1") for _ in range(2)] == [True, False]


def test_throttle_refuses_address_after_failed_logins_to_several_accounts(
    counts: FailedLogins,
) -> None:
    """An IPv6 /64 network is treated as one address."""
    accepted = [fail(counts, f"user {i}", f"2001:db8::{i:x}") for i in range(PER_ADDRESS)]
    assert all(accepted)
    assert not fail(counts, "another", "2001:db8::ffff")
    assert fail(counts, "another", "2001:db8:0:1::1")


def test_throttle_does_not_count_successful_logins(counts: FailedLogins) -> None:
    """Failed log-ins before a successful one are still counted."""
    assert fail(counts, "anna")
    for _ in range(PER_ADDRESS + 1):
        attempt = counts.begin("anna", "10.0.0.1")
        assert isinstance(attempt, Attempt)
        attempt.forgive()
    assert [fail(counts, "anna") for _ in range(PER_ACCOUNT)].count(True) == PER_ACCOUNT - 1


def test_throttle_refuses_concurrent_logins_to_an_account_above_the_limit(
    counts: FailedLogins,
) -> None:
    attempts = [counts.begin("anna", "10.0.0.1") for _ in range(PER_ACCOUNT + 5)]
    assert sum(isinstance(each, Attempt) for each in attempts) == PER_ACCOUNT


def test_throttle_stores_at_most_100_entries_after_1000_failed_logins(counts: FailedLogins) -> None:
    for i in range(1000):
        fail(counts, f"{'x' * 10_000}{i}", f"10.0.{i // 250}.{i % 250}")
    assert len(counts._times) == 100


@pytest.fixture
def client(counts: FailedLogins) -> TestClient:
    """Return a client of an app with FAB's routes below `/auth`, as in the API server."""
    auth = FastAPI()

    @auth.post("/token", status_code=201)
    @auth.post("/token/cli", status_code=201)
    def token(body: dict[str, Any]) -> dict[str, str]:
        if not body.get("password"):
            raise HTTPException(400)
        if body["password"] != RIGHT:
            raise HTTPException(401)
        return {"access_token": "secret"}

    @auth.post("/login/")
    def login(password: str = Form()) -> RedirectResponse:
        answer = RedirectResponse("/", 302)
        if password == RIGHT:
            answer.set_cookie(COOKIE_NAME_JWT_TOKEN, "secret")
        return answer

    auth.add_middleware(LoginThrottle, counts=counts)
    app = FastAPI()
    app.mount("/auth", auth)
    return TestClient(app, follow_redirects=False)


@pytest.mark.parametrize("path", ["/auth/token", "/auth/token/cli"])
def test_token_request_after_too_many_failed_logins_gets_status_429_and_is_logged(
    client: TestClient, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    """Even the right password is refused, and the log does not contain it."""
    for _ in range(PER_ACCOUNT):
        body = {"username": "anna", "password": WRONG}
        assert client.post(path, json=body).status_code == 401
    with caplog.at_level(logging.WARNING):
        answer = client.post(path, json={"username": "Anna", "password": RIGHT})
    assert answer.status_code == 429
    assert answer.headers["Retry-After"] == str(int(WINDOW))
    assert answer.json() == {"detail": "Too many failed log-ins. Try again in 300 seconds."}
    assert "Log-in of 'Anna' from testclient refused" in caplog.text
    assert RIGHT not in caplog.text
    other = client.post(path, json={"username": "bert", "password": RIGHT})
    assert other.json() == {"access_token": "secret"}


@pytest.mark.parametrize("as_file", [False, True], ids=["urlencoded", "multipart"])
def test_throttle_counts_failed_form_logins_and_token_logins_together(
    client: TestClient, as_file: bool
) -> None:
    form = {"username": "anna", "password": WRONG}
    sent: dict[str, Any] = {"data": form}
    if as_file:
        sent["files"] = {"more": b""}
    for _ in range(PER_ACCOUNT - 1):
        assert client.post("/auth/login/", **sent).status_code == 302
    right = {**sent, "data": form | {"password": RIGHT}}
    assert COOKIE_NAME_JWT_TOKEN in client.post("/auth/login/", **right).cookies
    assert client.post("/auth/token", json=form).status_code == 401
    refused = client.post("/auth/login", **right)
    assert refused.status_code == 429
    assert refused.text == "Too many failed log-ins. Try again in 300 seconds."


@pytest.mark.parametrize("as_file", [False, True], ids=["urlencoded", "multipart"])
def test_login_form_with_two_usernames_gets_status_400(client: TestClient, as_file: bool) -> None:
    """FAB would compare the password with that of the first account."""
    fields: dict[str, Any] = {"username": ["anna", "bert"], "password": WRONG}
    if as_file:
        parts = [("username", (None, "anna")), ("username", (None, "bert"))]
        answer = client.post("/auth/login/", files=[*parts, ("password", (None, WRONG))])
    else:
        answer = client.post("/auth/login/", data=fields)
    assert answer.status_code == 400


def test_throttle_does_not_count_requests_without_password(client: TestClient) -> None:
    for _ in range(PER_ADDRESS + 1):
        assert client.post("/auth/token", json={"username": "anna"}).status_code == 400
        assert client.post("/auth/token", content=b"{").status_code == 422
        assert client.get("/auth/token").status_code == 405
    assert client.post("/auth/token", json={"username": 7, "password": RIGHT}).status_code == 201


def test_token_request_with_too_large_body_gets_status_413(client: TestClient) -> None:
    body = {"username": "x" * MAX_BODY_BYTES, "password": RIGHT}
    assert client.post("/auth/token", json=body).status_code == 413
