"""Incidents that another workflow reacts to: neither workflow imports the other."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from include.messages import Message


@dataclass(frozen=True)
class PartnerIncident:
    """An incident at a partner.

    Attributes:
        partner: number of the partner.
        incident: number of the incident.
        because: what happened, in plain words.
        by: who opened the incident.
        at: when it was opened.
    """

    partner: str
    incident: str
    because: str
    by: str
    at: datetime


@dataclass(frozen=True)
class PartnerReaction:
    """What a workflow did about an incident at a partner.

    Attributes:
        review: number of the security review that was opened again; None if none was.
        words: for the timeline of the incident.
    """

    review: int | None
    words: Message
