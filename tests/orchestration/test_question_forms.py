"""A question's form as Airflow shows it, and answers to it that were given with the command."""

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
    Field("words", TITLE, help=verbatim("Short"), value="so far", longest=80),
    Field("story", TITLE, "long_text", required=True),
    Field("grade", TITLE, "choice", options=OPTIONS, value="high"),
    Field("told", TITLE, "yes_no"),
    Field("since", TITLE, "moment", value=AT),
    Field("people", TITLE, "number", value=12),
    Field("done", TITLE, "list", options=OPTIONS, value=("low",)),
    Field("lines", TITLE, "list", value=("a", "b")),
)


def shown() -> dict[str, dict[str, Any]]:
    from include.orchestration.forms import params_of

    return {name: one.serialize() for name, one in params_of(FORM).items()}


def test_a_form_is_shown_in_both_languages_with_what_stands_in_it() -> None:
    """A title that is the same in both stands there once."""
    found = shown()
    assert {one["schema"]["title"] for one in found.values()} == {"级别 / Grade"}
    assert (found["words"]["description"], found["story"]["description"]) == ("Short", None)
    assert {name: one["value"] for name, one in found.items()} == {
        "words": "so far",
        "story": None,
        "grade": "high",
        "told": False,
        "since": AT.isoformat(),
        "people": 12,
        "done": ["low"],
        "lines": ["a", "b"],
    }


def test_each_field_has_the_type_that_the_page_knows() -> None:
    """One type and null, null left out where the page shall not let an empty one through."""
    schema = {name: one["schema"] for name, one in shown().items()}
    assert {name: one["type"] for name, one in schema.items()} == {
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


def test_what_stands_in_a_form_is_read_back_as_what_it_was() -> None:
    """As it comes back from who changed nothing, through JSON."""
    entered = json.loads(json.dumps({name: one["value"] for name, one in shown().items()}))
    found = read_form(FORM, entered)
    assert [one.values["problem"].text for one in found.problems] == ["is missing"]  # type: ignore[union-attr]
    assert found.values == {
        one.name: one.value if one.kind != "yes_no" else False
        for one in FORM
        if one.name != "story"
    }


def given(words: str) -> Any:
    from airflow.sdk import DAG

    from include.orchestration.answering import read_answers
    from include.orchestration.human import HumanStep

    with DAG("asks", schedule=None) as dag:
        HumanStep(task_id="impact", about={}, ask=lambda _: None, take=lambda _p, _a: {})
    return read_answers(dag, [f"impact=Approve:{words}"])["impact"]


def filled(words: str, **more: Any) -> dict[str, Any] | None:
    """What is sent for a question with that form."""
    from include.orchestration.answering import _filled

    params = {name: {"value": one["value"]} for name, one in shown().items()}
    detail: Any = SimpleNamespace(options=["Approve", "Reject"], params=params | more)
    return _filled(detail, given(words))


def test_fields_are_given_with_the_command_as_a_json_object() -> None:
    """Types stay; what it leaves out stays as it was; the reason says that nobody looked."""
    from include.orchestration.answering import REASON

    found = filled('{"story": "a: b", "told": true, "done": ["high"], "reason": "drill"}')
    assert found is not None
    assert (found["story"], found["told"], found["done"]) == ("a: b", True, ["high"])
    assert (found["words"], found["people"]) == ("so far", 12)
    assert found["reason"] == f"{REASON} drill"


def test_words_alone_are_the_reason_as_ever() -> None:
    """Whether the form has one or not: evidence has to say that nobody looked."""
    from include.orchestration.answering import REASON

    found = filled("late: wait")
    assert found is not None
    assert (found["reason"], found["words"]) == (f"{REASON} late: wait", "so far")


def test_a_field_or_choice_that_the_question_does_not_have_fails_the_step() -> None:
    """With what it has; the step is not asked in vain until somebody gives up."""
    from airflow.sdk.exceptions import AirflowFailException

    from include.orchestration.answering import Given, _filled, _unfit
    from include.orchestration.human import answer_of

    assert filled('{"measure": "typo"}') is None
    detail: Any = SimpleNamespace(options=["Yes", "No"], params={"story": {"value": None}})
    answer = Given("Approve", "")
    assert _filled(detail, answer) is None
    with pytest.raises(AirflowFailException, match=r"choices Yes, No and the fields story\."):
        answer_of(_unfit(detail, answer))


def test_what_is_no_json_is_refused_before_anything_begins() -> None:
    """A reason that begins with a brace would be one, too."""
    with pytest.raises(UsageError, match="answer of impact holds no JSON object") as caught:
        given('{"measures": ')
    assert caught.value.action
