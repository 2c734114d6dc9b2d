"""Find the connections to other machines that are not verified over TLS."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from include.services.aws import kms_transport
from include.services.connections import ConnectionSpec
from include.services.database import DatabaseAddress
from include.services.errors import UsageError
from include.services.material import listed
from include.services.stores import store_transport
from include.services.transport import Destination, Route, Transport

Lookup = Callable[[str], ConnectionSpec | None]


def unverified_routes(
    lookup: Lookup, databases: Iterable[str], stores: Iterable[str]
) -> list[Route]:
    """Return the routes to other machines that are not verified over TLS.

    Connections are read only, and those that cannot be read are left out. Mail and robots of group
    chats are refused over such a route, and need not be reported.

    Args:
        lookup: finds a configured connection, None when it is not configured.
        databases: ids of connections to PostgreSQL.
        stores: ids of connections to object stores; KMS is reached by ``offsite_store``.
    """
    transports: dict[str, Callable[[ConnectionSpec], Transport]] = {
        **dict.fromkeys(sorted(databases), _database_transport),
        **dict.fromkeys(stores, store_transport),
    }
    routes: list[Route] = []
    for conn_id, transport_of in transports.items():
        with suppress(UsageError):
            if (spec := lookup(conn_id)) is not None:
                is_database = transport_of is _database_transport
                destination = Destination.DATABASE if is_database else Destination.STORE
                routes.append(Route(conn_id, transport_of(spec), destination))
    with suppress(UsageError):
        spec = lookup("offsite_store")
        if spec is not None and _uses_kms(spec, lookup("drill_db")):
            routes.append(Route("offsite_store (KMS)", kms_transport(spec), Destination.KMS))
    return [route for route in routes if not route.transport.is_safe]


def faults_of(routes: Iterable[Route]) -> list[str]:
    """Return a sentence for each route to a store or KMS."""
    return [
        f"The connection {route.conn_id} is not verified over TLS ({route.transport}): use https, "
        "and name an authority of your own in its extra `verify`."
        for route in routes
        if route.destination is not Destination.DATABASE
    ]


def remarks_of(routes: Iterable[Route]) -> list[str]:
    """Return a sentence for each route to a database, whose connection chose its ``sslmode``."""
    return [
        f"The connection {route.conn_id} is not verified over TLS ({route.transport}): see sslmode "
        "in its extra."
        for route in routes
        if route.destination is Destination.DATABASE
    ]


def _database_transport(spec: ConnectionSpec) -> Transport:
    return DatabaseAddress.from_connection(spec).transport


def _uses_kms(offsite: ConnectionSpec, drill: ConnectionSpec | None) -> bool:
    """Return whether KMS holds a key of backups, evidence or drills."""
    return (drill is not None and bool(drill.text("kms_key"))) or any(
        isinstance(recipient, Mapping) and recipient.get("kms_key")
        for recipient in listed(offsite, "recipients")
    )
