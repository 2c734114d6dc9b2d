"""Provide the services of an incident drill, which cannot change anything outside the drill.

A drill uses the live policy pack, code version and clock. Its state is separate: the drill has a
schema of its own in the state database. If a step of the drill asks for the connection of a store,
a key, the mail server or a group chat robot, the sandboxed services raise an error. The delivery
channels of a drill accept every message and send nothing. A drill can read the mapped databases,
because these contain the staff who take part in the drill.

At the end of the drill, the live services seal its evidence bundle. Then the drill's schema is
dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn

from include.drill_sandbox import schema
from include.evidence.bundle_reader import refuse_sealed
from include.evidence.ledger import find
from include.notify.delivery import DeliveryConfig
from include.notify.notification import ChannelKind
from include.notify.rendering import OutgoingMessage
from include.policy.rules import Quiet
from include.service_container import STORES, Services
from include.services.connections import ConnectionSpec
from include.services.database import DatabaseAddress
from include.services.delivery_status import DeliveryStatus, Reply
from include.services.errors import UsageError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from include.policy import PolicyPack


NOWHERE = "nobody@drill.invalid"  # RFC 6761, 6.4: no host has such a name
_NO_QUIET_HOURS = Quiet(begins="00:00", ends="00:00")  # an empty period


@dataclass
class SandboxChannel:
    """A delivery channel that reports every message as accepted and sends none.

    Attributes:
        domain: domain in the ids of messages. No such domain exists.
        connections: number of connections over which messages may be sent in parallel.
        message_count: number of messages that were passed to `send`.
    """

    domain: str = "drill.invalid"
    connections: int = 1
    message_count: int = 0

    def open(self) -> SandboxChannel:
        """Return the channel itself, since it needs no connection."""
        return self

    def ready(self) -> Reply:
        """Return a reply that says the channel accepts messages."""
        return Reply(DeliveryStatus.ACCEPTED)

    def send(self, letter: OutgoingMessage) -> Reply:
        """Count a message without sending it, and return a reply that says it was accepted.

        Args:
            letter: message, which is not used.
        """
        del letter
        self.message_count += 1
        return Reply(DeliveryStatus.ACCEPTED)

    def close(self) -> None:
        """Do nothing, because the channel has no connection to close."""


def sandboxed_delivery(delivery: DeliveryConfig) -> DeliveryConfig:
    """Return a copy of a delivery configuration that sends nothing.

    With the copy, messages are due at any hour and on any day, because it has no quiet hours and
    does not wait for workdays. Every recipient has the same invalid address, so that no real
    address is read.

    Args:
        delivery: delivery configuration with the state database of the drill.
    """
    channels: Mapping[ChannelKind, SandboxChannel] = {
        "mail": SandboxChannel(),
        "robot": SandboxChannel(),
    }
    rules = delivery.rules.model_copy(update={"workdays_only": False, "domains": ()})
    addresses = dict.fromkeys(delivery.addresses, _nowhere)
    return replace(
        delivery, channels=channels, rules=rules, quiet=_NO_QUIET_HOURS, addresses=addresses
    )


def _nowhere(keys: Sequence[str]) -> Mapping[str, str]:
    return dict.fromkeys(keys, NOWHERE)


LEFT_AFTER = timedelta(days=30)  # longer than the pause between two steps of a drill
_NEVER = (
    "state_db",
    "drill_db",
    "mail",
    *STORES,
)  # refused even if a policy pack gives a database this name
_READ_ONLY = "-c default_transaction_read_only=on"


@dataclass(frozen=True, kw_only=True)
class SandboxedServices(Services):
    """The services that the steps of an incident drill use. `sandboxed` creates them.

    Attributes:
        live: live services. The drill takes its policy pack, code version, clock and mapped
            databases from them.
        dag_id: DAG id of the workflow.
        run_id: id of the run that is the drill.
        creates_schema: whether the drill's schema in the state database is created if it does not
            exist.
    """

    live: Services
    dag_id: str
    run_id: str
    creates_schema: bool = False

    @cached_property
    def pack(self) -> PolicyPack:
        """The policy pack of the live services."""
        return self.live.pack

    @cached_property
    def code_version(self) -> str:
        """The code version of the live services."""
        return self.live.code_version

    @property
    def is_drill(self) -> bool:
        """Return True, because these are the services of an incident drill."""
        return True

    def is_local(self, conn_id: str) -> bool:
        """Return False, because a drill uses no connection of the local profile."""
        del conn_id
        return False

    def mail_is_caught(self) -> bool:
        """Return False, because a drill only counts its mail and writes none to files."""
        return False

    def connection(self, conn_id: str) -> ConnectionSpec:
        """Refuse every connection. Therefore, a drill can open no store and read no key.

        Raises:
            UsageError: always.
        """
        _refuse(f"the connection {conn_id}")

    def role_database(self, conn_id: str, mapped: str) -> DatabaseAddress:
        """Return the address of a mapped database, for sessions that can only read.

        Args:
            conn_id: id of the connection with the login of the workflow.
            mapped: id of the connection that the data map names for the database.

        Raises:
            UsageError: no data map names ``mapped``. Also raised if ``conn_id`` is the id of the
                connection of the state database, the drill server, the mail server or a store.
        """
        connections = {database.connection for database in self.pack.databases.values()}
        if conn_id in _NEVER or mapped not in connections:
            _refuse(f"the connection {conn_id}")
        address = self.live.role_database(conn_id, mapped)
        options = f"{address.parameters.get('options', '')} {_READ_ONLY}".strip()
        return replace(address, parameters={**address.parameters, "options": options})

    @cached_property
    def state(self) -> Engine:
        """The engine for the drill's state. Its sessions find tables only in the drill's schema.

        Raises:
            UsageError: migrations of the live state database are pending, or its database role may
                not create a schema.
            ControlFailed: the drill's schema does not exist, or the drill was already sealed.
        """
        _ = self.live.state  # at the newest revision
        conninfo = self.live.database("state_db").conninfo()
        if not self.creates_schema:
            return schema.find_sandbox(conninfo, self.dag_id, self.run_id)

        def check(conn: Connection) -> None:
            refuse_sealed(conn, self.dag_id, self.run_id)

        return schema.open_sandbox(conninfo, self.dag_id, self.run_id, self.clock.now(), check)

    def has_schema(self) -> bool:
        """Return whether the drill's schema exists in the state database."""
        return schema.schema_exists(self.live.state, self.dag_id, self.run_id)

    def drop(self) -> None:
        """Drop the drill's schema from the state database, if it exists."""
        schema.drop_sandbox(self.live.state, self.dag_id, self.run_id)


