"""The trigger forms of incidents as parameters of Airflow."""

from __future__ import annotations

from airflow.sdk import Param

from include.incident.form import Sections, trigger_form, update_form
from include.incident.rule_checks import INCIDENT
from include.orchestration.forms import params_of
from include.orchestration.workflow import policy

_NUMBER = "^[A-Z]{2,8}-[0-9]{4}-[0-9]{4,}$"


def trigger() -> dict[str, Param]:
    """Return the form of `respond_to_incident`."""
    return _params(trigger_form(policy().section(INCIDENT)))


def update() -> dict[str, Param]:
    """Return the form of `update_incident`."""
    params = _params(update_form(policy().section(INCIDENT)))
    params["incident"].schema["pattern"] = _NUMBER
    params["entry"].schema["minimum"] = 1
    return params


def _params(sections: Sections) -> dict[str, Param]:
    """Return the parameters of a form; Airflow checks them before a run exists."""
    params: dict[str, Param] = {}
    for section, fields in sections.items():
        params |= params_of(fields)
        for field in fields:
            schema = params[field.name].schema
            schema["section"] = section
            if field.kind == "choice" and not field.required:
                schema["enum"] = [None, *field.options]
            if field.kind == "list" and field.options:
                schema["items"] = {"type": "string", "enum": list(field.options)}
    return params
