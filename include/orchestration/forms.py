"""Forms of Airflow: what the fields of a question are to its page and its REST API.

Its page (3.3) shows `description` below a field, not `description_md`; wants an answer in every
field whose type is not nullable before any choice can be made; takes one type beside null.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from airflow.sdk import Param

from include.approvals.form import Field, FormSections
from include.approvals.question import in_both


def params_of(form: Iterable[Field]) -> dict[str, Param]:
    """Return the parameters that show a form, by the fields' names."""
    return {one.name: _param(one) for one in form}


def trigger_params(form: FormSections) -> dict[str, Param]:
    """Return the parameters of a trigger form, which Airflow checks before a run exists."""
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
    return params


def _param(one: Field) -> Param:
    schema: dict[str, Any] = {"title": in_both(one.title)}
    kind, more = _TYPES[one.kind](one)
    schema["type"] = kind if one.required or one.kind == "yes_no" else ["null", kind]
    return Param(_plain(one), in_both(one.help) if one.help else None, **schema, **more)


def _plain(one: Field) -> Any:
    """The value as JSON has it; a switch is on or off, never neither."""
    if one.kind == "yes_no":
        return bool(one.value)
    if isinstance(one.value, datetime):
        return one.value.isoformat()
    return list(one.value) if isinstance(one.value, tuple) else one.value


def _text(one: Field) -> tuple[str, dict[str, Any]]:
    return "string", {"maxLength": one.longest}


def _long_text(one: Field) -> tuple[str, dict[str, Any]]:
    return "string", {"maxLength": one.longest, "format": "multiline"}


def _choice(one: Field) -> tuple[str, dict[str, Any]]:
    return "string", {"enum": list(one.options), "values_display": _titles(one)}


def _list(one: Field) -> tuple[str, dict[str, Any]]:
    more: dict[str, Any] = {"items": {"type": "string"}}
    if one.options:  # `examples`, since `enum` would be of the list and not of what stands in it
        more |= {"examples": list(one.options), "values_display": _titles(one)}
    return "array", more


def _titles(one: Field) -> dict[str, str]:
    return {option: in_both(title) for option, title in one.options.items()}


_TYPES = {
    "text": _text,
    "long_text": _long_text,
    "choice": _choice,
    "yes_no": lambda _one: ("boolean", {}),
    "moment": lambda _one: ("string", {"format": "date-time"}),
    "number": lambda _one: ("integer", {"minimum": 0}),
    "list": _list,
}
