"""Text that shows the measured figure and the target of a control.

The policy pack names the indicator of a control, such as ``erasure_requests_overdue``, and its
target, such as ``= 0``. Reports and pages show both as text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from include.messages import Message, _, verbatim

NOT_MEASURED = _("not measured")
_COMPARISON = re.compile(r"(?P<sign><=|>=|=|<|>) ?(?P<figure>.+)")
_REQUIREMENTS: Mapping[str, Callable[[str], Message]] = {
    "=": lambda figure: _("exactly {figure}", figure=figure),
    "<=": lambda figure: _("at most {figure}", figure=figure),
    ">=": lambda figure: _("at least {figure}", figure=figure),
    "<": lambda figure: _("less than {figure}", figure=figure),
    ">": lambda figure: _("more than {figure}", figure=figure),
}
_FIGURES: Mapping[str, Callable[[Message], Message]] = {
    "databases_without_restore_point": lambda figure: _(
        "databases without a backup from the day of the run: {figure}", figure=figure
    ),
    "databases_backed_up_at_primary_site": lambda figure: _(
        "databases whose backups are at the same site as the database: {figure}", figure=figure
    ),
    "databases_without_passed_drill": lambda figure: _(
        "databases without a passed restore drill: {figure}", figure=figure
    ),
    "expectations_not_met": lambda figure: _(
        "quality expectations that the records do not meet: {figure}", figure=figure
    ),
    "values_outside_purposes": lambda figure: _(
        "personal data values that no processing purpose requires: {figure}", figure=figure
    ),
    "undeclared_tables_and_columns": lambda figure: _(
        "tables and columns that are missing from the data map: {figure}", figure=figure
    ),
    "intake_batches_past_deadline": lambda figure: _(
        "incoming batches past their review deadline: {figure}", figure=figure
    ),
    "formal_records_without_independent_review": lambda figure: _(
        "formal records that were not reviewed independently: {figure}", figure=figure
    ),
    "expired_records_unexplained": lambda figure: _(
        "expired records that remain without a stated reason: {figure}", figure=figure
    ),
    "erasure_requests_overdue": lambda figure: _(
        "overdue erasure requests: {figure}", figure=figure
    ),
    "populations_without_sample": lambda figure: _(
        "audit populations without a sample: {figure}", figure=figure
    ),
    "populations_above_tolerable_rate": lambda figure: _(
        "audit populations above the tolerable deviation rate: {figure}", figure=figure
    ),
    "workpapers_overdue": lambda figure: _(
        "audit workpapers that were not returned by their due date: {figure}", figure=figure
    ),
    "audit_findings_overdue": lambda figure: _("overdue audit findings: {figure}", figure=figure),
    "training_coverage": lambda figure: _(
        "share of people with valid training: {figure}", figure=figure
    ),
    "people_with_access_untrained": lambda figure: _(
        "people who should not have access to customer records: {figure}", figure=figure
    ),
    "people_overdue_beyond_ladder": lambda figure: _(
        "people whose training is still overdue after the last reminder: {figure}", figure=figure
    ),
    "partners_live_unbound": lambda figure: _(
        "partners with access to customer data but without a valid agreement: {figure}",
        figure=figure,
    ),
    "partners_live_unreviewed": lambda figure: _(
        "partners with access to customer data but without a valid security review: {figure}",
        figure=figure,
    ),
    "incident.clocks_ran_out": lambda figure: _(
        "missed time limits of incidents: {figure}", figure=figure
    ),
    "incident.reports_late": lambda figure: _(
        "incident reports that were handed in late at the supervisory authority: {figure}",
        figure=figure,
    ),
    "incident.people_told_late": lambda figure: _(
        "late notifications of people affected by incidents: {figure}", figure=figure
    ),
}


def figure_message(indicator: str, target: str, value: float | None) -> Message:
    """Return the measured figure of a control as text, for example "overdue workpapers: 3".

    Args:
        indicator: name of the metric. If ParcelSeal has no text for this metric, because a policy
            pack defines it, only the number is returned.
        target: target of the control, such as ``>= 95%``. If the target is a percentage, `value` is
            shown as a percentage too.
        value: the measured value, as a ratio from 0 to 1 if the target is a percentage; None if it
            was not measured.
    """
    if value is None:
        return NOT_MEASURED
    kind = ":percent" if target.endswith("%") else ""
    figure = Message(text=f"{{figure{kind}}}", values={"figure": value})
    if indicator not in _FIGURES:
        return figure
    return _FIGURES[indicator](figure)


def requirement_message(target: str) -> Message:
    """Return the target of a control as text: ``>= 95%`` becomes "at least 95%"."""
    comparison = _COMPARISON.fullmatch(target)
    if comparison is None:
        return verbatim(target)
    return _REQUIREMENTS[comparison["sign"]](comparison["figure"])
