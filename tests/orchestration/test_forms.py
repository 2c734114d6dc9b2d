"""Human steps with a form and choices of their own, answered by people or in advance."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from include.services.errors import UsageError

pytestmark = pytest.mark.airflow
AT = datetime(2026, 10, 6, 1, tzinfo=UTC)


class Nobody:
    subject, body, assigned = "s", "b", []  # type: ignore[var-annotated]


def entering(**more: Any) -> Any:
    """A step that asks for two words, with choices of its own."""
    from airflow.sdk import Param

    from include.orchestration.human import HumanStep

    return HumanStep(
        task_id="enter",
        about={"part": "p"},
        ask=lambda _: Nobody(),
        take=lambda _part, _answer: {},
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
    """A DAG with one step that fills its form in advance and one that asks for a reason."""
    from airflow.sdk import DAG

    from include.orchestration.human import HumanStep

    def fill(words: str, at: datetime) -> dict[str, str]:
        return {"seed": words or "dice", "source": at.isoformat()}

    with DAG("asks_for_a_seed", schedule=None) as made:
        entering(in_advance=fill)
        HumanStep(task_id="review", about={}, ask=lambda _: Nobody(), take=lambda _p, _a: {})
    return made


def test_a_step_has_the_choices_and_the_form_that_it_names() -> None:
    """The form stands in place of the reason, and nothing is chosen by itself."""
    step = entering()
    assert step.options == ["Enter", "Cancel"]
    assert set(step.params) == {"seed", "source"}
    assert not step.defaults


def test_a_step_that_names_none_asks_to_approve_with_a_reason(dag: Any) -> None:
    """As every step did before."""
    step = dag.task_dict["review"]
    assert step.options == ["Approve", "Reject"]
    assert set(step.params) == {"reason"}


def test_what_a_person_entered_is_handed_on_by_name() -> None:
    """What was left out is not there, not the text None; there need be no reason."""
    from include.orchestration.human import answer_of

    found = answer_of(
        {
            "chosen_options": ["Enter"],
            "params_input": {"seed": " 3391.76", "source": None},
            "responded_at": AT.isoformat(),
            "responded_by_user": {"id": "E00007", "name": "li"},
            "timedout": False,
        }
    )
    assert (found.option, found.user, found.at, found.reason) == ("Enter", "E00007", AT, "")
    assert found.given == {"seed": " 3391.76"}


def test_silence_hands_on_nothing_that_was_entered() -> None:
    """What stands in a form that nobody sent is nobody's."""
    from include.orchestration.human import answer_of

    event = {"chosen_options": ["Enter"], "params_input": {"seed": "1"}, "timedout": True}
    found = answer_of(event | {"responded_by_user": {"id": "E1"}, "responded_at": AT})
    assert (found.option, found.user, found.given) == ("", None, {})


def test_an_answer_in_advance_fills_the_form_of_its_step(dag: Any) -> None:
    """From its words and the moment; a step without a filling of its own gets a reason."""
    from include.orchestration.answering import REASON, Given, read_answers

    found = read_answers(dag, ["enter=enter:a:b", "review=Reject:no"])
    entered, review = found["enter"], found["review"]
    assert (entered.option, entered.words) == ("Enter", "a:b")
    assert entered.fill(entered.words, AT) == {"seed": "a:b", "source": AT.isoformat()}
    assert review.fill(review.words, AT) == {"reason": f"{REASON} no"}
    bare = read_answers(dag, ["enter=Cancel", "review=Approve"])["enter"]
    assert bare.fill(bare.words, AT)["seed"] == "dice"
    assert Given("Approve").fill("", AT) == {"reason": REASON}


def test_only_choices_of_the_step_can_be_given_in_advance(dag: Any) -> None:
    """Approve is none of them."""
    from include.orchestration.answering import read_answers

    with pytest.raises(UsageError, match="enter has no option Approve") as caught:
        read_answers(dag, ["enter=Approve", "review=Approve"])
    assert caught.value.action == "It has: Enter, Cancel."


def test_a_seed_given_with_the_command_says_that_nobody_looked_it_up() -> None:
    """Without words, dice are thrown: the sample company has no public source."""
    from include.approvals.reasons import COMMAND_LINE
    from include.orchestration.tasks import HumanTaskMaker
    from include.sampling.samples import STAND_IN
    from include.sampling.seed_entry import SEED
    from include.sampling.workflow import SAMPLE_AUDIT

    in_advance = HumanTaskMaker(SAMPLE_AUDIT, SEED)({"part": ""}).in_advance
    assert in_advance is not None
    given = in_advance("3391.76 3400.01", AT)
    assert given == {
        "seed": "3391.76 3400.01",
        "source": f"{STAND_IN} {COMMAND_LINE}",
        "published_at": AT.isoformat(),
    }
    thrown = in_advance("  ", AT)
    assert len(thrown["seed"].split()) == 20
    assert set(thrown["seed"].split()) <= set("123456")
    assert COMMAND_LINE in thrown["source"]
    assert set(given) == set(thrown) == {field.name for field in SEED.form}
    assert in_advance("", AT)["seed"] != thrown["seed"]


def test_the_form_holds_no_more_than_a_seed_may_have() -> None:
    """Longer ones are refused where they are entered."""
    from include.orchestration.forms import params_of
    from include.sampling import samples
    from include.sampling.seed_entry import SEED

    form = params_of(SEED.form)
    for name in ("seed", "source"):
        assert form[name].schema["maxLength"] == samples.LONGEST


def test_a_run_waits_as_long_as_the_pack_says() -> None:
    """Two weeks where the pack has no audit.yaml."""
    from include.policy.period import Period
    from include.sampling.rules import AUDIT, AuditRules
    from include.sampling.seed_entry import SEED
    from tests.sampling.rig import rules_of
    from tests.support.contexts import pack_of

    rules = AuditRules.model_validate(rules_of())
    seed = rules.seed.model_copy(update={"response": Period.parse("P1M2DT3H")})
    asked = rules.model_copy(update={"seed": seed})
    for sections, span in (
        ({AUDIT.file: asked}, timedelta(days=32, hours=3)),
        ({}, timedelta(days=14)),
    ):
        assert SEED.response(pack_of({}, sections)) == span
