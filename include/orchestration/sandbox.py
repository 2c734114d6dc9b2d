"""A drill's workplace: the same pack, code and clock, and a state that stands apart.

Nothing else is within its reach: no store, no key, no mail server, no robot. Mapped databases are,
for reading only, since those who play the drill are looked up there. What a run writes to stores
goes to tables of its sandbox, sealed and encrypted with keys that are made for it, and all of that
is dropped once the drill's own bundle stands in the live ledger.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn

from include.evidence.ledger import find
from include.services.connections import ConnectionSpec
from include.services.database import DatabaseAddress
from include.services.errors import ControlFailed, UsageError
from include.services.objectstore.base import ObjectStore
from include.workplace import STORES, Workplace

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

    from include.encryption.recipients import Recipient, UnreadableRecipient
    from include.erasure.ledger import ErasureKeys
    from include.evidence.signing import Signer
    from include.policy import PolicyPack
    from include.state.sandbox import Sandbox

LEFT_AFTER = timedelta(days=30)  # without a step; no drill that is still played is so quiet
_NEVER = ("state_db", "drill_db", "mail", *STORES)  # whatever a pack calls its databases
_READ_ONLY = "-c default_transaction_read_only=on"
_BITS = 3072  # of keys that live as long as a drill; the least that recipients may have


@dataclass(frozen=True, kw_only=True)
class SandboxedWorkplace(Workplace):
    """What a run works with that is a drill; see `sandboxed`.

    Attributes:
        live: the workplace that it stands beside; for the seal and the ledger only.
        dag_id: the workflow.
        run_id: the run that is the drill.
        begins: whether the state is made when it is not there.
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
        """Whether these are the services of an incident drill."""
        return True

    def is_local(self, conn_id: str) -> bool:
        """Say no: nothing stands in for a connection that there is not."""
        del conn_id
        return False

    def mail_is_caught(self) -> bool:
        """Say no: a drill's mail is listed, whatever server there is."""
        return False

    def connection(self, conn_id: str) -> ConnectionSpec:
        """Refuse.

        Raises:
            UsageError: always.
        """
        _refuse(f"the connection {conn_id}")

    def role_database(self, conn_id: str, mapped: str) -> DatabaseAddress:
        """Return where a workflow reads a mapped database; sessions there write nothing.

        Args:
            conn_id: the workflow's connection.
            mapped: the database's own.

        Raises:
            UsageError: that is no mapped database.
        """
        known = {one.connection for one in self.pack.databases.values()}
        if conn_id in _NEVER or mapped not in known:
            _refuse(f"the connection {conn_id}")
        found = self.live.role_database(conn_id, mapped)
        options = f"{found.parameters.get('options', '')} {_READ_ONLY}".strip()
        return replace(found, parameters={**found.parameters, "options": options})

    def store(self, conn_id: str) -> ObjectStore:
        """Return what stands for a store in a drill.

        Raises:
            UsageError: it is none of the stores.
        """
        from include.state.sandbox_store import SandboxStore

        if conn_id not in STORES:
            _refuse(f"the store {conn_id}")
        return SandboxStore(self.state, conn_id, self.clock)

    @cached_property
    def state(self) -> Engine:
        """The drill's state.

        Raises:
            UsageError: migrations of the live one are pending, or its role may make no schema.
            ControlFailed: it is not there, or the drill was sealed before it was made.
        """
        from include.state.sandbox import find_sandbox, open_sandbox

        _ = self.live.state  # at the newest revision
        conninfo = self.live.database("state_db").conninfo()
        if not self.begins:
            return find_sandbox(conninfo, self.dag_id, self.run_id)

        def check(conn: Connection) -> None:
            refuse_sealed(conn, self.dag_id, self.run_id)

        return open_sandbox(conninfo, self.dag_id, self.run_id, self.clock.now(), check)

    @cached_property
    def signer(self) -> Signer:
        """A key that is as old as the drill: its seals are worth nothing outside."""
        from include.evidence.signing import Signer, generate_key
        from include.state.sandbox import kept

        return Signer.from_pem(kept(self.state, "signing_key", generate_key))

    @cached_property
    def trusted(self) -> list[bytes]:
        """The public half of the drill's own key."""
        return [self.signer.public_pem]

    def recipients(self) -> tuple[list[Recipient], list[UnreadableRecipient]]:
        """Return as many recipients as the policy asks for; their private keys are nowhere."""
        from include.encryption.recipients import new_pair, recipient_from_pem
        from include.state.sandbox import kept

        found = []
        for number in range(1, self.pack.backup.recipients.minimum + 1):
            name = f"drill {number}"

            def certificate(name: str = name) -> bytes:
                return new_pair(name, self.clock.now(), bits=_BITS)[1]

            found.append(recipient_from_pem(name, kept(self.state, name, certificate)))
        return found, []

    @cached_property
    def erasure_keys(self) -> ErasureKeys:
        """A key that is as old as the drill."""
        from secrets import token_bytes

        from include.erasure.ledger import ErasureKeys
        from include.state.sandbox import kept

        return ErasureKeys({"1": kept(self.state, "erasure_key", lambda: token_bytes(32))}, "1")

    def is_there(self) -> bool:
        """Say whether the drill's state is there."""
        from include.state.sandbox import is_there

        return is_there(self.live.state, self.dag_id, self.run_id)

    def drop(self) -> None:
        """Remove the drill's state and all that it kept; repeated, it does nothing."""
        from include.state.sandbox import drop_sandbox

        drop_sandbox(self.live.state, self.dag_id, self.run_id)


