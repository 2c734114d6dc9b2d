"""Human steps under `up`: who may log in to answer, and answering for the sample company."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import psycopg

from include.approvals.people import members
from include.cli.console import tell
from include.intake.batches import unit_of_work
from include.intake.names import Incoming
from include.intake.people import reviewers
from include.local.airflow import Standalone
from include.local.airflow_api import AirflowApi, Question
from include.policy.datamap import MappedDatabase
from include.retention.people import people_of
from include.sampling import seeds
from include.services.errors import ServiceError
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
    """Return the user ids of all whom a workflow may ask, by the pack, in groups of one duty.

    Workflows that the pack leaves out are not there. A group that could not be looked up is empty:
    the workflow's own run says why.
    """
    found: dict[str, list[Sequence[str]]] = {}
    if place.pack.intake:
        found["review_intake"] = [_reviewers(place)]
    if place.pack.retention:
        found["enforce_retention"] = [_approvers(place)]
    if place.pack.audit:
        found["sample_audit"] = [_auditors(place)]
    if place.pack.incident:
        found["respond_to_incident"] = found["update_incident"] = _incident_team(place)
    return found


def _reviewers(place: Workplace) -> Sequence[str]:
    """Who may review batches of incoming records, of any rule."""
    found: dict[str, None] = {}
    for rule in place.pack.intake:
        mapped = place.pack.database_of(rule.collection, rule.database)
        incoming = Incoming(rule, mapped)
        # A database that lacks the tables is reported by the workflow's own run.
        with suppress(psycopg.Error), place.database(mapped.connection).connect() as connection:
            connection.autocommit = True
            with unit_of_work(connection, incoming, write=False):
                found |= dict.fromkeys(reviewers(connection, incoming))
    return [*found]


def _approvers(place: Workplace) -> Sequence[str]:
    """Who may approve a plan of `enforce_retention` that is larger than usual."""
    rule = place.pack.disposition.approval
    if not place.pack.retention or rule.staff is None:
        return rule.approvers.accounts
    holder = place.pack.database_of(rule.staff.collection, rule.staff.database)
    with suppress(psycopg.Error), _staff(place, holder) as connection:
        return people_of(connection, holder, rule, ()).approvers
    return ()


def _auditors(place: Workplace) -> Sequence[str]:
    """Who may enter the seed of `sample_audit`."""
    rules = place.pack.audit
    if rules is None or rules.staff is None:
        return rules.auditors.accounts if rules else ()
    holder = place.pack.database_of(rules.staff.collection, rules.staff.database)
    with suppress(psycopg.Error), _staff(place, holder) as connection:
        return members(connection, holder, rules.staff, rules.auditors)
    return ()


def _incident_team(place: Workplace) -> list[Sequence[str]]:
    """Who may answer a step of `respond_to_incident`, by duty."""
    rules = place.pack.incident
    if rules is None:
        return []
    groups = [group for duty in rules.team for group in (duty.people, duty.deputies)]
    holder = place.pack.database_of(rules.staff.collection, rules.staff.database)
    with suppress(psycopg.Error), _staff(place, holder) as connection:
        return [members(connection, holder, rules.staff, group) for group in groups]
    return [group.accounts for group in groups]


@contextmanager
def _staff(place: Workplace, holder: MappedDatabase) -> Iterator[psycopg.Connection]:
    """Conditions of the pack name tables without their schema, as in the workflows."""
    with place.database(holder.connection).connect() as connection:
        path = [holder.schema_name]
        connection.execute("SELECT set_config('search_path', quote_ident(%s), false)", path)
        yield connection


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
        now = self.place.clock.now()
        given = seeds.thrown(REASON, now) if "seed" in question.form else {"reason": REASON}
        api.answer(self.dag_id, question, option, given)
        tell(f"{known[0]} answered {question.task_id} of {self.dag_id}: {option}")
