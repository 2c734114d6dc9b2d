"""Channels of a drill: they accept every notification and send nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from include.notify.delivery import Office
from include.notify.letters import Letter
from include.notify.notice import ChannelKind
from include.policy.rules import Quiet
from include.services.fate import Fate, Reply

NOWHERE = "nobody@drill.invalid"  # RFC 6761, 6.4: no host has such a name
_NEVER = Quiet(begins="00:00", ends="00:00")  # hours without length


@dataclass
class SandboxChannel:
    """Accept every message and keep only the count.

    Attributes:
        taken: messages so far.
    """

    domain: str = "drill.invalid"
    lines: int = 1
    taken: int = 0

    def open(self) -> SandboxChannel:
        """Return a line."""
        return self

    def ready(self) -> Reply:
        """Accept."""
        return Reply(Fate.ACCEPTED)

    def send(self, letter: Letter) -> Reply:
        """Count a message."""
        del letter
        self.taken += 1
        return Reply(Fate.ACCEPTED)

    def close(self) -> None:
        """Do nothing: no connection is open."""


def sandbox_office(office: Office) -> Office:
    """Return an office that sends nothing, without quiet hours or holidays.

    It looks up no address: a scenario affects no customer.

    Args:
        office: its outbox is that of a drill.
    """
    channels: Mapping[ChannelKind, SandboxChannel] = {
        "mail": SandboxChannel(),
        "robot": SandboxChannel(),
    }
    rules = office.rules.model_copy(update={"workdays_only": False, "domains": ()})
    addresses = dict.fromkeys(office.addresses, _nowhere)
    return replace(office, channels=channels, rules=rules, quiet=_NEVER, addresses=addresses)


def _nowhere(keys: Sequence[str]) -> Mapping[str, str]:
    return dict.fromkeys(keys, NOWHERE)
