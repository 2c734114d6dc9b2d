"""The Airflow parameters of the incident forms."""

from __future__ import annotations

import pytest

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
    assert [param.schema["section"] for param in params.values()] == sorted(
        param.schema["section"] for param in params.values()
    )
    assert params["tabletop"].schema["enum"][0] is None
