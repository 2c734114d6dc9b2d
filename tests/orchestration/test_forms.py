"""Human steps with their own form and choices, answered by people or by a command."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from include.services.errors import UsageError

pytestmark = pytest.mark.airflow
AT = datetime(2026, 10, 6, 1, tzinfo=UTC)


class UnassignedAction:
    subject, body, assigned = "s", "b", []  # type: ignore[var-annotated]


def seed_step(**more: Any) -> Any:
    """Return a human step that asks for a seed and its source, with its own choices.

    Args:
        more: further arguments of `HumanStep`.
    """
    from airflow.sdk import Param

    from include.orchestration.human_step import HumanStep

    return HumanStep(
        task_id="enter",
        about={"part": "p"},
        ask=lambda _: UnassignedAction(),
        store_answer=lambda _part, _answer: {},
        choices=("Enter", "Cancel"),
        form={
            "seed": Param("", type=["null", "string"], maxLength=200),
            "source": Param("", type=["null", "string"], maxLength=200),
        },
        response_timeout=timedelta(hours=1),
        **more,
    )


@pytest.fixture(scope="module")
def dag() -> Any:
    """Return a DAG with a step that has a `command_form`, and a step that asks for a reason."""
    from airflow.sdk import DAG

    from include.orchestration.human_step import HumanStep

    def fill(words: str, at: datetime) -> dict[str, str]:
        return {"seed": words or "dice", "source": at.isoformat()}

    with DAG("asks_for_a_seed", schedule=None) as dag_:
        seed_step(command_form=fill)
        HumanStep(
            task_id="review",
            about={},
            ask=lambda _: UnassignedAction(),
            store_answer=lambda _p, _a: {},
        )
    return dag_


def test_seed_entry_step_has_its_own_options_and_fields_and_no_default_option() -> None:
    """The form has no field for a reason, and no option is preselected."""
    step = seed_step()
    assert step.options == ["Enter", "Cancel"]
    assert set(step.params) == {"seed", "source"}
    assert not step.defaults


def test_human_step_by_default_offers_approve_or_reject_with_reason(dag: Any) -> None:
    step = dag.task_dict["review"]
    assert step.options == ["Approve", "Reject"]
    assert set(step.params) == {"reason"}


def test_answer_contains_the_entered_values_by_field_name() -> None:
    """Empty fields are omitted, and a reason is optional."""
    from include.orchestration.human_step import answer_of

    answer = answer_of(
        {
            "chosen_options": ["Enter"],
            "params_input": {"seed": " 3391.76", "source": None},
            "responded_at": AT.isoformat(),
            "responded_by_user": {"id": "E00007", "name": "li"},
            "timedout": False,
        }
    )
    assert (answer.option, answer.user, answer.at, answer.reason) == ("Enter", "E00007", AT, "")
    assert answer.texts == {"seed": " 3391.76"}


def test_answer_after_timeout_has_no_values() -> None:
    from include.orchestration.human_step import answer_of

    event = {"chosen_options": ["Enter"], "params_input": {"seed": "1"}, "timedout": True}
    answer = answer_of(event | {"responded_by_user": {"id": "E1"}, "responded_at": AT})
    assert (answer.option, answer.user, answer.texts) == ("", None, {})


def test_answer_given_on_the_command_line_fills_the_form_of_its_step(dag: Any) -> None:
    """By default, the text of the answer becomes the reason."""
    from include.orchestration.auto_answer import REASON, SubmittedAnswer, read_answers

    answers = read_answers(dag, ["enter=enter:a:b", "review=Reject:no"])
    entered, review = answers["enter"], answers["review"]
    assert (entered.option, entered.text) == ("Enter", "a:b")
    assert entered.fill(entered.text, AT) == {"seed": "a:b", "source": AT.isoformat()}
    assert review.fill(review.text, AT) == {"reason": f"{REASON} no"}
    bare = read_answers(dag, ["enter=Cancel", "review=Approve"])["enter"]
    assert bare.fill(bare.text, AT)["seed"] == "dice"
    assert SubmittedAnswer("Approve").fill("", AT) == {"reason": REASON}


def test_answer_on_the_command_line_with_an_unknown_option_raises_usage_error(dag: Any) -> None:
    from include.orchestration.auto_answer import read_answers

    with pytest.raises(UsageError, match="enter has no option Approve") as caught:
        read_answers(dag, ["enter=Approve", "review=Approve"])
    assert caught.value.action == "It has: Enter, Cancel."


def test_seed_entered_on_the_command_line_has_the_command_line_as_its_stated_source() -> None:
    """If the command contains no seed, a random seed is generated."""
    from include.approvals.reasons import COMMAND_LINE
    from include.orchestration.tasks import HumanTaskMaker
    from include.sampling.samples import STAND_IN
    from include.sampling.seed_entry import SEED
    from include.sampling.workflow import SAMPLE_AUDIT

    command_form = HumanTaskMaker(SAMPLE_AUDIT, SEED)({"part": ""}).command_form
    assert command_form is not None
    entered_form = command_form("3391.76 3400.01", AT)
    assert entered_form == {
        "seed": "3391.76 3400.01",
        "source": f"{STAND_IN} {COMMAND_LINE}",
        "published_at": AT.isoformat(),
    }
    generated_form = command_form("  ", AT)
    assert len(generated_form["seed"].split()) == 20
    assert set(generated_form["seed"].split()) <= set("123456")
    assert COMMAND_LINE in generated_form["source"]
    assert set(entered_form) == set(generated_form) == {field.name for field in SEED.form}
    assert command_form("", AT)["seed"] != generated_form["seed"]


def test_seed_form_limits_the_length_of_seed_and_source() -> None:
    from include.orchestration.forms import params_of
    from include.sampling import samples
    from include.sampling.seed_entry import SEED

    form = params_of(SEED.form)
    for name in ("seed", "source"):
        assert form[name].schema["maxLength"] == samples.LONGEST


def test_seed_entry_step_waits_for_response_time_of_policy_pack_or_by_default_two_weeks() -> None:
    """The step waits two weeks if the policy pack has no audit.yaml."""
    from include.policy.period import Period
    from include.sampling.rules import AUDIT, AuditRules
    from include.sampling.seed_entry import SEED
    from tests.sampling.company import rules_of
    from tests.support.contexts import pack_of

    rules = AuditRules.model_validate(rules_of())
    seed = rules.seed.model_copy(update={"response": Period.parse("P1M2DT3H")})
    changed_rules = rules.model_copy(update={"seed": seed})
    for sections, span in (
        ({AUDIT.file: changed_rules}, timedelta(days=32, hours=3)),
        ({}, timedelta(days=14)),
    ):
        assert SEED.response(pack_of({}, sections)) == span
