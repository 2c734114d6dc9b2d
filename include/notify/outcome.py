"""What a delivery came to, in figures."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from include.notify.claims import Unsent


@dataclass
class Delivery:
    """What a delivery came to.

    Attributes:
        sent: messages that a server answers for.
        notices: notices in them.
        deferred: notices that are due and not sent: a server put them off, could not be reached,
            or nobody could say whether they are still wanted.
        in_hand: messages that another process is sending, or was when it was killed.
        in_hand_until: when those of a killed one can be taken by others.
        undeliverable: notices that cannot be sent.
        in_doubt: notices that may have arrived and are not sent again.
        withdrawn: notices that nobody wants any more.
        waiting: notices whose time has not come: quiet hours, no workday, a digest was sent today.
        recipients: of undeliverable and in doubt ones, with the cause.
        down: channels whose server could not be used, with the codes of its answer.
        unsure: kinds of which nobody could say whether they are still wanted, with the kind of
            error.
    """

    sent: int = 0
    notices: int = 0
    deferred: int = 0
    undeliverable: int = 0
    in_doubt: int = 0
    withdrawn: int = 0
    waiting: int = 0
    in_hand: int = 0
    in_hand_until: datetime | None = None
    recipients: list[Unsent] = field(default_factory=list)
    down: dict[str, str] = field(default_factory=dict)
    unsure: dict[str, str] = field(default_factory=dict)

    def failed(self, unsent: list[Unsent]) -> None:
        """Count notices that cannot be sent."""
        self.undeliverable += len(unsent)
        self.recipients += unsent

    def doubted(self, unsent: list[Unsent]) -> None:
        """Count notices that may have arrived."""
        self.in_doubt += len(unsent)
        self.recipients += unsent

    def held(self, messages: int, until: datetime | None) -> None:
        """Count messages that another process is sending."""
        self.in_hand += messages
        if until and (self.in_hand_until is None or until > self.in_hand_until):
            self.in_hand_until = until
