"""The fate of a message that was handed to another company's server."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Fate(StrEnum):
    """The fate of a message.

    ``accepted``: the server is responsible for it now. ``refused``: the server never accepts it for
    this recipient. ``deferred``: not now, try again. ``in_doubt``: the server may have accepted it.
    ``unavailable``: the server could not be used; nothing was sent.
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

    @property
    def too_large(self) -> bool:
        """Return whether its size was the reason (RFC 5321, 4.5.3.1.9; RFC 3463, 3.4)."""
        status, _space, detail = self.code.partition(" ")
        sized = detail in ("5.2.3", "5.3.4") or (status == "552" and not detail)
        return self.fate is Fate.REFUSED and sized
