"""The compliance pages, as Airflow's auth manager knows them: one custom view each.

The pages ask for these views, the roles grant them. No import of Airflow is needed here.
"""

from enum import StrEnum


class Page(StrEnum):
    """One compliance page; the value is the resource's name in FAB."""

    OVERVIEW = "Compliance Overview"
    EVIDENCE = "Compliance Evidence"
    WAITING = "Compliance Waiting"
    CLOCKS = "Compliance Clocks"
    HOLDS = "Compliance Holds"
    FINDINGS = "Compliance Findings"
    RESTORE_POINTS = "Compliance Restore Points"