def sandboxed(
    place: Workplace, dag_id: str, run_id: str, *, begins: bool = False
) -> SandboxedWorkplace:
    """Return the workplace of a drill; nothing is made before its state is asked for.

    Args:
        place: the live one.
        dag_id: the workflow.
        run_id: the run that is the drill.
        begins: for the first step of a run, which makes the state. Every other step finds it, and
            refuses where it was cleared away: it would else go on with an empty one.
    """
    return SandboxedWorkplace(
        home=place.home,
        policy=place.policy,
        lookup=lambda conn_id: _refuse(f"the connection {conn_id}"),
        clock=place.clock,
        load=place.load,
        live=place,
        dag_id=dag_id,
        run_id=run_id,
        begins=begins,
    )


def live_of(place: Workplace) -> Workplace:
    """Return where the ledger and the stores of a workplace are live: itself, but of a drill."""
    return place.live if isinstance(place, SandboxedWorkplace) else place


def refuse_sealed(conn: Connection, dag_id: str, run_id: str) -> None:
    """Refuse to work in a run that is sealed: the work would be in no evidence.

    Args:
        conn: the live state database.
        dag_id: the workflow.
        run_id: its run.

    Raises:
        ControlFailed: the run is sealed.
    """
    if find(conn, dag_id, run_id) is not None:
        raise ControlFailed(
            "This run is sealed: nothing can be done in it any more.",
            "Start a new run of the workflow; it does what this run lacks.",
        )


def clear_leftovers(live: Workplace) -> list[Sandbox]:
    """Drop the state of drills that are sealed, or in which nothing happened for `LEFT_AFTER`.

    Returns:
        Those that were dropped.
    """
    from include.state.sandbox import drop, leftovers, sandboxes

    with live.state.connect() as conn:
        sealed = [one for one in sandboxes(live.state) if find(conn, one.dag_id, one.run_id)]
    quiet = leftovers(live.state, live.clock.now() - LEFT_AFTER)
    found = {one.name: one for one in (*sealed, *quiet)}
    return [one for one in found.values() if drop(live.state, one.name)]


def _refuse(what: str) -> NoReturn:
    raise UsageError(
        f"A drill does not use {what}: nothing of it leaves its sandbox.",
        "Let the scenario of the drill say what would be found there.",
    )