def sandboxed(
    live: Services, dag_id: str, run_id: str, *, creates_schema: bool = False
) -> SandboxedServices:
    """Return the services of a drill. They open the drill's schema when the state is first used.

    Args:
        live: live services.
        dag_id: DAG id of the workflow.
        run_id: id of the run that is the drill.
        creates_schema: whether to create the drill's schema if it does not exist. Only the first
            step of the run passes True. In a later step, a missing schema means that it was
            dropped. The use of the state is then an error, because the step would continue with
            empty tables.
    """
    return SandboxedServices(
        home=live.home,
        policy=live.policy,
        load=live.load,
        lookup=lambda conn_id: _refuse(f"the connection {conn_id}"),
        clock=live.clock,
        live=live,
        dag_id=dag_id,
        run_id=run_id,
        creates_schema=creates_schema,
    )


def live_of(services: Services) -> Services:
    """Return the live services behind `services`.

    If `services` are the services of a drill, the result is their attribute `live`. Otherwise it is
    `services` itself.
    """
    return services.live if isinstance(services, SandboxedServices) else services


def clear_leftovers(live: Services) -> list[schema.Sandbox]:
    """Drop the schemas of drills that were sealed or abandoned.

    A drill counts as abandoned if its last step is older than `LEFT_AFTER`.

    Returns:
        The drills whose schemas were dropped.
    """
    existing = schema.sandboxes(live.state)
    with live.state.connect() as conn:
        sealed = [sandbox for sandbox in existing if find(conn, sandbox.dag_id, sandbox.run_id)]
    quiet = schema.drills_without_steps_since(live.state, live.clock.now() - LEFT_AFTER)
    by_name = {sandbox.name: sandbox for sandbox in (*sealed, *quiet)}
    return [sandbox for sandbox in by_name.values() if schema.drop(live.state, sandbox.name)]


def _refuse(resource: str) -> NoReturn:
    raise UsageError(
        f"A drill may not use {resource}, since a drill may change nothing outside its sandbox.",
        "Define the data that the drill needs in its scenario.",
    )
