"""Who may do what: the table of roles. What it does not give, nobody has; docs/roles.md shows it.

The roles of departments are not typed but follow from the policy pack: see `department_roles`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from include.orchestration.access.permissions import (
    Action,
    Page,
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

# Everybody: the parts that belong to seeing a DAG (of those that one may see), the navigation with
# the compliance pages in it (which are a plugin's), and one's own password. FAB itself gives every
# role the right to read "Website".
EVERYBODY = frozenset(
    {
        *to_read(Part.RUN, Part.TASK, Part.ANSWER),
        *to_read("DAG Versions", "DAG Warnings", "DAG Dependencies", "Website", "Plugins"),
        *to_read("My Profile", "My Password"),
        Permission(Action.EDIT, "My Password"),
        *menus("DAGs", Part.ANSWER, "Browse"),
    }
)
# Whether Airflow itself is well. No connections, variables or settings: production keeps them
# outside Airflow, and whoever may point a connection elsewhere gets its password sent there.
OPERATION = frozenset(
    {
        *to_read("ImportError", "Jobs", "Pools", "Cluster Activity", "Providers"),
        *menus("Jobs", "Cluster Activity", "Pools", "Providers"),
    }
)
# Who triggered, paused, cleared and answered what, of the DAGs that one may read.
EVENTS = frozenset({*to_read("Audit Logs"), *menus("Audit Logs")})
# What workflows produce. Events are shown only of workflows that one may read.
ASSETS = frozenset({*to_read("Assets", "Asset Aliases"), *menus("Assets")})


@dataclass(frozen=True)
class Role:
    """One role.

    Attributes:
        name: in Airflow.
        duty: one line for people.
        reads: DAGs whose runs, questions and sealed bundles they may read.
        triggers: DAGs that they may start.
        answers: DAGs whose human steps they may answer, where the step asks them.
        clears: DAGs whose tasks they may clear or set to a state.
        pauses: DAGs that they may pause.
        logs: DAGs whose task logs they may read.
        xcoms: DAGs whose XCom they may read.
        code: DAGs whose code they may read.
        pages: compliance pages that they may open.
        views: what else of Airflow.
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
        """Whoever may do something with a DAG may read it; Airflow would refuse it otherwise."""
        for one in ACTS:
            if unread := self.dags(one) - self.reads:
                raise ValueError(f"{self.name}: {one} without reading {', '.join(sorted(unread))}")

    def dags(self, act: str) -> Dags:
        """Return the DAGs of an attribute that has such."""
        found: Dags = getattr(self, act)
        return found

    @property
    def permissions(self) -> frozenset[Permission]:
        """What FAB has to give it."""
        pages = to_read(*self.pages)
        return EVERYBODY | self.views | frozenset(pages) | frozenset(self._on_dags())

    def _on_dags(self) -> Iterator[Permission]:
        for act, granted in GRANTED.items():
            for dag_id in self.dags(act):
                yield from granted(dag_id)


GRANTED: Mapping[str, Callable[[str], list[Permission]]] = {
    "reads": lambda dag_id: [on_dag(Action.READ, dag_id)],
    "triggers": lambda dag_id: [on_part(Action.CREATE, Part.RUN, dag_id)],
    "answers": lambda dag_id: [on_part(Action.EDIT, Part.ANSWER, dag_id)],
    "clears": lambda dag_id: [on_part(Action.EDIT, one, dag_id) for one in (Part.RUN, Part.TASK)],
    "pauses": lambda dag_id: [on_dag(Action.EDIT, dag_id)],
    "logs": lambda dag_id: [on_part(Action.READ, Part.LOG, dag_id)],
    "xcoms": lambda dag_id: [on_part(Action.READ, Part.XCOM, dag_id)],
    "code": lambda dag_id: [on_part(Action.READ, Part.CODE, dag_id)],
}
ACTS = tuple(one.name for one in fields(Role) if one.name in GRANTED)

