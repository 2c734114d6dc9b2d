"""Addresses that can be used, and what is wrong with the others. Stricter than RFC 5322 allows:
what no mail system of a company hands out is a slip of the pen, or an attack.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from include.notify.names import FORBIDDEN, MALFORMED, NO_ADDRESS
from include.notify.notice import ChannelKind

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
        One of the causes of `include.notify.names`.
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
    if domains and not any(name == one or name.endswith(f".{one}") for one in domains):
        return FORBIDDEN
    return ""
