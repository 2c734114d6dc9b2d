"""The columns in which findings are exported."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from include.exports.model import ExportColumn
from include.findings.register import Finding
from include.messages import Message, _, verbatim
from include.policy import PolicyPack
from plugins.compliance_ui.work_list import source_of, state_of


def finding_columns(pack: PolicyPack, today: date) -> Sequence[ExportColumn[Finding]]:
    """Return the columns in which findings are exported.

    Args:
        pack: policy pack, for the titles of owners and clauses.
        today: current date, which decides whether a finding is overdue.
    """
    return (
        ExportColumn(_("Number"), 13, lambda finding: finding.id),
        ExportColumn(_("Finding"), 38, lambda finding: finding.description),
        ExportColumn(_("Subject"), 24, _subject),
        ExportColumn(_("Clause"), 20, lambda finding: _clause(pack, finding)),
        ExportColumn(_("Source of the finding"), 18, _source),
        ExportColumn(_("Outcome"), 15, lambda finding: finding.severity),
        ExportColumn(_("Owner"), 18, lambda finding: pack.role_message(finding.owner)),
        ExportColumn(_("Entered"), 17, lambda finding: finding.opened_at),
        ExportColumn(_("Due"), 15, lambda finding: finding.due_on),
        ExportColumn(
            _("Overdue"), 13, lambda finding: _("overdue") if finding.overdue(today) else None
        ),
        ExportColumn(_("State"), 20, lambda finding: state_of(finding, today)),
        ExportColumn(_("Cause"), 28, lambda finding: finding.cause or None),
        ExportColumn(_("Corrective action"), 28, lambda finding: finding.action or None),
        ExportColumn(_("Answered by"), 16, lambda finding: finding.answered_by or None),
    )


def _subject(finding: Finding) -> Message:
    """Return the subject of a finding, or the reference of an audit or incident."""
    origin = finding.origin
    if origin is None:
        return verbatim(finding.reference)
    return origin.details.subject_title or verbatim(origin.subject)


def _clause(pack: PolicyPack, finding: Finding) -> Message | None:
    origin = finding.origin
    return pack.clause_message(origin.clause) if origin is not None and origin.clause else None


def _source(finding: Finding) -> Message:
    return source_of(finding) or _("all workflows")
