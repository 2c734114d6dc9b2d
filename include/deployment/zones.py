"""Define the trust zones of the stack's workers: the keys, logins and servers of each queue.

`docker-compose.yaml` gives each zone its secrets and networks. A test in tests/deployment compares
that file with this module. The logins of workflows are derived from the declarations of the
workflows. `connections_of` selects the connections of a zone from the file that operators edit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from include import registry
from include.deployment import layout
from include.policy import PolicyPack
from include.services.connections import parse
from include.services.errors import UsageError
from include.workflow.declaration import Queue

Connection = dict[str, Any]
OVERRIDE = "@"  # between a connection and the queue whose workers use another login of it
FIXED = ("state_db", "drill_db", "offsite_store", "evidence_store", "extract_store", "mail")
CERTIFICATES = tuple(f"{name}.crt" for name in layout.RECIPIENTS)
# connection -> extras that hold a private key -> file of the stack with that key
KEY_EXTRAS: Mapping[str, Mapping[str, str]] = {
    "evidence_store": {"signing_key": "evidence.key"},
    "offsite_store": {"signing_key": "manifest.key"},
    "state_db": {"erasure_keys": "erasure_keys"},
    "drill_db": {"private_key": "drill.key"},
}


@dataclass(frozen=True)
class Zone:
    """A trust zone: the workers of one queue.

    Attributes:
        queue: queue whose tasks the workers execute.
        keys: names of the files with private keys and secrets that the workers have.
        reaches_databases: whether the workers connect to the mapped databases with the logins that
            the data maps name.
        offsite: whether the workers connect to the off-site store.
        sends: whether the workers send messages through the mail server and the webhooks of chat
            robots.
        servers: servers of the stack that the workers connect to, in addition to broker, API
            server, PostgreSQL and object store.
    """

    queue: Queue
    keys: frozenset[str] = frozenset()
    reaches_databases: bool = False
    offsite: bool = True
    sends: bool = False
    servers: frozenset[str] = frozenset()

    @property
    def service(self) -> str:
        """Return the name of the zone's service in docker-compose.yaml."""
        return "worker" if self.queue is Queue.DEFAULT else f"worker-{self.queue}"

    @property
    def connections_file(self) -> str:
        """Return the name of the file of the zone's connections in the private folder."""
        return f"connections_{self.queue}.json"

    @property
    def secrets(self) -> frozenset[str]:
        """Return the names of the Docker secrets that the zone's service can read."""
        certificates = CERTIFICATES if self.offsite else ()
        return frozenset({*COMMON_SECRETS, *certificates, *self.keys, self.connections_file})


COMMON_SECRETS = (
    "ca_certificate",
    "celery_broker",
    "celery_results_database",
    "evidence.pub",
    "manifest.pub",
)
ZONES: Mapping[Queue, Zone] = {
    zone.queue: zone
    for zone in (
        Zone(
            Queue.DEFAULT,
            keys=frozenset({"erasure_keys"}),
            reaches_databases=True,
            sends=True,
            servers=frozenset({layout.CUSTOMERS, layout.MAIL}),
        ),
        Zone(
            Queue.BACKUP,
            keys=frozenset({"manifest.key"}),
            reaches_databases=True,
            servers=frozenset({layout.CUSTOMERS}),
        ),
        Zone(
            Queue.DRILL,
            keys=frozenset({"drill.key", "erasure_keys"}),
            servers=frozenset({layout.SCRATCH}),
        ),
        Zone(
            Queue.RETENTION,
            keys=frozenset({"erasure_keys"}),
            reaches_databases=True,
            servers=frozenset({layout.CUSTOMERS}),
        ),
        Zone(
            Queue.SEALING,
            keys=frozenset({"evidence.key"}),
            offsite=False,
            servers=frozenset({layout.CUSTOMERS}),
        ),
    )
}


def logins_of(zone: Zone, pack: PolicyPack | None = None) -> frozenset[str]:
    """Return the connection ids of the workflow logins that a trust zone needs.

    The zone needs the logins of the workflows whose tasks run in its queue. Some workflows read
    mapped databases while a bundle is sealed. The zone that seals bundles also needs the logins of
    these workflows.

    Args:
        zone: trust zone.
        pack: policy pack, which may name other connections than the declarations of workflows.
    """
    return frozenset().union(
        *(
            workflow.logins(pack)
            for workflow in registry.workflows()
            if workflow.queue is zone.queue
            or (zone.queue is Queue.SEALING and workflow.reads_while_sealing)
        )
    )


def connections_of(
    zone: Zone, configured: Mapping[str, Any], pack: PolicyPack | None = None
) -> dict[str, Connection]:
    """Return the connections of a trust zone's workers.

    Args:
        zone: trust zone.
        configured: all connections by id, as in Airflow's file of connections. The entry `ID@QUEUE`
            is an object that replaces parts of the connection `ID` for the workers of a queue, such
            as a login with fewer rights.
        pack: policy pack, which may name other connections than the declarations of workflows.

    Raises:
        UsageError: a connection cannot be read, or `ID@QUEUE` names an unknown connection or zone.
    """
    plain = without_overrides(configured)
    _require_known_overrides(configured)
    every_login = {login.connection for login in registry.logins()}.union(
        *(workflow.logins(pack) for workflow in registry.workflows())
    )
    used = logins_of(zone, pack)
    # Without a login of its own, a workflow uses that of the database.
    databases = zone.reaches_databases or not used <= plain.keys()

    def is_used(name: str, connection: Connection) -> bool:
        if name in FIXED:
            return _is_fixed_used(zone, name)
        if name in every_login:
            return name in used
        return databases if connection["conn_type"] == "postgres" else zone.sends

    selected = {name: connection for name, connection in plain.items() if is_used(name, connection)}
    for name, connection in selected.items():
        override = configured.get(f"{name}{OVERRIDE}{zone.queue}", {})
        extra = {**connection["extra_dejson"], **_extra(override)}
        connection.update({key: override[key] for key in override if not key.startswith("extra")})
        for key in _foreign_keys(zone, name):
            extra.pop(key, None)
        connection["extra_dejson"] = extra
        if name == "mail" and not zone.sends:
            connection["login"] = connection["password"] = ""
    return selected


