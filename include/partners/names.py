"""Names that the parts of `review_partners` share."""

from __future__ import annotations

CLAUSE_REVIEW, CLAUSE_BOUND = "4.3", "4.4"
STEP_CHECK = "check"

REMINDER = "partners.reminder"  # kinds of notices: to the company, to the partner itself
CONTACT = "partners.contact"

UNBOUND = "partners_live_unbound"  # figures of the controls
UNREVIEWED = "partners_live_unreviewed"
