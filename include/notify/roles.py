"""Notices for a role: to every address that roles.yaml has for it, and to its robot."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

from include.messages import Message
from include.notify.notice import Notice
from include.policy.rules import Role


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
    """The same notice to every address of a role, each a recipient of its own.

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
