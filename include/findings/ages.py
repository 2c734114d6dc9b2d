"""The ages of open findings, by owner."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from include.findings.register import Finding

AGES = (timedelta(days=30), timedelta(days=90))
"""Ends of the age groups: up to 30 days, up to 90 days, and older."""


def by_owner_and_age(
    findings: Iterable[Finding], moment: datetime
) -> dict[str, tuple[int, int, int]]:
    """Return the numbers of findings in each age group, by owner, the most findings first.

    Args:
        findings: the findings.
        moment: moment at which the age is counted.
    """
    counts: dict[str, list[int]] = {}
    for finding in findings:
        group = sum(moment - finding.opened_at > limit for limit in AGES)
        counts.setdefault(finding.owner, [0, 0, 0])[group] += 1
    ordered = sorted(counts.items(), key=lambda item: (-sum(item[1]), item[0]))
    return {owner: (groups[0], groups[1], groups[2]) for owner, groups in ordered}
