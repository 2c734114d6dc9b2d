"""Find connections that leave this machine without verified TLS."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress

from include.services.aws import kms_transport
from include.services.connection_secrets import list_from_extra
from include.services.connections import ConnectionSpec
from include.services.database import DatabaseAddress
from include.services.errors import UsageError
from include.services.stores import store_transport
from include.services.transport import Destination, Route, Transport

Lookup = Callable[[str], ConnectionSpec | None]


def unverified_routes(
    lookup: Lookup, databases: Iterable[str], stores: Iterable[str]
) -> list[Route]:
    """Return the network routes that leave this machine without verified TLS.

    The definitions of the connections are read, and no connection is opened. A connection whose
    definition cannot be read is skipped. Mail servers and robots of group chats are not included,
    because ParcelSeal refuses to use them over such a route.

    Args:
        lookup: function that returns a configured connection by its id, or None.
        databases: ids of connections to PostgreSQL.
        stores: ids of connections to object stores. The connection ``offsite_store`` may also name
            a KMS.
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
    """Return one fault for each route to an object store or KMS without verified TLS.

    Routes to databases are left out: `remarks_of` returns a remark for them.

    Args:
        routes: routes without verified TLS, from `unverified_routes`.
    """
    return [
        f"The connection {route.conn_id} is not verified over TLS ({route.transport}): use https, "
        "and name an authority of your own in its extra `verify`."
        for route in routes
        if route.destination is not Destination.DATABASE
    ]


def remarks_of(routes: Iterable[Route]) -> list[str]:
    """Return one remark for each route to a database without verified TLS.

    This is a remark and not a fault, because the connection explicitly sets a weaker ``sslmode``.

    Args:
        routes: routes without verified TLS, from `unverified_routes`.
    """
    return [
        f"The connection {route.conn_id} is not verified over TLS ({route.transport}): see sslmode "
        "in its extra."
        for route in routes
        if route.destination is Destination.DATABASE
    ]


def _database_transport(spec: ConnectionSpec) -> Transport:
    return DatabaseAddress.from_connection(spec).transport


def _uses_kms(offsite: ConnectionSpec, drill: ConnectionSpec | None) -> bool:
    """Return whether KMS keys are used to encrypt backups or to decrypt them for restore drills.

    Args:
        offsite: connection of the off-site store, which names the recipients of backups.
        drill: connection that names the key for restore drills; None if it is not configured.
    """
    return (drill is not None and bool(drill.text("kms_key"))) or any(
        isinstance(recipient, Mapping) and recipient.get("kms_key")
        for recipient in list_from_extra(offsite, "recipients")
    )
