"""ParcelSeal's roles in Airflow and their permissions, as listed in docs/reference/roles.md.

The roles for the company's departments are derived from the policy pack, see `department_roles`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from include.orchestration.access.permissions import (
    Action,
    Page,
    PageScope,
    Part,
    Permission,
    menus,
    on_dag,
    on_part,
    to_read,
)
from include.registry import in_group
from include.workflow.declaration import AccessGroup

if TYPE_CHECKING:
    from include.policy import PolicyPack

Dags = frozenset[str]
NONE: Dags = frozenset()

# Every role may read runs, tasks and requests of its DAGs, use the navigation with the compliance
# pages (which needs "Plugins"), and change its own password. FAB itself grants "Website" to every
# role.
EVERYBODY = frozenset(
    {
        *to_read(Part.RUN, Part.TASK, Part.ANSWER),
        *to_read("DAG Versions", "DAG Warnings", "DAG Dependencies", "Website", "Plugins"),
        *to_read("My Profile", "My Password"),
        Permission(Action.EDIT, "My Password"),
        *menus("DAGs", Part.ANSWER, "Browse"),
    }
)
# The health of Airflow itself, without connections, variables or settings. Production stores those
# outside Airflow: a person who may redirect a connection would receive its password.
OPERATION = frozenset(
    {
        *to_read("ImportError", "Jobs", "Pools", "Cluster Activity", "Providers"),
        *menus("Jobs", "Cluster Activity", "Pools", "Providers"),
    }
)
# The log of triggers, pauses, clears and answers, of the DAGs that the role may read.
EVENTS = frozenset({*to_read("Audit Logs"), *menus("Audit Logs")})
# The assets of workflows. Airflow shows only events of DAGs that the role may read.
ASSETS = frozenset({*to_read("Assets", "Asset Aliases"), *menus("Assets")})


# The requests of all people for customer information. Without it, a person sees only their own.
USE_OF_ALL = frozenset(to_read(PageScope.USE_OF_ALL))


@dataclass(frozen=True)
class Role:
    """A role in Airflow and its rights.

    Attributes:
        name: name of the role in Airflow.
        duty: one line that describes the tasks of people with the role.
        reads: DAGs whose runs, required actions and sealed bundles the role may read.
        triggers: DAGs that the role may trigger.
        answers: DAGs whose human steps the role may answer. A person can answer only steps to which
            the person is assigned.
        clears: DAGs whose tasks the role may clear or set to another state.
        pauses: DAGs that the role may pause.
        logs: DAGs whose task logs the role may read.
        xcoms: DAGs whose XCom values the role may read.
        code: DAGs whose code the role may read.
        pages: compliance pages that the role may open.
        views: other permissions in Airflow, and the scopes of compliance pages.
    """

    name: str
    duty: str
    reads: Dags = NONE
    triggers: Dags = NONE
    answers: Dags = NONE
    clears: Dags = NONE
    pauses: Dags = NONE
    logs: Dags = NONE
    xcoms: Dags = NONE
    code: Dags = NONE
    pages: frozenset[Page] = frozenset()
    views: frozenset[Permission] = frozenset()

    def __post_init__(self) -> None:
        """Raise ValueError if the role has a right on a DAG that it may not read.

        Airflow would ignore such a right.
        """
        for right in ACTS:
            if unread := self.dags(right) - self.reads:
                raise ValueError(
                    f"{self.name}: {right} without reading {', '.join(sorted(unread))}"
                )

    def dags(self, right: str) -> Dags:
        """Return the DAGs on which the role has a right.

        Args:
            right: name of the right, one of `ACTS`, such as ``triggers``.
        """
        dags: Dags = getattr(self, right)
        return dags

    @property
    def permissions(self) -> frozenset[Permission]:
        """All permissions that the role has in FAB."""
        pages = to_read(*self.pages)
        return EVERYBODY | self.views | frozenset(pages) | frozenset(self._on_dags())

    def _on_dags(self) -> Iterator[Permission]:
        for right, granted in GRANTED.items():
            for dag_id in self.dags(right):
                yield from granted(dag_id)


GRANTED: Mapping[str, Callable[[str], list[Permission]]] = {
    "reads": lambda dag_id: [on_dag(Action.READ, dag_id)],
    "triggers": lambda dag_id: [on_part(Action.CREATE, Part.RUN, dag_id)],
    "answers": lambda dag_id: [on_part(Action.EDIT, Part.ANSWER, dag_id)],
    "clears": lambda dag_id: [on_part(Action.EDIT, part, dag_id) for part in (Part.RUN, Part.TASK)],
    "pauses": lambda dag_id: [on_dag(Action.EDIT, dag_id)],
    "logs": lambda dag_id: [on_part(Action.READ, Part.LOG, dag_id)],
    "xcoms": lambda dag_id: [on_part(Action.READ, Part.XCOM, dag_id)],
    "code": lambda dag_id: [on_part(Action.READ, Part.CODE, dag_id)],
}
ACTS = tuple(field.name for field in fields(Role) if field.name in GRANTED)

BACKUPS = in_group(AccessGroup.BACKUPS)
RECORDS = in_group(AccessGroup.RECORDS)
AUDITS = in_group(AccessGroup.AUDITS)
PEOPLE = in_group(AccessGroup.PEOPLE)
# The people who operate Airflow have no access: anyone may be suspected of an incident.
INCIDENTS = in_group(AccessGroup.INCIDENTS)
# Whoever sees findings may enter comments and decisions, if roles.yaml lists the person.
FINDINGS = in_group(AccessGroup.FINDINGS)
# Employees request information, and supervisors decide, so people of all departments use them.
USE = in_group(AccessGroup.USE)
SCHEDULED = BACKUPS | RECORDS | AUDITS | PEOPLE
ALL = SCHEDULED | INCIDENTS | FINDINGS | USE

ROLES: tuple[Role, ...] = (
    Role(
        "Data Engineer",
        "runs the scheduled workflows: pauses, triggers, clears, reads logs; answers nothing",
        reads=SCHEDULED | FINDINGS | USE,
        triggers=SCHEDULED | FINDINGS,
        clears=SCHEDULED | USE,
        pauses=SCHEDULED | USE,
        logs=SCHEDULED | USE,
        xcoms=SCHEDULED,
        code=SCHEDULED,
        pages=frozenset({Page.OVERVIEW, Page.EVIDENCE, Page.FINDINGS, Page.RESTORE_POINTS}),
        views=OPERATION | ASSETS,
    ),
    Role(
        "Compliance Officer",
        "reads everything that was sealed, approves deletions, grades and reports incidents",
        reads=ALL,
        triggers=INCIDENTS | FINDINGS,
        answers=INCIDENTS | USE | {"enforce_retention"},
        pages=frozenset(Page),
        views=USE_OF_ALL,
    ),
    Role(
        "Information Management Reviewer",
        "reviews batches of collected records; reads on their quality, use and deletion",
        reads=RECORDS | FINDINGS | USE,
        triggers=FINDINGS,
        answers=frozenset({"review_intake"}),
        pages=frozenset(Page) - {Page.CLOCKS, Page.RESTORE_POINTS},
        views=USE_OF_ALL,
    ),
    Role(
        "Employee",
        "requests customer information, opens the extract, confirms that copies are deleted",
        reads=USE,
        triggers=USE,
        pages=frozenset({Page.USE}),
    ),
    Role(
        "Supervisor",
        "decides on requests for customer information; sees whose training is due, and findings",
        reads=USE | {"remind_training"},
        answers=USE,
        pages=frozenset({Page.OVERVIEW, Page.EVIDENCE, Page.WAITING, Page.FINDINGS, Page.USE}),
    ),
    Role(
        "On Call",
        "starts and leads incidents: triggers, answers, clears, reads logs; sees restore points",
        reads=INCIDENTS | BACKUPS,
        triggers=INCIDENTS,
        answers=INCIDENTS,
        clears=INCIDENTS,
        logs=INCIDENTS,
        pages=frozenset({Page.EVIDENCE, Page.WAITING, Page.CLOCKS, Page.RESTORE_POINTS}),
    ),
    Role(
        "Management",
        "reads everything that was sealed; decides whether affected people are notified of "
        "an incident",
        reads=ALL,
        triggers=FINDINGS | {"update_incident"},
        answers=INCIDENTS,
        pages=frozenset(Page) - {Page.HOLDS, Page.RESTORE_POINTS},
        views=USE_OF_ALL,
    ),
    Role(
        "Auditor",
        "reads everything that was sealed, who did what in Airflow, and the code; changes nothing",
        reads=ALL,
        code=ALL,
        pages=frozenset(Page) - {Page.WAITING},
        views=EVENTS | ASSETS | USE_OF_ALL,
    ),
    Role(
        "Audit Seed",
        "enters the random seed of an audit sample; an additional role of the auditor",
        reads=frozenset({"sample_audit"}),
        answers=frozenset({"sample_audit"}),
        pages=frozenset({Page.EVIDENCE, Page.WAITING}),
    ),
)

DEPARTMENT = "Department Reader: "  # prefix; the id in roles.yaml follows


def department_roles(pack: PolicyPack) -> tuple[Role, ...]:
    """Return a reader role in Airflow for each role of the policy pack that owns controls.

    A reader role may only read the workflows that prove these controls, and the evidence of these
    workflows.
    """
    return tuple(
        Role(
            f"{DEPARTMENT}{department}",
            f"reads the evidence of the controls that {role.title['en']} owns",
            reads=frozenset(
                control.workflow for control in pack.controls if control.owner == department
            ),
            pages=frozenset({Page.EVIDENCE}),
        )
        for department, role in pack.roles.items()
        if any(control.owner == department for control in pack.controls)
    )


def all_roles(pack: PolicyPack) -> tuple[Role, ...]:
    """Return ParcelSeal's fixed roles, followed by the reader roles of the policy pack."""
    return ROLES + department_roles(pack)


def table(roles: Iterable[Role]) -> Mapping[str, Role]:
    """Return the roles as a mapping: name of a role in Airflow -> role."""
    return {role.name: role for role in roles}
