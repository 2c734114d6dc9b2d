"""The Airflow parameters of the incident forms."""

from __future__ import annotations

import pytest

from include.services.clock import SystemClock

pytestmark = pytest.mark.airflow


def test_form_of_update_incident_offers_every_action_and_validates_numbers() -> None:
    from include.incident.form import Action
    from include.incident.workflow import UPDATE_INCIDENT
    from include.orchestration.tasks import dag_settings

    params = dag_settings(UPDATE_INCIDENT, schedule=None, page="")["params"]
    assert params["action"].schema["enum"] == [str(action) for action in Action]
    assert set(params["action"].schema["values_display"]) == set(Action)
    assert params["incident"].schema["pattern"].startswith("^[A-Z]")
    assert params["entry"].schema["minimum"] == 1


def test_incident_trigger_form_requires_type_and_description_and_orders_its_sections() -> None:
    from include.incident.workflow import RESPOND_TO_INCIDENT
    from include.orchestration.tasks import dag_settings

    params = dag_settings(RESPOND_TO_INCIDENT, schedule=None, page="")["params"]
    required = {name for name, param in params.items() if param.schema["type"] == "string"}
    assert required == {"type", "what"}
    assert all(params[name].value is None for name in required)  # the page shows no default
    assert [param.schema["section"] for param in params.values()] == sorted(
        param.schema["section"] for param in params.values()
    )
    assert params["tabletop"].schema["enum"][0] is None


def is_accepted(name: str, value: object, workflow: str = "respond_to_incident") -> bool:
    """Return whether Airflow accepts the value of a field before it creates a run."""
    from airflow.sdk.exceptions import ParamValidationError

    from include.orchestration.tasks import dag_settings
    from include.registry import workflow as workflow_of

    param = dag_settings(workflow_of(workflow), schedule=None, page="")["params"][name]
    try:
        param.resolve(value)
    except ParamValidationError:
        return False
    return True


NEXT_YEAR = f"{SystemClock().now().year + 1}-01-01T00:00:00+08:00"


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("type", "lost_device", "flood"),
        ("type", None, ""),  # a drill omits the type
        ("what", "扫描枪遗失", " \n "),
        ("aware_at", "2026-11-26T03:15:00+08:00", NEXT_YEAR),
        ("aware_at", None, "yesterday"),
        ("began_at", "2026-11-26T03:15:00Z", NEXT_YEAR),
        ("since", "2026-11-26T03:15:00Z", "2026-11-31T03:15:00Z"),
        ("databases", ["courier"], ["nope"]),
        ("collections", ["courier.waybill"], ["courier.nope"]),
        ("keys_of", "courier.waybill", "courier.nope"),
        ("accounts", ["E00003", ""], ["E00003; DROP TABLE"]),
        ("departments", ["East"], [7]),
        ("tabletop", "scanner_lost", "flood"),
    ],
)
def test_incident_trigger_form_accepts_valid_values_and_refuses_invalid_values(
    name: str, good: object, bad: object
) -> None:
    assert is_accepted(name, good)
    assert not is_accepted(name, bad)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("incident", "INC-2026-0001", "the first one"),
        ("incident", None, ""),
        ("action", "note", "delete"),
        ("words", "The scanner was found.", ""),
        ("at", "2026-11-26T03:15:00+08:00", NEXT_YEAR),
        ("account", "E00003", "E00003 and others"),
        ("duty", None, "king"),
        ("grade", None, "worst"),
        ("entry", 7, 0),
        ("entry", 2**53 - 1, 2**53),
        ("entry", None, "seven"),
    ],
)
def test_form_of_update_incident_accepts_valid_values_and_refuses_invalid_values(
    name: str, good: object, bad: object
) -> None:
    assert is_accepted(name, good, "update_incident")
    assert not is_accepted(name, bad, "update_incident")
