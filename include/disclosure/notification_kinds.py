"""The kinds of notifications about the use of customer information."""

from __future__ import annotations

APPROVAL = "use.approval"  # to the approvers of a request
DELIVERED = "use.delivered"  # to the requester, with the password
ENDING = "use.ending"  # to the requester, before the access ends
CONFIRM = "use.confirm"  # to the requester, after the access ended
