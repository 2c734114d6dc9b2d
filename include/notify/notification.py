"""The notification to one recipient, and the rules for its address.

The rules for mail addresses are stricter than RFC 5322. They refuse unusual addresses that no mail
system of a company would issue, because such an address is a mistake or an attack.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

from include.messages import Message, _
from include.policy.rules import Role

NO_ADDRESS = "no_address"
MALFORMED = "malformed"
FORBIDDEN = "domain"
NO_ROBOT = "no_robot"
REFUSED = "refused"  # followed by the codes of the answer
NOT_WRITTEN = "not_written"  # in place of the codes: the mail could not be written
TOO_LARGE = "too_large"
GAVE_UP = "gave_up"
IN_DOUBT = "in_doubt"
NO_LONGER_DUE = "not_wanted"
OPTED_OUT = "opted_out"

_CAUSES = {
    NO_ADDRESS: _("no address is registered"),
    MALFORMED: _("the registered address is not a valid e-mail address"),
    FORBIDDEN: _("the policy does not allow mail to this domain"),
    NO_ROBOT: _("the connection of the chat robot does not exist"),
    TOO_LARGE: _("the message is too large for the server"),
    GAVE_UP: _("the mail server deferred the message for too long"),
    IN_DOUBT: _("delivery could not be confirmed"),
    NO_LONGER_DUE: _(
        "the recipient had already done the required action before the message was sent"
    ),
    OPTED_OUT: _("the recipient opted out"),
}


def explain_cause(cause: str) -> Message:
    """Return a text for people that explains why a notification did not arrive.

    Args:
        cause: code of the reason, such as ``gave_up`` or ``refused 550``. A reason in the words of
            a workflow is returned unchanged.
    """
    word, _separator, code = cause.partition(" ")
    if word == REFUSED:
        return _("the server refused the message: {code}", code=code or "-")
    return _CAUSES.get(word) or Message(text="{cause}", values={"cause": cause})


ChannelKind = Literal["mail", "robot"]


@dataclass(frozen=True)
class Notification:
    """A notification to one recipient.

    It is one line of a message. It is sent only once: kind and key identify it.

    Attributes:
        kind: kind of the notification, such as ``training.reminder``. The workflow of the kind
            confirms that the notification is still due.
        key: unique key within the kind, without customer data.
        recipient: id of the recipient: a staff number, ``role:compliance``, ``partner:3``, or for a
            customer ``subject:courier/123`` (database and primary key). All notifications to a
            recipient that are not urgent are combined in a daily message.
        heading: heading above the line.
        line: text of the line, without customer data.
        name: name for the greeting; may be empty.
        address: mail address, or id of the Airflow connection of a chat robot. A notification with
            an unusable address is reported, and can be queued again with another address.
        channel: channel of the message.
        urgent: whether the notification is sent at once, at any hour, apart from the daily message.
        due_on: due date. The lines of a message are sorted by due date; lines without a due date
            come last.
        text: SHA-256 of a text that was stored with `include.notify.texts.store_text`. If it is
            set, the notification is a notice to a data subject with this text, and is sent by mail.
            Heading and line then appear only in lists.
        looked_up: whether the workflow of the kind returns the address when the notice is sent
            (`DeliveryConfig.addresses`). The address is then not stored. This is allowed only for
            notices to data subjects.

    Raises:
        ValueError: a notice to a data subject has another channel than mail. Or the address is
            looked up, and the notification has an address or a name, or is not a notice to a data
            subject.
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
        """Refuse combinations of attributes that must not be stored in the state database.

        Raises:
            ValueError: a notice to a data subject has another channel than mail. Or the address is
                looked up, and the notification has an address or a name, or is not a notice to a
                data subject.
        """
        if self.text and self.channel != "mail":
            raise ValueError("a notice to data subjects can only be sent by mail")
        if self.looked_up and (not self.text or self.address or self.name):
            raise ValueError(
                "an address is looked up only for a notice, which has no address and no name"
            )


# Characters of any script are allowed; the server may refuse them (SMTPUTF8)
_ATOM = r"[\w!#$%&'*+/=?^`{|}~-]+"
_LOCAL = re.compile(rf"{_ATOM}(\.{_ATOM})*")
_LABEL = r"[^\W_]([\w-]*[^\W_])?"
_DOMAIN = re.compile(rf"({_LABEL}\.)+{_LABEL}")
_CONNECTION = re.compile(r"[A-Za-z0-9_.-]+")
MAX_ADDRESS_BYTES, MAX_LOCAL_BYTES, MAX_LABEL_LENGTH = 254, 64, 63


def address_fault(channel: ChannelKind, address: str, domains: Sequence[str] = ()) -> str:
    """Return the code of the reason why an address cannot be used; empty if it can be used.

    Args:
        channel: channel of the message.
        address: mail address, or id of the Airflow connection of a chat robot.
        domains: allowed mail domains. Their subdomains are allowed, too. If the sequence is empty,
            every domain is allowed.
    """
    if not address.strip():
        return NO_ADDRESS
    if channel == "robot":
        return "" if _CONNECTION.fullmatch(address) else MALFORMED
    local, _at, domain = address.rpartition("@")
    well_formed = (
        len(address.encode()) <= MAX_ADDRESS_BYTES
        and len(local.encode()) <= MAX_LOCAL_BYTES
        and _LOCAL.fullmatch(local)
        and _DOMAIN.fullmatch(domain)
        and all(len(label) <= MAX_LABEL_LENGTH for label in domain.split("."))
    )
    if not well_formed:
        return MALFORMED
    name = domain.lower()
    if domains and not any(name == allowed or name.endswith(f".{allowed}") for allowed in domains):
        return FORBIDDEN
    return ""


def to_role(
    role: Role,
    *,
    kind: str,
    key: str,
    heading: Message,
    line: Message,
    due_on: date | None = None,
    urgent: bool = False,
) -> Iterator[Notification]:
    """Yield a notification for every mail address and for the chat robot of a role.

    Each address is a separate recipient. If the role has neither an address nor a robot, a
    notification without an address is yielded. The delivery then reports the missing address.

    Args:
        role: role of roles.yaml.
        kind: kind of the notification.
        key: key of the notification to the first address. ``#1`` is appended for the second
            address, ``#2`` for the third, and ``#robot`` for the robot.
        heading: heading above the line.
        line: text of the line.
        due_on: due date.
        urgent: whether the notification is sent at once.
    """
    recipient = f"role:{role.id}"
    for number, address in enumerate(role.mail or (() if role.robot else ("",))):
        yield Notification(
            kind=kind,
            key=f"{key}#{number}" if number else key,
            recipient=f"{recipient}:{number + 1}" if number else recipient,
            heading=heading,
            line=line,
            address=address,
            due_on=due_on,
            urgent=urgent,
        )
    if role.robot:
        yield Notification(
            kind=kind,
            key=f"{key}#robot",
            recipient=recipient,
            heading=heading,
            line=line,
            address=role.robot,
            channel="robot",
            due_on=due_on,
            urgent=urgent,
        )