def _require_known_overrides(configured: Mapping[str, Any]) -> None:
    for name, override in configured.items():
        plain, separator, queue = name.partition(OVERRIDE)
        if not separator:
            continue
        if plain not in configured or queue not in set(Queue):
            raise UsageError(
                f"{name} in the file of connections does not name a connection and a zone.",
                f"Write CONNECTION{OVERRIDE}ZONE. The zones: {', '.join(Queue)}.",
            )
        if not isinstance(override, Mapping):
            raise UsageError(
                f"{name} in the file of connections is not an object.",
                "Write the values that the zone uses, such as login and password.",
            )


def without_overrides(configured: Mapping[str, Any]) -> dict[str, Connection]:
    """Return the connections as objects, without the entries `ID@QUEUE`.

    An entry `ID@QUEUE` overrides a connection for the workers of a queue.

    Args:
        configured: all connections by id, as in Airflow's file of connections.

    Raises:
        UsageError: a connection cannot be read.
    """
    return {
        name: _object(name, connection)
        for name, connection in configured.items()
        if OVERRIDE not in name
    }


def without_logins_of_replaced_stores(
    ours: Mapping[str, Connection], configured: Mapping[str, Any]
) -> dict[str, Connection]:
    """Remove logins that exist only in the stack's own object store, if that store was replaced.

    Operators may replace the object store of the stack. The entries ``ID@QUEUE`` of a new stack
    contain logins to the stack's own object store. Another store does not have these logins and
    would refuse them.

    Args:
        ours: connections of a new stack, including the entries ``ID@QUEUE``.
        configured: connections of this stack, in which operators may have replaced the store.

    Returns:
        `ours` without the entries ``ID@QUEUE`` for which the connection ``ID`` in `configured` has
        another address.

    Raises:
        UsageError: a connection cannot be read.
    """
    theirs = without_overrides(configured)

    def is_replaced(name: str) -> bool:
        plain, override, _queue = name.partition(OVERRIDE)
        if not override or plain not in theirs:
            return False
        return _endpoint(theirs[plain]) != _endpoint(ours[plain])

    return {name: connection for name, connection in ours.items() if not is_replaced(name)}


def without_replaced_stores(
    pages: Mapping[str, Connection], ours: Mapping[str, Connection], configured: Mapping[str, Any]
) -> dict[str, Connection]:
    """Remove the connections of the compliance pages to stores that operators replaced.

    The workers write to the store of the operators. The pages would search for its objects in the
    stack's own store.

    Args:
        pages: connections of the compliance pages in a new stack.
        ours: connections of the workers in a new stack.
        configured: connections of the workers in this stack.

    Returns:
        `pages` without the connections that have another endpoint, bucket or prefix in `configured`
        than in `ours`.

    Raises:
        UsageError: a connection cannot be read.
    """
    theirs = without_overrides(configured)

    def is_replaced(name: str) -> bool:
        return name in ours and name in theirs and _location(theirs[name]) != _location(ours[name])

    return {name: connection for name, connection in pages.items() if not is_replaced(name)}


def _location(connection: Connection) -> tuple[object, ...]:
    extra = connection["extra_dejson"]
    return _endpoint(connection), extra.get("bucket"), extra.get("prefix")


def _endpoint(connection: Connection) -> object:
    return connection["extra_dejson"].get("endpoint_url")


def _object(name: str, connection: Any) -> Connection:
    text = connection if isinstance(connection, str) else json.dumps(connection)
    fields = asdict(parse(name, text))
    extra = fields.pop("extra")
    del fields["conn_id"]
    return {**fields, "extra_dejson": dict(extra)}


def _is_fixed_used(zone: Zone, name: str) -> bool:
    if name == "drill_db":
        return zone.queue is Queue.DRILL
    if name == "offsite_store":
        return zone.offsite
    if name == "extract_store":  # only the workers that deliver, end and send
        return zone.queue is Queue.DEFAULT
    if name == "mail":  # documents of incidents say whether letters would reach anybody
        return zone.sends or zone.queue is Queue.SEALING
    return True


def _extra(override: Mapping[str, Any]) -> Mapping[str, Any]:
    extra: Mapping[str, Any] = override.get("extra_dejson") or override.get("extra") or {}
    return extra


def _foreign_keys(zone: Zone, name: str) -> list[str]:
    """Return the names of the extras of a connection that a zone must not have.

    These extras contain private keys or their passphrases.

    Args:
        zone: trust zone.
        name: id of the connection.
    """
    extras = [extra for extra, key in KEY_EXTRAS.get(name, {}).items() if key not in zone.keys]
    return [*extras, *(f"{extra}_passphrase" for extra in extras)]
