"""The API server behind a real nginx, with the settings of docker-compose.yaml."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from requests.adapters import HTTPAdapter

from include.local.postgres import EmbeddedPostgres
from include.orchestration.access.throttle import PER_ACCOUNT
from tests.support.fab import ADMIN, FabAirflow, account_of, fab_airflow
from tests.support.nginx import PROGRAM, nginx_before

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.skipif(not Path(PROGRAM).exists(), reason="nginx is not installed"),
]
PROXY = "127.0.0.1"  # nginx and every client of a test connect from it
OUTSIDER = "127.0.0.9"  # connects to the API server without the proxy
VISITOR = "127.0.0.7"  # connects to nginx


class FromAddress(HTTPAdapter):
    """An HTTP adapter that connects from a given address of this machine."""

    def __init__(self, address: str) -> None:
        self._address = address
        super().__init__()

    def init_poolmanager(self, *args: Any, **text: Any) -> None:
        super().init_poolmanager(*args, source_address=(self._address, 0), **text)


def session_from(address: str) -> requests.Session:
    """Return an HTTP session that connects from a given address of this machine."""
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, FromAddress(address))
    return session


@pytest.fixture(scope="module")
def airflow(postgres: EmbeddedPostgres) -> Iterator[FabAirflow]:
    """Yield a separate API server, because the tests block accounts with failed log-ins."""
    folder = Path(tempfile.mkdtemp(prefix="parcelseal-proxied-"))
    settings = {
        "AIRFLOW__FAB__COOKIE_SECURE": "True",
        "FORWARDED_ALLOW_IPS": PROXY,
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "INFO",
        "AIRFLOW__LOGGING__JSON_LOGS": "True",
    }
    try:
        with fab_airflow(postgres, folder, settings) as server:
            yield server
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def proxy(airflow: FabAirflow, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Yield an nginx that forwards requests to the API server."""
    with nginx_before(airflow.url, tmp_path_factory.mktemp("nginx")) as (url, authority):
        yield Proxy(url, str(authority))


class Proxy:
    """The URL of nginx, and the file with the certificate of its certificate authority."""

    def __init__(self, url: str, authority: str) -> None:
        self.url, self.authority = url, authority

    def session(self, address: str = VISITOR) -> requests.Session:
        """Return an HTTP session that connects from an address and verifies the certificate."""
        session = session_from(address)
        session.verify = self.authority
        session.trust_env = False  # REQUESTS_CA_BUNDLE would win over `verify`
        return session


def attributes(answer: requests.Response) -> dict[str, str]:
    """Return the attributes of each cookie that a response sets, by cookie name."""
    values = answer.raw.headers.getlist("Set-Cookie")
    return {value.partition("=")[0]: value.partition("; ")[2].lower() for value in values}


def log_in(session: requests.Session, url: str, account: str, password: str) -> requests.Response:
    """Send FAB's log-in form, as a browser does."""
    page = session.get(f"{url}/auth/login/", timeout=120)
    token = re.search(r'csrf_token"[^>]*value="([^"]+)"', page.text)
    assert token is not None, page.text
    form = {"csrf_token": token[1], "username": account, "password": password}
    headers = {"Referer": f"{url}/auth/login/"}
    return session.post(
        f"{url}/auth/login/", data=form, headers=headers, timeout=120, allow_redirects=False
    )


def log_lines(airflow: FabAirflow) -> list[dict[str, object]]:
    """Return the lines of the server's log."""
    lines = (airflow.folder / "api-server.log").read_text().splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("\n")]


def logged(airflow: FabAirflow, text: str, count: int = 1) -> list[dict[str, object]]:
    """Wait until the log has `count` lines with a text, and return them.

    The server answers a request before it writes the log line.
    """
    lines: list[dict[str, object]] = []
    for _ in range(600):
        lines = [line for line in log_lines(airflow) if text in json.dumps(line)]
        if len(lines) >= count:
            break
        time.sleep(0.1)
    return lines


def test_cookies_have_the_attributes_secure_and_httponly_behind_the_proxy(
    airflow: FabAirflow, proxy: Proxy
) -> None:
    account = account_of("Auditor")
    session = proxy.session()
    answer = log_in(session, proxy.url, account, airflow.passwords[account])
    assert answer.status_code == 302, answer.text
    cookies = attributes(answer)
    assert {"session", "_token"} <= set(cookies)
    for name, text in cookies.items():
        assert "secure" in text.split("; "), (name, text)
        assert "httponly" in text.split("; "), (name, text)
    me = session.get(f"{proxy.url}/ui/auth/me", timeout=120)
    assert me.json()["username"] == account
    assert answer.headers["Location"].startswith(("/", proxy.url))


def test_account_gets_status_429_after_failed_logins_and_client_address_is_logged(
    airflow: FabAirflow, proxy: Proxy
) -> None:
    """The log contains no password."""
    account = account_of("Data Engineer")
    guess = {"username": account, "password": "a guess of mine"}
    visitor, url = proxy.session(), f"{proxy.url}/auth/token"
    for _ in range(PER_ACCOUNT):
        assert visitor.post(url, json=guess, timeout=120).status_code == 401
    right = {"username": account.upper(), "password": airflow.passwords[account]}
    refused = visitor.post(url, json=right, timeout=120)
    assert refused.status_code == 429
    assert 0 < int(refused.headers["Retry-After"]) <= 300
    assert "Too many failed log-ins" in refused.json()["detail"]
    by_form = log_in(visitor, proxy.url, account, airflow.passwords[account])
    assert by_form.status_code == 429
    admin = {"username": account_of(ADMIN), "password": airflow.passwords[account_of(ADMIN)]}
    assert proxy.session("127.0.0.8").post(url, json=admin, timeout=120).status_code == 201
    assert logged(airflow, f"Log-in of '{account.upper()}' from {VISITOR} refused")
    text = "\n".join(json.dumps(line) for line in log_lines(airflow))
    assert "a guess of mine" not in text
    assert airflow.passwords[account] not in text


def test_client_cannot_change_its_logged_address_by_a_forwarded_header(
    airflow: FabAirflow, proxy: Proxy
) -> None:
    claim = {"X-Forwarded-For": "203.0.113.5", "X-Forwarded-Proto": "https"}
    page = "/api/v2/version?test=by_claim"
    proxy.session().get(f"{proxy.url}{page}", headers=claim, timeout=120)
    beside = session_from(OUTSIDER).get(f"{airflow.url}{page}", headers=claim, timeout=120)
    assert beside.ok
    lines = logged(airflow, "by_claim", count=2)
    addresses = {str(line["client_addr"]).rpartition(":")[0] for line in lines}
    assert addresses == {VISITOR, OUTSIDER}
