"""What one recipient is to be told, once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Literal

from include.messages import Message

ChannelKind = Literal["mail", "robot"]


@dataclass(frozen=True)
class Notice:
    """One line of a message. The same kind and key again is the same notice, and is told once.

    Attributes:
        kind: what it is about, ``training.reminder``; names the workflow that can say whether it is
            still wanted when it is sent.
        key: what makes it the same one within its kind; no customer's value.
        recipient: staff number, ``role:compliance``, ``partner:3``, ``subject:courier/123`` (a
            customer: database and primary key). Everything for one recipient goes into one
            message a day.
        heading: part of the message under which it stands.
        line: what it says; no customer's value.
        name: for the greeting; may be empty.
        address: mail address, or id of the robot's Airflow connection. One that cannot be used
            is reported, and tried again once the same notice is queued with another.
        channel: by which it goes.
        urgent: sent at once, at any hour, beside the digest of the day.
        due_on: by which lines are sorted; None stands last.
        text: digest of a text that was kept with `outbox.keep_text`: this notice is a letter with
            those words, and of its heading and line only lists speak. By mail alone.
        looked_up: no address stands here, and none in the state database: the workflow of the
            kind says it when the letter is sent (`Office.addresses`). For letters alone.

    Raises:
        ValueError: a letter would go by another channel, or an address or a name would be kept
            of somebody whose address is looked up.
    """

    kind: str
    key: str
    recipient: str
    heading: Message
    line: Message
    name: str = ""
    address: str = ""
    channel: ChannelKind = "mail"
    urgent: bool = False
    due_on: date | None = None
    text: str = ""
    looked_up: bool = False

    def __post_init__(self) -> None:
        """Refuse what must never stand in the state database."""
        if self.text and self.channel != "mail":
            raise ValueError("a letter goes by mail")
        if self.looked_up and (not self.text or self.address or self.name):
            raise ValueError("only a letter is looked up, and then it has no address and no name")
