"""Answer required actions on behalf of the people of the sample company, for the command `up`."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from include.approvals.reasons import AUTOMATIC
from include.cli.console import tell
from include.local.airflow import Standalone
from include.local.airflow_api import AirflowApi, RequiredAction
from include.registry import workflow, workflows
from include.service_container import Services
from include.services.errors import ServiceError
from include.workflow.step import HumanTask

# If an answer arrives within the second in which a worker defers the task, Airflow 3.3 treats the
# task as killed and asks again. People need longer to answer.
PATIENCE = 10  # seconds; on a busy machine the scheduler is slow
MOST_PEOPLE = 30  # users for each duty in the local Airflow; a configured Airflow has its own users
_LOG_IN = re.compile(r"[\w.@-]+")


def people(services: Services) -> list[str]:
    """Return the user ids of the people on whose behalf `up` may answer required actions.

    These are the reviewers, the approvers, the auditors and the incident team that the policy pack
    names. The list is empty if the connection state_db is configured: the installation then belongs
    to a real company, and `up` does not answer on behalf of real people.
    """
    if not services.is_local("state_db"):
        return []
    groups = (group for duties in respondents_by_workflow(services).values() for group in duties)
    return [*dict.fromkeys(user_id for group in groups for user_id in _able(group))]


def respondents_by_workflow(services: Services) -> dict[str, list[Sequence[str]]]:
    """Return the people to whom each workflow may assign required actions.

    Returns:
        DAG id -> one list of user ids for each duty to which the workflow assigns required actions.
        Any person in a list may answer the required actions of that duty. A list is empty if its
        people could not be read; the run of the workflow then reports the reason. Workflows that
        the policy pack does not use are left out.
    """
    duties: dict[str, list[Sequence[str]]] = {}
    for declaration in workflows():
        if declaration.respondents is None:
            continue
        run = declaration.context(services)
        groups = declaration.respondents(run) if run is not None else []
        if groups:
            duties[declaration.id] = groups
    return duties


def _able(user_ids: Iterable[str]) -> list[str]:
    return [user_id for user_id in user_ids if _LOG_IN.fullmatch(user_id)][:MOST_PEOPLE]


@dataclass
class Answering:
    """Answers the required actions of one workflow, each on behalf of a person who may answer it.

    This includes required actions of runs that the schedule started. Without an answer, such a run
    would not end, and the run that `up` starts would wait for it.

    Attributes:
        services: connections and policy pack.
        airflow: the local Airflow.
        api: Airflow's API with an administrator's account.
        dag_id: DAG id of the workflow.
        first_seen: (run id, task id, map index) of a required action -> value of `time.monotonic`
            when the required action was first seen.
    """

    services: Services
    airflow: Standalone
    api: AirflowApi
    dag_id: str
    first_seen: dict[tuple[str, str, int], float] = field(default_factory=dict)

    def answer(self) -> None:
        """Answer the required actions that have waited for at least `PATIENCE` seconds.

        Only required actions of the workflow `dag_id` are answered.

        Raises:
            ServiceError: a required action has to be answered, but the connection state_db is
                configured: this is a real installation, where only real people may answer. Also
                raised if none of the people who may answer can log in to the local Airflow.
        """
        for action in self.api.required_actions(self.dag_id):
            key = (action.run_id, action.task_id, action.map_index)
            if time.monotonic() - self.first_seen.setdefault(key, time.monotonic()) < PATIENCE:
                continue
            self._answer(action)
            del self.first_seen[key]

    def _answer(self, action: RequiredAction) -> None:
        if not self.services.is_local("state_db"):
            raise ServiceError(
                f"{self.dag_id} waits for people; `up` answers only for the sample company.",
                "Answer under Required Actions in Airflow.",
            )
        users = [user for user in action.assigned if user in self.airflow.passwords]
        if not users or not action.options:
            raise ServiceError(
                f"No person who may answer {action.task_id} of {self.dag_id} can log in here.",
                "Answer under Required Actions in Airflow.",
            )
        api = self.airflow.api_as(users[0])
        option = action.options[0]  # the option with which the run continues
        form = filled_form(self.dag_id, action.task_id, self.services.clock.now())
        api.answer(self.dag_id, action, option, form)
        tell(f"{users[0]} answered {action.task_id} of {self.dag_id}: {option}")


def filled_form(dag_id: str, task_id: str, now: datetime) -> Mapping[str, Any]:
    """Return the values that `up` enters into the form of a human task.

    Args:
        dag_id: DAG id of the workflow.
        task_id: task id of the human task.
        now: current time, for forms that have a field for the time.
    """
    steps = {step.name: step for step in workflow(dag_id).steps}
    step = steps.get(task_id)
    if isinstance(step, HumanTask) and step.command_form is not None:
        return step.command_form("", now, AUTOMATIC)
    return {"reason": AUTOMATIC}
