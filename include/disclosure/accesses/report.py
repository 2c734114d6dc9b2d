"""The parts of the report of `expire_grants` about accesses and their approvals.

People appear by staff number. The report draws no conclusion about a person: PIPL (2021-11-01),
article 24, restricts decisions that are based on automated evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from include.disclosure.accesses.compare import PeerGroup
from include.disclosure.accesses.register import ClosingReason, DepartmentCount, KindCount
from include.disclosure.accesses.rules import (
    NOT_LIVE,
    OUTSIDE_PURPOSE,
    WITHOUT_APPROVAL,
    ViolationKind,
)
from include.disclosure.accesses.step import AccessComparison
from include.messages import Message, _
from include.reports.model import (
    Bar,
    BarChart,
    Block,
    Cell,
    Fact,
    Paragraph,
    Section,
    Table,
    Target,
    must_be_zero,
    table_of,
    text_table,
)
from include.workflow.run_context import RunContext

MOST_BARS = 30
FEWEST_PEERS = 3  # people of a department; with fewer, the median says nothing about peers
_NO_DEPARTMENT = _("not stated")
KIND_TITLES: dict[ViolationKind, Message] = {
    ViolationKind.WITHOUT_APPROVAL: _("No approval of the employee"),
    ViolationKind.BY_REQUESTER: _("Approved by the requester"),
    ViolationKind.OUTSIDE_PERIOD: _("Outside the period of the approval"),
    ViolationKind.OUTSIDE_PURPOSE: _("Other purpose than the approval"),
    ViolationKind.OUTSIDE_FIELDS: _("Fields that the approval does not name"),
    ViolationKind.OUTSIDE_RECORDS: _("Records that the approval does not name"),
}
_REASONS: dict[ClosingReason, Message] = {
    ClosingReason.COVERED: _("An approval covers the access now"),
    ClosingReason.ACCESS_DELETED: _("The log no longer has the access"),
    ClosingReason.NOT_COMPARED: _("The rules exclude the access from the comparison"),
    ClosingReason.HANDLED: _("A person decided about the violation"),
}


def access_facts(comparison: AccessComparison | None) -> list[Fact]:
    """Return the key figures of the comparison.

    Args:
        comparison: result of the step; None if the step left no result.
    """
    result = comparison or AccessComparison(mapped=False)
    note = None if result.mapped else _("no access log is mapped")
    figures = [
        (_("Accesses without a valid approval"), result.without_live_approval),
        (_("Accesses for another purpose"), result.count(ViolationKind.OUTSIDE_PURPOSE)),
    ]
    return [
        *(
            Fact(label=label, value=value, status=must_be_zero(value), note=note)
            for label, value in figures
        ),
        Fact(label=_("Approvals that were never used"), value=result.never_used, note=note),
    ]


def known_failures(comparison: AccessComparison | None) -> frozenset[str]:
    """Return the indicators that miss their targets only because of violations of earlier reports.

    Args:
        comparison: result of the step; None if the step left no result.
    """
    if comparison is None or not comparison.kinds:
        return frozenset()
    unreported = {count.kind for count in comparison.kinds if count.reported < count.open}
    causes = {
        WITHOUT_APPROVAL: set(NOT_LIVE),
        OUTSIDE_PURPOSE: {ViolationKind.OUTSIDE_PURPOSE},
    }
    return frozenset(name for name, kinds in causes.items() if not kinds & unreported)


def access_sections(comparison: AccessComparison | None) -> list[Section]:
    """Return the sections about the comparison.

    Args:
        comparison: result of the step; None if the step left no result.
    """
    heading = _("Accesses and approvals")
    if comparison is None:
        text = _("The accesses could not be compared with the approvals.")
        return [Section(heading=heading, blocks=[Paragraph(text=text)])]
    if not comparison.mapped:
        text = _(
            "The policy pack maps no access log. Therefore this run did not compare accesses to "
            "customer records with approvals."
        )
        return [Section(heading=heading, blocks=[Paragraph(text=text)])]
    if not comparison.kinds:
        text = _("More accesses differ from their approvals than the register can contain.")
        return [Section(heading=heading, blocks=[Paragraph(text=text)])]
    blocks: list[Block] = [Paragraph(text=_scope(comparison))]
    if without := _not_compared(comparison):
        blocks.append(Paragraph(text=without))
    blocks.append(_kinds_table(comparison))
    if comparison.departments:
        blocks.append(_departments_table(comparison.departments))
    if comparison.closed:
        blocks.append(_closed_table(comparison))
    sections = [Section(heading=heading, blocks=blocks)]
    if comparison.peers:
        sections.append(_peers_section(comparison))
    return sections


def stored_files(run: RunContext[Any], comparison: AccessComparison | None) -> dict[str, str]:
    """Return the files that the step wrote into the folder of the bundle: name -> SHA-256."""
    if comparison is None or not comparison.stored:
        return {}
    digest = run.unsealed_folder.sha256(comparison.file)
    return {} if digest is None else {comparison.file: digest}


def _scope(comparison: AccessComparison) -> Message:
    if comparison.full:
        return _(
            "This run compared all {count} accesses of the log with the approvals. The table shows "
            "the open violations. Keys of accesses are in a file of the evidence bundle.",
            count=comparison.accesses or 0,
        )
    return _(
        "This run compared {count} accesses since {since} with the approvals. The last comparison "
        "of the whole log, on {full_at}, covered {all} accesses. The table shows the open "
        "violations of all comparisons.",
        count=comparison.accesses or 0,
        since=comparison.since,
        full_at=comparison.full_at,
        all=comparison.accesses_at_full or 0,
    )


def _not_compared(comparison: AccessComparison) -> Message | None:
    """Return a text about values that the log does not record; None if it records all."""
    if not comparison.compares_purposes and not comparison.compares_fields:
        return _("The log records neither purposes nor fields, so they were not compared.")
    if not comparison.compares_purposes:
        return _("The log does not record purposes, so they were not compared.")
    if not comparison.compares_fields:
        return _("The log does not record fields, so they were not compared.")
    if comparison.fields_unknown:
        return _(
            "For {count} accesses, the log does not record the fields, so their fields were not "
            "compared.",
            count=comparison.fields_unknown,
        )
    return None


def _kinds_table(comparison: AccessComparison) -> Table:
    return table_of(
        _("Accesses that differ from their approval, by kind"),
        comparison.kinds,
        [
            (_("Difference"), "text", lambda count: KIND_TITLES[count.kind]),
            (_("Open violations"), "number", lambda count: comparison.count(count.kind)),
            (_("New in this run"), "number", lambda count: _new(comparison, count)),
        ],
    )


def _new(comparison: AccessComparison, count: KindCount) -> int | None:
    return None if comparison.count(count.kind) is None else count.new


def _departments_table(departments: Sequence[DepartmentCount]) -> Table:
    shown = [kind for kind in ViolationKind if any(each.kinds.get(kind) for each in departments)]
    return table_of(
        _("Accesses that differ from their approval, by department"),
        departments,
        [
            (_("Department"), "text", lambda each: each.department or _NO_DEPARTMENT),
            (_("Accesses"), "number", lambda each: each.accesses),
            *((KIND_TITLES[kind], "number", _count_of(kind)) for kind in shown),
        ],
    )


def _count_of(kind: ViolationKind) -> Callable[[DepartmentCount], Cell]:
    return lambda each: each.kinds.get(kind, 0)


def _closed_table(comparison: AccessComparison) -> Table:
    return text_table(
        _("Violations that were closed in the last 30 days"),
        [_("Reason for closing"), _("Violations")],
        [[_REASONS[reason], count] for reason, count in sorted(comparison.closed.items())],
    )


def _peers_section(comparison: AccessComparison) -> Section:
    groups = [group for group in comparison.peers if group.people >= FEWEST_PEERS]
    blocks: list[Block] = [
        Paragraph(
            text=_(
                "For each department, this section shows the employee with the most accesses in "
                "the {days} days before {at}, and the median of the colleagues. Tasks differ, so a "
                "large number is no violation. It decides nothing about the employee (Personal "
                "Information Protection Law (2021-11-01), article 24); it only shows where to ask.",
                days=comparison.peer_days,
                at=comparison.full_at,
            )
        )
    ]
    if groups:
        blocks.append(_peers_chart(groups[:MOST_BARS]))
    if len(groups) > MOST_BARS:
        text = _("The picture shows the first {count} departments by name.", count=MOST_BARS)
        blocks.append(Paragraph(text=text))
    blocks.append(_peers_table(comparison.peers))
    return Section(heading=_("Number of accesses per employee"), blocks=blocks)


def _peers_chart(groups: Sequence[PeerGroup]) -> BarChart:
    return BarChart(
        caption=_("Most accesses of one employee, as a multiple of the department's median"),
        category=_("Department and staff number"),
        bars=[
            Bar(
                label=_(
                    "{department}, {person}",
                    department=group.department or _NO_DEPARTMENT,
                    person=group.person,
                ),
                value=round(group.most / group.median, 2),
            )
            for group in groups
        ],
        target=Target(value=1, label=_("Median of the department")),
    )


def _peers_table(groups: Sequence[PeerGroup]) -> Table:
    return table_of(
        _("Accesses of employees, by department"),
        groups,
        [
            (_("Department"), "text", lambda group: group.department or _NO_DEPARTMENT),
            (_("Employees with accesses"), "number", lambda group: group.people),
            (_("Median per employee"), "number", lambda group: group.median),
            (_("Most of one employee"), "number", lambda group: group.most),
            (_("Staff number"), "code", lambda group: group.person),
        ],
    )
