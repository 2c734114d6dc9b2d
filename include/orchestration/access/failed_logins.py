"""Counts of failed log-ins by account and by client address, kept in the memory of a process."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

WINDOW = 300.0  # seconds that a failed log-in counts
PER_ACCOUNT = 10  # failed log-ins within the window, from any addresses
PER_ADDRESS = 30  # for any accounts: several people may share an address
CAPACITY = 20_000  # accounts and addresses that are remembered; the least recent one goes first


@dataclass
class FailedLogins:
    """The failed log-ins of the last minutes.

    A log-in counts from its beginning, so that guesses made at the same time count as well.

    Attributes:
        clock: returns seconds that only increase.
        capacity: most accounts and addresses that are remembered.
    """

    clock: Callable[[], float] = time.monotonic
    capacity: int = CAPACITY
    _times: OrderedDict[bytes, deque[float]] = field(default_factory=OrderedDict)

    def begin(self, account: str, address: str) -> Attempt | float:
        """Count a log-in from its beginning.

        Args:
            account: as it was typed.
            address: of the client.

        Returns:
            The log-in, or the seconds after which another one is accepted.
        """
        now = self.clock()
        keys = [(_account_key(account), PER_ACCOUNT), (_address_key(address), PER_ADDRESS)]
        waits = [self._wait(key, limit, now) for key, limit in keys]
        if max(waits) > 0:
            return max(waits)
        for key, limit in keys:
            self._times.setdefault(key, deque(maxlen=limit)).append(now)
            self._times.move_to_end(key)
        while len(self._times) > self.capacity:
            self._times.popitem(last=False)
        return Attempt(self, [key for key, _ in keys], now)

    def forget(self, keys: Sequence[bytes], moment: float) -> None:
        """Stop counting a log-in that did not fail."""
        for key in keys:
            times = self._times.get(key)
            if times is not None and moment in times:
                times.remove(moment)
                if not times:
                    del self._times[key]

    def _wait(self, key: bytes, limit: int, now: float) -> float:
        times = self._times.get(key)
        while times and times[0] <= now - WINDOW:
            times.popleft()
        return times[0] + WINDOW - now if times and len(times) >= limit else 0.0


@dataclass(frozen=True)
class Attempt:
    """A log-in that began and counts as failed until it is forgiven."""

    counts: FailedLogins
    keys: Sequence[bytes]
    moment: float

    def forgive(self) -> None:
        """Stop counting it: it succeeded, or no password was compared."""
        self.counts.forget(self.keys, self.moment)


def _account_key(account: str) -> bytes:
    """Return a key of fixed size; FAB compares names without regard to case."""
    return b"account " + sha256(account.strip().lower().encode(errors="replace")).digest()


def _address_key(address: str) -> bytes:
    """Return the key of an address; one customer of a provider has a whole /64 of IPv6."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return b"address " + sha256(address.encode(errors="replace")).digest()
    if isinstance(parsed, ipaddress.IPv6Address):
        parsed = parsed.ipv4_mapped or ipaddress.IPv6Network((int(parsed), 64), False)[0]
    return b"address " + parsed.packed
