"""Convert the fields of a form to Airflow parameters, which Airflow's pages show.

Airflow's pages (3.3) show the `description` of a parameter below its field, and ignore
`description_md`. A person must fill in every field that may not be null before choosing an option.
The schema of a parameter may contain only one type besides null.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from airflow.sdk import Param

from include.approvals.form import LARGEST_NUMBER, Field, FormSections
from include.approvals.required_action import in_both_languages
from include.orchestration import param_formats


def params_of(form: Iterable[Field]) -> dict[str, Param]:
    """Return the Airflow parameters of a form: field name -> parameter."""
    return {field.name: _param(field) for field in form}


def trigger_params(form: FormSections) -> dict[str, Param]:
    """Return the Airflow parameters of a trigger form: field name -> parameter.

    Airflow validates the parameters before it creates a run.
    """
    param_formats.install()
    params: dict[str, Param] = {}
    for section, fields in form.items():
        params |= params_of(fields)
        for field in fields:
            schema = params[field.name].schema
            schema["section"] = section
            if field.kind == "choice" and not field.required:
                schema["enum"] = [None, *field.options]
            if field.kind == "list" and field.options:
                schema["items"] = {"type": "string", "enum": list(field.options)}
            schema.update(field.schema)
            if field.may_be_omitted:
                _require_only_on_the_page(schema)
    return params


def _require_only_on_the_page(schema: dict[str, Any]) -> None:
    """Change the schema of a parameter so that a run may omit it, but Airflow's page requires it.

    The page (3.3) requires a value if the type of the schema does not include null. A validator of
    JSON schema draft 7 ignores all keywords beside ``$ref``, so it accepts null.

    Args:
        schema: schema of the parameter.
    """
    value = {key: schema[key] for key in _VALIDATING & schema.keys()}
    value["type"] = ["null", schema["type"]]
    if "enum" in value:
        value["enum"] = [None, *value["enum"]]
    schema["$schema"] = "http://json-schema.org/draft-07/schema#"
    schema["definitions"] = {"value": value}
    schema["$ref"] = "#/definitions/value"


_VALIDATING = {"enum", "pattern", "format", "minLength", "maxLength", "allOf"}


def _param(field: Field) -> Param:
    schema: dict[str, Any] = {"title": in_both_languages(field.title)}
    kind, more = _TYPES[field.kind](field)
    schema["type"] = kind if field.required or field.kind == "yes_no" else ["null", kind]
    return Param(
        _plain(field), in_both_languages(field.help) if field.help else None, **schema, **more
    )


def _plain(field: Field) -> Any:
    """Return the initial value of a field as a JSON type.

    For a yes-or-no field without an initial value, the result is False.
    """
    if field.kind == "yes_no":
        return bool(field.value)
    if isinstance(field.value, datetime):
        return field.value.isoformat()
    return list(field.value) if isinstance(field.value, tuple) else field.value


def _text(field: Field) -> tuple[str, dict[str, Any]]:
    return "string", {"maxLength": field.max_length}


def _long_text(field: Field) -> tuple[str, dict[str, Any]]:
    return "string", {"maxLength": field.max_length, "format": "multiline"}


def _choice(field: Field) -> tuple[str, dict[str, Any]]:
    return "string", {"enum": list(field.options), "values_display": _titles(field)}


def _list(field: Field) -> tuple[str, dict[str, Any]]:
    more: dict[str, Any] = {"items": {"type": "string"}}
    if field.options:  # `examples`, since `enum` would constrain the list and not its items
        more |= {"examples": list(field.options), "values_display": _titles(field)}
    return "array", more


def _titles(field: Field) -> dict[str, str]:
    return {option: in_both_languages(title) for option, title in field.options.items()}


_TYPES = {
    "text": _text,
    "long_text": _long_text,
    "choice": _choice,
    "yes_no": lambda _one: ("boolean", {}),
    "moment": lambda _one: ("string", {"format": "date-time"}),
    "number": lambda _one: ("integer", {"minimum": 0, "maximum": LARGEST_NUMBER}),
    "list": _list,
}
