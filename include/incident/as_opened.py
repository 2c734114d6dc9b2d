"""The rules that an incident is measured by: as they were when it was opened, whatever came since.

What counts is kept: its clocks, the grades with their figures, which authorities are told of what,
its type. How a thing is done is today's: the people, the checklist, a hotline whose number changed.
"""

from __future__ import annotations

from include.incident.rules import Authority, ClockRule, Grade, IncidentRules, IncidentType
from include.policy.rules import Rule


class Kept(Rule):
    """What is kept of incident.yaml beside the clocks.

    Attributes:
        type: of the incident.
        grades: least first.
        authorities: whom incidents are reported to.
    """

    type: IncidentType
    grades: tuple[Grade, ...]
    authorities: tuple[Authority, ...] = ()


def kept_of(rules: IncidentRules, type_id: str) -> Kept:
    """What is kept for an incident that is opened now.

    Args:
        rules: incident.yaml.
        type_id: of the incident.
    """
    return Kept(type=rules.type(type_id), grades=rules.grades, authorities=rules.authorities)


def as_opened(
    today: IncidentRules, kept: Kept | None, clocks: tuple[ClockRule, ...]
) -> IncidentRules:
    """The rules of an incident.

    Args:
        today: incident.yaml.
        kept: when it was opened; None of incidents that are older than the keeping.
        clocks: as they were then.
    """
    if kept is None:
        return today.model_copy(update={"clocks": clocks})
    types = [one for one in today.types if one.id == kept.type.id] or [kept.type]
    now = {one.id: one for one in today.authorities}
    authorities = [
        one.model_copy(update={"how": now[one.id].how}) if one.id in now else one
        for one in kept.authorities
    ]
    return today.model_copy(
        update={
            "types": tuple(types),
            "grades": kept.grades,
            "authorities": tuple(authorities),
            "clocks": clocks,
        }
    )
