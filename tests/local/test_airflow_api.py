"""Tests of calls to Airflow's REST API on a busy machine, with late or lost responses."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from include.local import airflow_api
from include.local.airflow_api import AirflowApi
from include.services.errors import ServiceError
from tests.support.airflow_server import AirflowAnswers, serving
from tests.support.faulty_proxy import Fault, FaultyProxy, first

LOG = "logs/airflow.log"


class AlwaysRunning(AirflowAnswers):
    def do_GET(self) -> None:  # noqa: N802 - http.server's name
        self.answer(200, {"state": "running"})


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """A proxy in front of a server that simulates Airflow's REST API."""
    monkeypatch.setattr(airflow_api, "TIMEOUT", 0.3)
    monkeypatch.setattr(airflow_api, "BACKOFF", 0.01)
    with serving(AlwaysRunning) as url, FaultyProxy(url) as proxy:
        yield proxy


def sent_requests(proxy: FaultyProxy, method: str) -> int:
    return sum(request.method == method and "/api/" in request.path for request in proxy.requests)


def test_get_request_is_repeated_after_timeouts_and_lost_responses(
    proxy: FaultyProxy, capfd: pytest.CaptureFixture[str]
) -> None:
    api = AirflowApi.login(proxy.endpoint, "admin", "x", LOG)
    late = first(2, lambda request: request.method == "GET", Fault(hang_seconds=1))
    broken = first(2, lambda request: request.method == "GET", Fault(lose_answer=True))
    proxy.rule = lambda request: late(request) or broken(request)
    assert api.state("backup_offsite", "manual") == "running"
    assert sent_requests(proxy, "GET") == 5
    assert capfd.readouterr().err == ""


def test_get_request_raises_service_error_with_advice_if_every_attempt_times_out(
    proxy: FaultyProxy,
) -> None:
    api = AirflowApi.login(proxy.endpoint, "admin", "x", LOG)
    proxy.rule = lambda request: Fault(hang_seconds=1)
    with pytest.raises(ServiceError, match="Airflow's API does not answer") as silent:
        api.state("backup_offsite", "manual")
    assert "busy" in silent.value.action
    assert LOG in silent.value.action
    assert sent_requests(proxy, "GET") == 6


def test_trigger_request_is_not_repeated_after_a_lost_response(proxy: FaultyProxy) -> None:
    """Airflow may have started the run although its response was lost."""
    api = AirflowApi.login(proxy.endpoint, "admin", "x", LOG)
    proxy.rule = first(1, lambda request: request.method == "POST", Fault(lose_answer=True))
    with pytest.raises(ServiceError, match="does not answer") as lost:
        api.trigger("backup_offsite")
    assert "`up` again" in lost.value.action
    assert sent_requests(proxy, "POST") == 1


def test_login_request_is_repeated_after_a_timeout(proxy: FaultyProxy) -> None:
    proxy.rule = first(1, lambda request: True, Fault(hang_seconds=1))
    assert AirflowApi.login(proxy.endpoint, "admin", "x", LOG).trigger("backup_offsite") == "manual"


def test_login_raises_service_error_with_path_of_log_file_if_every_attempt_times_out(
    proxy: FaultyProxy,
) -> None:
    proxy.rule = lambda request: Fault(hang_seconds=1)
    with pytest.raises(ServiceError, match="does not answer") as silent:
        AirflowApi.login(proxy.endpoint, "admin", "x", LOG)
    assert LOG in silent.value.action
