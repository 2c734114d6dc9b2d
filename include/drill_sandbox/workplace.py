"""The workplace of a drill: the live pack, code and clock, and a state of its own.

It refuses every connection: stores, keys, mail server and robot. Its channels accept every
notification and send nothing. Mapped databases are the exception, read-only, since the people who
play the drill are looked up there. The drill's own bundle is sealed by the live workplace; then the
state is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn

from include.drill_sandbox import schema
from include.evidence.ledger import find
from include.evidence.shelf import refuse_sealed
from include.notify.delivery import Office
from include.notify.letters import Letter
from include.notify.notice import ChannelKind
from include.policy.rules import Quiet
from include.services.connections import ConnectionSpec
from include.services.database import DatabaseAddress
from include.services.errors import UsageError
from include.services.fate import Fate, Reply
from include.workplace import STORES, Workplace

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from include.policy import PolicyPack


NOWHERE = "nobody@drill.invalid"  # RFC 6761, 6.4: no host has such a name
_NO_QUIET_HOURS = Quiet(begins="00:00", ends="00:00")  # hours without length


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
    return replace(
        office, channels=channels, rules=rules, quiet=_NO_QUIET_HOURS, addresses=addresses
    )


def _nowhere(keys: Sequence[str]) -> Mapping[str, str]:
    return dict.fromkeys(keys, NOWHERE)


LEFT_AFTER = timedelta(days=30)  # a drill in progress has a step in that time
_NEVER = ("state_db", "drill_db", "mail", *STORES)  # even if a pack names a database so
_READ_ONLY = "-c default_transaction_read_only=on"


@dataclass(frozen=True, kw_only=True)
class SandboxedWorkplace(Workplace):
    """The workplace of a run that is a drill; see `sandboxed`.

    Attributes:
        live: the live workplace, for the seal and the ledger only.
        dag_id: the workflow.
        run_id: the run that is the drill.
        begins: whether the state is made if it does not exist.
    """

    live: Workplace
    dag_id: str
    run_id: str
    begins: bool = False

    @cached_property
    def pack(self) -> PolicyPack:
        """The policy pack: the live one."""
        return self.live.pack

    @cached_property
    def code_version(self) -> str:
        """That of the live workplace."""
        return self.live.code_version

    @property
    def is_drill(self) -> bool:
        """Return whether these are the services of an incident drill."""
        return True

    def is_local(self, conn_id: str) -> bool:
        """Return False: the local profile supplies no connection of a drill."""
        del conn_id
        return False

    def mail_is_caught(self) -> bool:
        """Return False: a drill's mail is only counted."""
        return False

    def connection(self, conn_id: str) -> ConnectionSpec:
        """Refuse every connection, and with it each store and key.

        Raises:
            UsageError: always.
        """
        _refuse(f"the connection {conn_id}")

    def role_database(self, conn_id: str, mapped: str) -> DatabaseAddress:
        """Return the address at which a workflow reads a mapped database, read-only.

        Args:
            conn_id: the workflow's connection.
            mapped: the database's own.

        Raises:
            UsageError: the database is not mapped.
        """
        connections = {database.connection for database in self.pack.databases.values()}
        if conn_id in _NEVER or mapped not in connections:
            _refuse(f"the connection {conn_id}")
        address = self.live.role_database(conn_id, mapped)
        options = f"{address.parameters.get('options', '')} {_READ_ONLY}".strip()
        return replace(address, parameters={**address.parameters, "options": options})

    @cached_property
    def state(self) -> Engine:
        """The drill's state.

        Raises:
            UsageError: migrations of the live one are pending, or its role may make no schema.
            ControlFailed: it does not exist, or the drill was sealed before it was made.
        """
        _ = self.live.state  # at the newest revision
        conninfo = self.live.database("state_db").conninfo()
        if not self.begins:
            return schema.find_sandbox(conninfo, self.dag_id, self.run_id)

        def check(conn: Connection) -> None:
            refuse_sealed(conn, self.dag_id, self.run_id)

        return schema.open_sandbox(conninfo, self.dag_id, self.run_id, self.clock.now(), check)

    def is_there(self) -> bool:
        """Return whether the drill's state exists."""
        return schema.is_there(self.live.state, self.dag_id, self.run_id)

    def drop(self) -> None:
        """Drop the drill's state. Safe to repeat."""
        schema.drop_sandbox(self.live.state, self.dag_id, self.run_id)


def sandboxed(
    live: Workplace, dag_id: str, run_id: str, *, begins: bool = False
) -> SandboxedWorkplace:
    """Return the workplace of a drill; its state is made at the first use.

    Args:
        live: the live workplace.
        dag_id: the workflow.
        run_id: the run that is the drill.
        begins: for the first step of a run, which makes the state. Every other step finds it, or
            refuses if it was cleared away: it would go on with an empty state.
    """
    return SandboxedWorkplace(
        home=live.home,
        policy=live.policy,
        load=live.load,
        lookup=lambda conn_id: _refuse(f"the connection {conn_id}"),
        clock=live.clock,
        live=live,
        dag_id=dag_id,
        run_id=run_id,
        begins=begins,
    )


def live_of(services: Workplace) -> Workplace:
    """Return the workplace with the live ledger and stores, also for the workplace of a drill."""
    return services.live if isinstance(services, SandboxedWorkplace) else services


def clear_leftovers(live: Workplace) -> list[schema.Sandbox]:
    """Drop the state of drills that are sealed, or without a step for `LEFT_AFTER`.

    Returns:
        The dropped ones.
    """
    existing = schema.sandboxes(live.state)
    with live.state.connect() as conn:
        sealed = [sandbox for sandbox in existing if find(conn, sandbox.dag_id, sandbox.run_id)]
    quiet = schema.leftovers(live.state, live.clock.now() - LEFT_AFTER)
    by_name = {sandbox.name: sandbox for sandbox in (*sealed, *quiet)}
    return [sandbox for sandbox in by_name.values() if schema.drop(live.state, sandbox.name)]


def _refuse(resource: str) -> NoReturn:
    raise UsageError(
        f"A drill does not use {resource}: nothing of it leaves its sandbox.",
        "Let the scenario of the drill say what would be found there.",
    )
