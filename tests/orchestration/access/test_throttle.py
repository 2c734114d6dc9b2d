"""Log-ins are refused after too many failed ones."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from airflow.api_fastapi.auth.managers.base_auth_manager import COOKIE_NAME_JWT_TOKEN
from fastapi import FastAPI, Form, HTTPException
from fastapi.responses import RedirectResponse
from starlette.testclient import TestClient

from include.orchestration.access.throttle import (
    MOST_BYTES,
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
    """A clock that a test moves."""

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
    """Let a log-in fail; returns whether it was accepted."""
    return isinstance(counts.begin(account, address), Attempt)


def test_account_is_refused_after_too_many_failures_from_any_address(
    counts: FailedLogins, clock: Clock
) -> None:
    """Spelling does not matter, and other accounts are not concerned."""
    accepted = [fail(counts, "Anna ", f"10.0.0.{i}") for i in range(PER_ACCOUNT)]
    assert all(accepted)
    clock.now += 60
    assert counts.begin("anna", "10.0.1.1") == WINDOW - 60
    assert fail(counts, "bert")
    clock.now += WINDOW - 60
    assert fail(counts, "anna")


def test_failures_are_forgotten_one_by_one_as_they_grow_old(
    counts: FailedLogins, clock: Clock
) -> None:
    assert fail(counts, "anna")
    clock.now += WINDOW - 10
    later = [fail(counts, "anna", f"10.0.0.{i}") for i in range(PER_ACCOUNT)]
    assert later.count(True) == PER_ACCOUNT - 1
    clock.now += 11  # the first one is forgotten, and no other
    assert [fail(counts, "anna", "10.0.1.1") for _ in range(2)] == [True, False]


def test_address_is_refused_after_too_many_failures_of_any_account(counts: FailedLogins) -> None:
    """A provider gives one customer a whole /64 of IPv6."""
    accepted = [fail(counts, f"user {i}", f"2001:db8::{i:x}") for i in range(PER_ADDRESS)]
    assert all(accepted)
    assert not fail(counts, "another", "2001:db8::ffff")
    assert fail(counts, "another", "2001:db8:0:1::1")


def test_log_in_that_succeeds_does_not_count(counts: FailedLogins) -> None:
    """Neither for the account nor for the address; earlier failures still count."""
    assert fail(counts, "anna")
    for _ in range(PER_ADDRESS + 1):
        attempt = counts.begin("anna", "10.0.0.1")
        assert isinstance(attempt, Attempt)
        attempt.forgive()
    assert [fail(counts, "anna") for _ in range(PER_ACCOUNT)].count(True) == PER_ACCOUNT - 1


def test_log_ins_at_the_same_time_count(counts: FailedLogins) -> None:
    """Else guesses could be sent all at once."""
    attempts = [counts.begin("anna", "10.0.0.1") for _ in range(PER_ACCOUNT + 5)]
    assert sum(isinstance(each, Attempt) for each in attempts) == PER_ACCOUNT


def test_memory_is_bounded(counts: FailedLogins) -> None:
    """Names are of any length and number; the least recent ones are forgotten."""
    for i in range(1000):
        fail(counts, f"{'x' * 10_000}{i}", f"10.0.{i // 250}.{i % 250}")
    assert len(counts._times) == 100


@pytest.fixture
def client(counts: FailedLogins) -> TestClient:
    """A client of an app with the routes of FAB, below `/auth` as in the API server."""
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
def test_token_is_refused_with_429_and_a_line_in_the_log(
    client: TestClient, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    """Also with the right password; the line has no password."""
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
def test_form_and_token_share_one_limit(client: TestClient, as_file: bool) -> None:
    """A guesser who changes between the two gains nothing."""
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
def test_form_that_names_two_accounts_is_refused(client: TestClient, as_file: bool) -> None:
    """FAB compares the password of the first one; the limit would count for the last one."""
    fields: dict[str, Any] = {"username": ["anna", "bert"], "password": WRONG}
    if as_file:
        parts = [("username", (None, "anna")), ("username", (None, "bert"))]
        answer = client.post("/auth/login/", files=[*parts, ("password", (None, WRONG))])
    else:
        answer = client.post("/auth/login/", data=fields)
    assert answer.status_code == 400


def test_request_without_password_does_not_count(client: TestClient) -> None:
    """The server compared no password. Requests that are not log-ins pass unchanged."""
    for _ in range(PER_ADDRESS + 1):
        assert client.post("/auth/token", json={"username": "anna"}).status_code == 400
        assert client.post("/auth/token", content=b"{").status_code == 422
        assert client.get("/auth/token").status_code == 405
    assert client.post("/auth/token", json={"username": 7, "password": RIGHT}).status_code == 201


def test_large_body_is_refused(client: TestClient) -> None:
    """It would be kept in memory to find the account."""
    body = {"username": "x" * MOST_BYTES, "password": RIGHT}
    assert client.post("/auth/token", json=body).status_code == 413
