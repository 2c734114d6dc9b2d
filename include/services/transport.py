"""Decide whether an address is verified over TLS, or on this machine.

Databases, object stores, KMS, mail and robots of group chats share this decision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from urllib.parse import urlsplit

# libpq's modes that encrypt, or may, without checking who answers.
_UNVERIFIED_MODES = {"allow", "prefer", "require", "verify-ca"}


class Transport(StrEnum):
    """The safety of the way to an address."""

    LOCAL = "local"  # a socket, or a loopback address: nothing leaves this machine
    VERIFIED = "verified"  # TLS; the server's certificate and name are checked
    UNVERIFIED = "unverified"  # TLS, or perhaps TLS, with whoever answers
    PLAIN = "plain"  # no TLS

    @property
    def is_safe(self) -> bool:
        """Return whether an attacker on the network can neither read nor change the traffic."""
        return self in (Transport.LOCAL, Transport.VERIFIED)


class Destination(StrEnum):
    """Kind of service at the other end of a connection."""

    DATABASE = "database"  # PostgreSQL, whose connection may choose a weaker mode
    STORE = "store"  # dumps are encrypted and bundles signed before they leave
    KMS = "kms"  # data keys go over it as they are


@dataclass(frozen=True)
class Route:
    """The way to what a connection names.

    Attributes:
        conn_id: of the connection.
        transport: how safe the way is.
        destination: kind of service at its other end.
    """

    conn_id: str
    transport: Transport
    destination: Destination


def is_this_machine(host: str) -> bool:
    """Return whether a host's name or address is this machine: ``localhost`` or loopback."""
    name = host.strip("[]").rstrip(".").lower()
    try:
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


def of_host(host: str, *, tls: bool, verify: bool | str) -> Transport:
    """Return how safe the way to a host is.

    Args:
        host: name or address.
        tls: whether TLS is spoken.
        verify: whether the certificate is checked, or the file of the authorities that count.
    """
    if is_this_machine(host):
        return Transport.LOCAL
    if not tls:
        return Transport.PLAIN
    return Transport.UNVERIFIED if verify is False else Transport.VERIFIED


def of_url(url: str, verify: bool | str = True) -> Transport:
    """Return how safe the way to a URL is; one without a scheme or host is not.

    Args:
        url: of an endpoint.
        verify: see `of_host`.
    """
    parts = urlsplit(url)
    return of_host(parts.hostname or "", tls=parts.scheme == "https", verify=verify)


def of_database(parameters: Mapping[str, str]) -> Transport:
    """Return how safe the way to a database is, whichever of its hosts answers.

    Args:
        parameters: libpq keywords. A service may name any host, so its way is never local.
    """
    if is_local_database(parameters):
        return Transport.LOCAL
    mode = parameters.get("sslmode", "prefer")
    if mode == "verify-full":
        return Transport.VERIFIED
    return Transport.UNVERIFIED if mode in _UNVERIFIED_MODES else Transport.PLAIN


def is_local_database(parameters: Mapping[str, str]) -> bool:
    """Return whether all hosts and addresses in libpq keywords belong to this machine.

    libpq connects to ``hostaddr`` where it stands beside ``host``; each of several is tried.
    """
    if parameters.get("service"):
        return False
    hosts = parameters.get("host", "").split(",")
    addresses = parameters.get("hostaddr", "").split(",")
    local_hosts = all(
        not host or host.startswith(("/", "@")) or is_this_machine(host) for host in hosts
    )
    return local_hosts and all(not address or is_this_machine(address) for address in addresses)
