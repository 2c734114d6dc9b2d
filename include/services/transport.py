"""Decide whether the network route to an address uses verified TLS or stays on this machine.

The same rules apply to databases, object stores, KMS, mail servers and robots of group chats.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address
from urllib.parse import urlsplit

# Values of libpq's sslmode that encrypt, or may encrypt, and do not fully verify the server.
_UNVERIFIED_MODES = {"allow", "prefer", "require", "verify-ca"}


class Transport(StrEnum):
    """The protection of the network route to an address: local, verified TLS, or weaker."""

    LOCAL = "local"  # a socket, or a loopback address: nothing leaves this machine
    VERIFIED = "verified"  # TLS; the server's certificate and name are checked
    UNVERIFIED = "unverified"  # TLS without verification of the server, or optional TLS
    PLAIN = "plain"  # no TLS

    @property
    def is_safe(self) -> bool:
        """Return whether the route is safe from attackers on the network.

        They can then neither read nor change the traffic.
        """
        return self in (Transport.LOCAL, Transport.VERIFIED)


class Destination(StrEnum):
    """The service to which a connection leads."""

    DATABASE = "database"  # PostgreSQL, whose connection may choose a weaker mode
    STORE = "store"  # dumps are encrypted and bundles signed before they leave
    KMS = "kms"  # data keys are sent without further encryption


@dataclass(frozen=True)
class Route:
    """The network route to the service of a connection.

    Attributes:
        conn_id: id of the connection.
        transport: protection of the route.
        destination: service to which the connection leads.
    """

    conn_id: str
    transport: Transport
    destination: Destination


def is_this_machine(host: str) -> bool:
    """Return whether a host name or address is ``localhost`` or a loopback address."""
    name = host.strip("[]").rstrip(".").lower()
    try:
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


def of_host(host: str, *, tls: bool, verify: bool | str) -> Transport:
    """Return the protection of the network route to a host.

    Args:
        host: host name or address.
        tls: whether the connection uses TLS.
        verify: whether the certificate is verified, or the file of trusted certificate authorities.
    """
    if is_this_machine(host):
        return Transport.LOCAL
    if not tls:
        return Transport.PLAIN
    return Transport.UNVERIFIED if verify is False else Transport.VERIFIED


def of_url(url: str, verify: bool | str = True) -> Transport:
    """Return the protection of the network route to the host of a URL.

    A URL without scheme or host counts as unprotected.

    Args:
        url: URL of an endpoint.
        verify: whether the certificate is verified, or the file of trusted certificate authorities.
    """
    parts = urlsplit(url)
    return of_host(parts.hostname or "", tls=parts.scheme == "https", verify=verify)


def of_database(parameters: Mapping[str, str]) -> Transport:
    """Return the protection of the network route to a database.

    If the keywords name several hosts, the result is the protection of the least safe route.

    Args:
        parameters: libpq keywords. If they name a section of a libpq service file, the route is
            never local, because the section may name any host.
    """
    if is_local_database(parameters):
        return Transport.LOCAL
    mode = parameters.get("sslmode", "prefer")
    if mode == "verify-full":
        return Transport.VERIFIED
    return Transport.UNVERIFIED if mode in _UNVERIFIED_MODES else Transport.PLAIN


def is_local_database(parameters: Mapping[str, str]) -> bool:
    """Return whether all hosts and addresses that libpq keywords name are on this machine.

    libpq uses ``hostaddr`` if it is set, or else ``host``. Both may be lists, and libpq may connect
    to any member of a list.

    Args:
        parameters: libpq keywords of the connection.
    """
    if parameters.get("service"):
        return False
    hosts = parameters.get("host", "").split(",")
    addresses = parameters.get("hostaddr", "").split(",")
    local_hosts = all(
        not host or host.startswith(("/", "@")) or is_this_machine(host) for host in hosts
    )
    return local_hosts and all(not address or is_this_machine(address) for address in addresses)
