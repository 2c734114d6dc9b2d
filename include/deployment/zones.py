"""The trust zones of the stack's workers: keys, logins and servers of the workers of a queue.

`docker-compose.yaml` gives each zone its secrets and networks; tests/deployment compares both.
Logins of workflows follow from their declarations. `connections_of` selects a zone's connections
from the file that operators edit.
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
FIXED = ("state_db", "drill_db", "offsite_store", "evidence_store", "mail")
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
    """A set of workers.

    Attributes:
        queue: whose tasks they run.
        keys: files with private keys and secrets that they have.
        reaches_databases: whether they connect to the mapped databases, with the maps' own logins.
        offsite: whether they reach the off-site store.
        sends: whether they reach the mail server and the webhooks of robots.
        servers: servers of the stack, beside broker, API server, PostgreSQL and store.
    """

    queue: Queue
    keys: frozenset[str] = frozenset()
    reaches_databases: bool = False
    offsite: bool = True
    sends: bool = False
    servers: frozenset[str] = frozenset()

    @property
    def service(self) -> str:
        """The service of docker-compose.yaml."""
        return "worker" if self.queue is Queue.DEFAULT else f"worker-{self.queue}"

    @property
    def connections_file(self) -> str:
        """The file of connections, in the private folder."""
        return f"connections_{self.queue}.json"

    @property
    def secrets(self) -> frozenset[str]:
        """Secrets of the service, by their source."""
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
    """Return the connections of workflows with rights of their own that a zone uses.

    The sealing zone uses those of workflows that read there which documents are due to whom.

    Args:
        zone: the zone.
        pack: the policy pack, which may name other connections than the declarations.
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
    """Return the connections of a zone's workers.

    Args:
        zone: the zone.
        configured: all connections by id, as Airflow's file has them. `ID@QUEUE` is an object with
            what the workers of a queue use in place of parts of ID: a login with fewer rights.
        pack: the policy pack, which may name other connections than the declarations.

    Raises:
        UsageError: a connection cannot be read, or `ID@QUEUE` names no connection or no zone.
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

    selected = {name: each for name, each in plain.items() if is_used(name, each)}
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
                f"{name} in the file of connections names no connection or no zone.",
                f"Write CONNECTION{OVERRIDE}ZONE. The zones: {', '.join(Queue)}.",
            )
        if not isinstance(override, Mapping):
            raise UsageError(
                f"{name} in the file of connections is no object.",
                "Write what the zone uses instead, such as login and password.",
            )


def without_overrides(configured: Mapping[str, Any]) -> dict[str, Connection]:
    """Return the connections, as objects, without those that replace parts of others for a queue.

    Raises:
        UsageError: a connection cannot be read.
    """
    return {name: _object(name, each) for name, each in configured.items() if OVERRIDE not in name}


def without_logins_of_replaced_stores(
    ours: Mapping[str, Connection], configured: Mapping[str, Any]
) -> dict[str, Connection]:
    """Return the stack's connections without the zones' logins of a store that was replaced.

    Those logins belong to the stack's own store. Another store would refuse them.

    Args:
        ours: the connections of a new stack.
        configured: the connections of this stack.

    Raises:
        UsageError: a connection cannot be read.
    """
    theirs = without_overrides(configured)

    def is_replaced(name: str) -> bool:
        plain, override, _queue = name.partition(OVERRIDE)
        if not override or plain not in theirs:
            return False
        return _endpoint(theirs[plain]) != _endpoint(ours[plain])

    return {name: each for name, each in ours.items() if not is_replaced(name)}


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
    if name == "mail":  # documents of incidents say whether letters would reach anybody
        return zone.sends or zone.queue is Queue.SEALING
    return True


def _extra(override: Mapping[str, Any]) -> Mapping[str, Any]:
    extra: Mapping[str, Any] = override.get("extra_dejson") or override.get("extra") or {}
    return extra


def _foreign_keys(zone: Zone, name: str) -> list[str]:
    """Return the extras of a connection that hold private keys which the zone does not have."""
    extras = [extra for extra, key in KEY_EXTRAS.get(name, {}).items() if key not in zone.keys]
    return [*extras, *(f"{extra}_passphrase" for extra in extras)]
