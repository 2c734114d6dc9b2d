"""Human steps under `up`: who may log in to answer, and answering for the sample company."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from include.cli.console import tell
from include.local.airflow import Standalone
from include.local.airflow_api import AirflowApi, Question
from include.registry import workflow, workflows
from include.services.errors import ServiceError
from include.workflow.step import HumanTask
from include.workplace import Workplace

# An answer within the second in which a task is parked meets the scheduler's look at the worker
# that parked it: Airflow 3.3 takes the task for killed and asks again (ran). People are slower.
PATIENCE = 10  # seconds; a busy machine is slow to look
MOST_PEOPLE = 30  # of each kind: log-ins of the local Airflow; a company's own has its own log-ins
REASON = "Answered by `up --once` for the sample company."
_LOG_IN = re.compile(r"[\w.@-]+")


def people(place: Workplace) -> list[str]:
    """Return the user ids of the sample company's people whom workflows ask, by the pack.

    Reviewers, approvers, auditors and the incident team. Nobody, where the state database is a real
    one: nobody answers for real people.
    """
    if not place.is_local("state_db"):
        return []
    groups = (group for asked in who_is_asked(place).values() for group in asked)
    return [*dict.fromkeys(one for group in groups for one in _able(group))]


def who_is_asked(place: Workplace) -> dict[str, list[Sequence[str]]]:
    """Return the user ids of everyone whom each workflow may ask, in groups of one duty.

    Workflows that the pack leaves out are missing. A group that could not be read is empty: the
    workflow's own run reports why.
    """
    asked: dict[str, list[Sequence[str]]] = {}
    for each in workflows():
        if each.respondents is None:
            continue
        run = each.context(place)
        groups = each.respondents(run) if run is not None else []
        if groups:
            asked[each.id] = groups
    return asked


def _able(found: Iterable[str]) -> list[str]:
    return [one for one in found if _LOG_IN.fullmatch(one)][:MOST_PEOPLE]


@dataclass
class Answering:
    """Answers what a workflow asks, each as a person entitled to.

    In any of its runs: one that its schedule began first would keep ours waiting behind it.

    Attributes:
        first_seen: run, task and map index -> when first seen waiting, by the monotonic clock.
    """

    place: Workplace
    airflow: Standalone
    api: AirflowApi
    dag_id: str
    first_seen: dict[tuple[str, str, int], float] = field(default_factory=dict)

    def answer(self) -> None:
        """Answer what has waited for some seconds.

        Raises:
            ServiceError: the state database is a real one, or none of the people can log in.
        """
        for question in self.api.questions(self.dag_id):
            key = (question.run_id, question.task_id, question.map_index)
            if time.monotonic() - self.first_seen.setdefault(key, time.monotonic()) < PATIENCE:
                continue
            self._answer(question)
            del self.first_seen[key]

    def _answer(self, question: Question) -> None:
        if not self.place.is_local("state_db"):
            raise ServiceError(
                f"{self.dag_id} waits for people, and `up` answers for the sample company only.",
                "Answer under Required Actions in Airflow.",
            )
        known = [one for one in question.assigned if one in self.airflow.passwords]
        if not known or not question.options:
            raise ServiceError(
                f"Nobody whom {question.task_id} of {self.dag_id} asks can log in here.",
                "Answer under Required Actions in Airflow.",
            )
        api = self.airflow.api_as(known[0])
        option = question.options[0]  # what lets the run go on
        form = filled_form(self.dag_id, question.task_id, self.place.clock.now())
        api.answer(self.dag_id, question, option, form)
        tell(f"{known[0]} answered {question.task_id} of {self.dag_id}: {option}")


def filled_form(dag_id: str, task_id: str, now: datetime) -> Mapping[str, Any]:
    """Return the form of a human task, filled as an answer with a command fills it."""
    steps = {step.name: step for step in workflow(dag_id).steps}
    step = steps.get(task_id)
    if isinstance(step, HumanTask) and step.in_advance is not None:
        return step.in_advance("", now, REASON)
    return {"reason": REASON}
