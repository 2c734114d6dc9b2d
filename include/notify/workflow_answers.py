"""Ask workflows, just before a message is sent, whether its notifications are still due.

Workflows also return the addresses for notices to data subjects. If a workflow fails to answer, its
notifications wait. Only the class of its error is stored, because the error text may contain
customer data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection

from include.notify.texts import TextChanged, load_texts

StillDue = Callable[[Sequence[str]], set[str]]
"""Returns which keys of notifications of a kind are still due."""

LookUpAddresses = Callable[[Sequence[str]], Mapping[str, str]]
"""Returns the current address for each key of a kind; a missing or empty address is none.

Addresses are never stored: not in the state database, logs, records or error texts."""

RevealSecrets = Callable[[Sequence[str]], Mapping[str, str]]
"""Returns the secret of each key of a kind, such as a password. Secrets are never stored."""


@dataclass
class WorkflowAnswers:
    """The answers of workflows about notifications that are going to be sent.

    Attributes:
        still_due: ids of the notifications that are still due.
        unavailable_kinds: kinds of notification whose workflow failed to answer.
        addresses: id of the notification -> address, for notifications whose address is looked up.
            The address is empty if the recipient has none.
        texts: SHA-256 of the text of a notice -> text.
        secrets: id of the notification -> secret that is sent with its line.
    """

    still_due: set[int] = field(default_factory=set)
    unavailable_kinds: set[str] = field(default_factory=set)
    addresses: dict[int, str] = field(default_factory=dict, repr=False)
    texts: dict[str, str] = field(default_factory=dict, repr=False)
    secrets: dict[int, str] = field(default_factory=dict, repr=False)


def ask_workflows(
    conn: Connection,
    notifications: Sequence[Any],
    still_due: Mapping[str, StillDue],
    look_up: Mapping[str, LookUpAddresses],
    reveal: Mapping[str, RevealSecrets],
    errors: dict[str, str],
) -> WorkflowAnswers:
    """Ask the workflow of each kind of notification which notifications are still due.

    For notices to data subjects that are still due, the addresses and texts are also loaded.
    Notifications whose recipient opted out are ignored.

    Args:
        conn: connection to the state database.
        notifications: rows with id, kind, key, text, looked_up, and refused (whether the recipient
            opted out).
        still_due: kind of notification -> callback of its workflow. All notifications of a kind
            without a callback are due.
        look_up: kind of notice -> callback that returns the addresses of its recipients.
        reveal: kind of notification -> callback that returns the secrets of its lines.
        errors: dict to which the function adds each kind whose workflow failed -> class of the
            error.
    """
    by_kind: dict[str, list[Any]] = {}
    for notification in notifications:
        if not notification["refused"]:
            by_kind.setdefault(notification["kind"], []).append(notification)
    answers = WorkflowAnswers()
    for kind, rows in by_kind.items():
        try:
            due = _still_due(rows, still_due.get(kind))
            addresses = _addresses(
                [notification for notification in due if notification["looked_up"]],
                look_up.get(kind),
            )
            secrets = _secrets(due, reveal.get(kind))
        except Exception as error:  # noqa: BLE001 - other kinds must not be affected
            errors[kind] = type(error).__name__
            answers.unavailable_kinds.add(kind)
            continue
        try:
            answers.texts |= load_texts(
                conn, (notification["text"] for notification in due if notification["text"])
            )
        except TextChanged as error:
            errors[kind] = type(error).__name__
            answers.unavailable_kinds.add(kind)
            continue
        answers.still_due.update(notification["id"] for notification in due)
        answers.addresses |= addresses
        answers.secrets |= secrets
    return answers


def _still_due(rows: Sequence[Any], still_due: StillDue | None) -> Sequence[Any]:
    if still_due is None:
        return rows
    keys = still_due([row["key"] for row in rows])
    return [row for row in rows if row["key"] in keys]


def _secrets(rows: Sequence[Any], reveal: RevealSecrets | None) -> dict[int, str]:
    if reveal is None or not rows:
        return {}
    secrets = reveal([row["key"] for row in rows])
    return {row["id"]: secrets[row["key"]] for row in rows}


def _addresses(rows: Sequence[Any], look_up: LookUpAddresses | None) -> dict[int, str]:
    if not rows:
        return {}
    if look_up is None:
        raise LookupError
    addresses = look_up([row["key"] for row in rows])
    return {row["id"]: addresses.get(row["key"]) or "" for row in rows}