BACKUPS = in_group(AccessGroup.BACKUPS)
RECORDS = in_group(AccessGroup.RECORDS)
AUDITS = in_group(AccessGroup.AUDITS)
PEOPLE = in_group(AccessGroup.PEOPLE)
# Anybody may be suspected of an incident, including those who run Airflow.
INCIDENTS = in_group(AccessGroup.INCIDENTS)
SCHEDULED = BACKUPS | RECORDS | AUDITS | PEOPLE
ALL = SCHEDULED | INCIDENTS

ROLES: tuple[Role, ...] = (
    Role(
        "Data Engineer",
        "runs the scheduled workflows: pauses, triggers, clears, reads logs; answers nothing",
        reads=SCHEDULED,
        triggers=SCHEDULED,
        clears=SCHEDULED,
        pauses=SCHEDULED,
        logs=SCHEDULED,
        xcoms=SCHEDULED,
        code=SCHEDULED,
        pages=frozenset({Page.OVERVIEW, Page.EVIDENCE, Page.FINDINGS, Page.RESTORE_POINTS}),
        views=OPERATION | ASSETS,
    ),
    Role(
        "Compliance Officer",
        "reads everything that was sealed, approves deletions, grades and reports incidents",
        reads=ALL,
        triggers=INCIDENTS,
        answers=INCIDENTS | {"enforce_retention"},
        pages=frozenset(Page),
    ),
    Role(
        "Information Management Reviewer",
        "reviews batches of collected records; reads on their quality and their deletion",
        reads=RECORDS,
        answers=frozenset({"review_intake"}),
        pages=frozenset({Page.OVERVIEW, Page.EVIDENCE, Page.WAITING, Page.HOLDS, Page.FINDINGS}),
    ),
    Role(
        "Supervisor",
        "sees whose training is due, and the findings; answers nothing",
        reads=frozenset({"remind_training"}),
        pages=frozenset({Page.OVERVIEW, Page.EVIDENCE, Page.FINDINGS}),
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
        "reads everything that was sealed; decides whether people are told of an incident",
        reads=ALL,
        triggers=frozenset({"update_incident"}),
        answers=INCIDENTS,
        pages=frozenset({Page.OVERVIEW, Page.EVIDENCE, Page.WAITING, Page.CLOCKS, Page.FINDINGS}),
    ),
    Role(
        "Auditor",
        "reads everything that was sealed, who did what in Airflow, and the code; changes nothing",
        reads=ALL,
        code=ALL,
        pages=frozenset(Page) - {Page.WAITING},
        views=EVENTS | ASSETS,
    ),
    Role(
        "Audit Seed",
        "enters the seed of an audit's samples: a second role of whoever draws it",
        reads=frozenset({"sample_audit"}),
        answers=frozenset({"sample_audit"}),
        pages=frozenset({Page.EVIDENCE, Page.WAITING}),
    ),
)

DEPARTMENT = "Department Reader: "  # and its id in roles.yaml


def department_roles(pack: PolicyPack) -> tuple[Role, ...]:
    """Return a reader for each role of the pack that owns controls.

    It reads the workflows that show those controls, and their evidence; nothing else.
    """
    return tuple(
        Role(
            f"{DEPARTMENT}{department}",
            f"reads the evidence of the controls that {role.title['en']} owns",
            reads=frozenset(one.workflow for one in pack.controls if one.owner == department),
            pages=frozenset({Page.EVIDENCE}),
        )
        for department, role in pack.roles.items()
        if any(one.owner == department for one in pack.controls)
    )


def all_roles(pack: PolicyPack) -> tuple[Role, ...]:
    """Return the table with the departments of a pack."""
    return ROLES + department_roles(pack)


def table(roles: Iterable[Role]) -> Mapping[str, Role]:
    """Return roles by their names in Airflow."""
    return {one.name: one for one in roles}
