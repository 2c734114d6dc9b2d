"""Define the delivery statuses of a message that was passed to a mail server or chat service."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class DeliveryStatus(StrEnum):
    """The delivery status of a message that was passed to a server.

    ``accepted``: the server accepted responsibility for the message. ``refused``: the server
    refused the message permanently for this recipient. ``deferred``: the server did not accept the
    message, and a later attempt may succeed. ``in_doubt``: the server may have accepted the
    message, but did not confirm it. ``unavailable``: the server could not be used, so the message
    was not sent.
    """

    ACCEPTED = "accepted"
    REFUSED = "refused"
    DEFERRED = "deferred"
    IN_DOUBT = "in_doubt"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True)
class Reply:
    """The reply of a mail server or chat service to a message.

    Attributes:
        status: delivery status of the message.
        code: reply code of the server, followed by the enhanced status code if a mail server sent
            one, such as ``451 4.7.1``; empty if the server did not reply.
    """

    status: DeliveryStatus
    code: str = ""

    @property
    def too_large(self) -> bool:
        """Return whether the message was refused because of its size.

        RFC 5321, 4.5.3.1.9 and RFC 3463, 3.4 define the reply codes for this case.
        """
        enhanced_code, _space, detail_code = self.code.partition(" ")
        sized = detail_code in ("5.2.3", "5.3.4") or (enhanced_code == "552" and not detail_code)
        return self.status is DeliveryStatus.REFUSED and sized
