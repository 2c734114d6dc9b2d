"""What became of a message that was handed to somebody else's server."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Fate(StrEnum):
    """What became of one message.

    ``accepted``: the server answers for it now. ``refused``: it will not take it for this
    recipient, today or tomorrow. ``deferred``: not now, ask again. ``in_doubt``: it may have been
    taken, nobody knows. ``unavailable``: the server could not be used; nothing was sent.
    """

    ACCEPTED = "accepted"
    REFUSED = "refused"
    DEFERRED = "deferred"
    IN_DOUBT = "in_doubt"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True)
class Reply:
    """A server's answer.

    Attributes:
        code: its codes without words, ``451 4.7.1``; empty where there was no answer.
    """

    fate: Fate
    code: str = ""
