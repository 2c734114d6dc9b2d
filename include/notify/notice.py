"""A notice: its recipient, usable address, kind and state; and notices for a role.

The rules of addresses are stricter than RFC 5322: an address that no company's mail system hands
out is a slip of the pen, or an attack.
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
NOT_WRITTEN = "not_written"  # stands for the codes: no mail could be made of it
TOO_LARGE = "too_large"
GAVE_UP = "gave_up"
IN_DOUBT = "in_doubt"
NOT_WANTED = "not_wanted"
OPTED_OUT = "opted_out"

_CAUSES = {
    NO_ADDRESS: _("no address is known"),
    MALFORMED: _("what is known is no mail address"),
    FORBIDDEN: _("mail may not leave for that domain (notices.yaml)"),
    NO_ROBOT: _("there is no such connection of a robot"),
    TOO_LARGE: _("the server takes no message of that size"),
    GAVE_UP: _("the server put it off for too long"),
    IN_DOUBT: _("nobody knows whether it arrived"),
    NOT_WANTED: _("it was done before it was sent"),
    OPTED_OUT: _("the recipient does not want it"),
}


def explained(cause: str) -> Message:
    """Return a cause for people; a cause of a workflow's own is shown unchanged."""
    word, _space, code = cause.partition(" ")
    if word == REFUSED:
        return _("the server refused it: {code}", code=code or "-")
    return _CAUSES.get(word) or Message(text="{cause}", values={"cause": cause})


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
        """Refuse a notice that must not be stored in the state database."""
        if self.text and self.channel != "mail":
            raise ValueError("a letter goes by mail")
        if self.looked_up and (not self.text or self.address or self.name):
            raise ValueError("only a letter is looked up, and then it has no address and no name")


# Letters of any script: whether a server takes those is known when it is asked (SMTPUTF8).
_ATOM = r"[\w!#$%&'*+/=?^`{|}~-]+"
_LOCAL = re.compile(rf"{_ATOM}(\.{_ATOM})*")
_LABEL = r"[^\W_]([\w-]*[^\W_])?"
_DOMAIN = re.compile(rf"({_LABEL}\.)+{_LABEL}")
_CONNECTION = re.compile(r"[A-Za-z0-9_.-]+")
LONGEST, LONGEST_LOCAL, LONGEST_LABEL = 254, 64, 63


def fault(channel: ChannelKind, address: str, domains: Sequence[str] = ()) -> str:
    """Say why nothing can be sent to an address; empty when it can.

    Args:
        channel: by which it would go.
        address: as it was given.
        domains: to which mail may go, with their subdomains; empty means any.

    Returns:
        One of the causes of `include.notify.notice`.
    """
    if not address.strip():
        return NO_ADDRESS
    if channel == "robot":
        return "" if _CONNECTION.fullmatch(address) else MALFORMED
    local, _at, domain = address.rpartition("@")
    well_formed = (
        len(address.encode()) <= LONGEST
        and len(local.encode()) <= LONGEST_LOCAL
        and _LOCAL.fullmatch(local)
        and _DOMAIN.fullmatch(domain)
        and all(len(label) <= LONGEST_LABEL for label in domain.split("."))
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
) -> Iterator[Notice]:
    """Yield the same notice for every address of a role, each a separate recipient.

    A role without address and robot has one that cannot be delivered: that is reported, so that
    nobody takes it for told.

    Args:
        role: of roles.yaml.
        kind: of the notice.
        key: what makes it the same one; the second address adds ``#1`` to it, the robot
            ``#robot``.
        heading: part of the message under which it stands.
        line: what it says.
        due_on: day by which it is due.
        urgent: whether it is sent at once.
    """
    recipient = f"role:{role.id}"
    for place, address in enumerate(role.mail or (() if role.robot else ("",))):
        yield Notice(
            kind=kind,
            key=f"{key}#{place}" if place else key,
            recipient=f"{recipient}:{place + 1}" if place else recipient,
            heading=heading,
            line=line,
            address=address,
            due_on=due_on,
            urgent=urgent,
        )
    if role.robot:
        yield Notice(
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
