"""The form of a required action in Airflow, and answers of commands that fill it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from include.approvals.form import Field, read_form
from include.messages import Message, verbatim
from include.services.errors import UsageError

pytestmark = pytest.mark.airflow
AT = datetime(2026, 3, 2, 8, tzinfo=UTC)
TITLE = Message(text="Grade", translations={"zh-CN": "级别"})
OPTIONS = {"low": TITLE, "high": verbatim("High")}
FORM = (
    Field("words", TITLE, help=verbatim("Short"), value="so far", max_length=80),
    Field("story", TITLE, "long_text", required=True),
    Field("grade", TITLE, "choice", options=OPTIONS, value="high"),
    Field("told", TITLE, "yes_no"),
    Field("since", TITLE, "moment", value=AT),
    Field("people", TITLE, "number", value=12),
    Field("done", TITLE, "list", options=OPTIONS, value=("low",)),
    Field("lines", TITLE, "list", value=("a", "b")),
)


def serialized_params() -> dict[str, dict[str, Any]]:
    from include.orchestration.forms import params_of

    return {name: param.serialize() for name, param in params_of(FORM).items()}


def test_required_action_form_has_titles_in_both_languages_and_default_values() -> None:
    """A title that is equal in both languages is shown once."""
    params = serialized_params()
    assert {param["schema"]["title"] for param in params.values()} == {"级别 / Grade"}
    assert (params["words"]["description"], params["story"]["description"]) == ("Short", None)
    assert {name: param["value"] for name, param in params.items()} == {
        "words": "so far",
        "story": None,
        "grade": "high",
        "told": False,
        "since": AT.isoformat(),
        "people": 12,
        "done": ["low"],
        "lines": ["a", "b"],
    }


def test_each_field_of_required_action_form_has_a_single_type_besides_null() -> None:
    """Required fields cannot be null."""
    schema = {name: param["schema"] for name, param in serialized_params().items()}
    assert {name: param["type"] for name, param in schema.items()} == {
        "words": ["null", "string"],
        "story": "string",
        "grade": ["null", "string"],
        "told": "boolean",
        "since": ["null", "string"],
        "people": ["null", "integer"],
        "done": ["null", "array"],
        "lines": ["null", "array"],
    }
    assert (schema["story"]["format"], schema["since"]["format"]) == ("multiline", "date-time")
    assert schema["words"]["maxLength"] == 80
    assert schema["grade"]["enum"] == schema["done"]["examples"] == ["low", "high"]
    assert schema["grade"]["values_display"] == {"low": "级别 / Grade", "high": "High"}


def test_form_defaults_are_unchanged_after_json_conversion() -> None:
    entered = json.loads(
        json.dumps({name: field["value"] for name, field in serialized_params().items()})
    )
    form = read_form(FORM, entered)
    assert [problem.values["problem"].text for problem in form.problems] == ["a value is required"]  # type: ignore[union-attr]
    assert form.values == {
        field.name: field.value if field.kind != "yes_no" else False
        for field in FORM
        if field.name != "story"
    }


def command_answer(words: str) -> Any:
    from airflow.sdk import DAG

    from include.orchestration.auto_answer import read_answers
    from include.orchestration.human_step import HumanStep

    with DAG("asks", schedule=None) as dag:
        HumanStep(task_id="impact", about={}, ask=lambda _: None, store_answer=lambda _p, _a: {})
    return read_answers(dag, [f"impact=Approve:{words}"])["impact"]


def fill_form(words: str, **more: Any) -> dict[str, Any] | None:
    """Return the form values of a command's answer, or None if the answer does not fit the form.

    Args:
        words: the answer, as typed on the command line.
        more: additional fields of the form.
    """
    from include.orchestration.auto_answer import _fill_form

    params = {name: {"value": param["value"]} for name, param in serialized_params().items()}
    detail: Any = SimpleNamespace(options=["Approve", "Reject"], params=params | more)
    return _fill_form(detail, command_answer(words))


def test_json_answer_on_the_command_line_fills_the_fields_of_the_form() -> None:
    """Missing fields keep their default value. The reason names the command."""
    from include.orchestration.auto_answer import REASON

    form = fill_form('{"story": "a: b", "told": true, "done": ["high"], "reason": "drill"}')
    assert form is not None
    assert (form["story"], form["told"], form["done"]) == ("a: b", True, ["high"])
    assert (form["words"], form["people"]) == ("so far", 12)
    assert form["reason"] == f"{REASON} drill"


def test_answer_on_the_command_line_that_is_not_json_becomes_the_reason() -> None:
    """The reason names the command."""
    from include.orchestration.auto_answer import REASON

    form = fill_form("late: wait")
    assert form is not None
    assert (form["reason"], form["words"]) == (f"{REASON} late: wait", "so far")


def test_answer_on_the_command_line_with_unknown_field_or_choice_fails_the_step() -> None:
    from airflow.sdk.exceptions import AirflowFailException

    from include.orchestration.auto_answer import SubmittedAnswer, _fill_form, _unfit_event
    from include.orchestration.human_step import answer_of

    assert fill_form('{"measure": "typo"}') is None
    detail: Any = SimpleNamespace(options=["Yes", "No"], params={"story": {"value": None}})
    answer = SubmittedAnswer("Approve", "")
    assert _fill_form(detail, answer) is None
    with pytest.raises(AirflowFailException, match=r"choices Yes, No and the fields story\."):
        answer_of(_unfit_event(detail))


def test_read_answers_raises_usage_error_for_invalid_json() -> None:
    with pytest.raises(UsageError, match="answer of impact is not a JSON object") as caught:
        command_answer('{"measures": ')
    assert caught.value.action
