"""The services of a command or a task: connections, policy pack, stores, keys, state database.

The one place that makes services of connections. It knows no workflow and no local profile:
`include.composition` puts them together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from include.policy import PolicyPack
from include.services.clock import Clock, SystemClock
from include.services.connections import ConnectionSpec
from include.services.database import DatabaseAddress
from include.services.errors import UsageError
from include.services.mail import MailServer
from include.services.material import json_of, listed, material
from include.services.objectstore.base import ObjectStore
from include.services.robot import Robot
from include.services.routes import faults_of, unverified_routes
from include.services.stores import open_store
from include.services.transport import Route

if TYPE_CHECKING:
    import psycopg
    from sqlalchemy import Engine

    from include.encryption.recipients import OpeningKey, Recipient, UnreadableRecipient
    from include.erasure.ledger import ErasureKeys
    from include.evidence.register_figures import Register
    from include.evidence.registers import EvidenceReader
    from include.evidence.signing import Signer
    from include.holds.records import StoredRestorePoint
    from include.policy.datamap import MappedDatabase

ROOT = Path(__file__).resolve().parent.parent
STORES = ("offsite_store", "evidence_store")
LOCAL_VARIABLE = "PARCELSEAL_LOCAL_PROFILE"

Lookup = Callable[[str], ConnectionSpec | None]


class StandIns(Protocol):
    """Connections for those that are not configured, such as those of the local profile."""

    @property
    def data_folders(self) -> list[Path]:
        """Return the folders of the databases; a store on the same disk is not off-site."""
        ...

    def stands_in(self, conn_id: str) -> bool:
        """Return whether there is a stand-in for a connection; creates nothing."""
        ...

    def connection(self, conn_id: str) -> ConnectionSpec | None:
        """Return the stand-in for a connection, or None if it has none."""
        ...


def _no_restore_points(services: Workplace, database: str) -> list[StoredRestorePoint]:
    raise UsageError(f"These services list no restore points of {database}.")


@dataclass(frozen=True)
class Workplace:
    """The services of a run, each made at its first use.

    Args:
        home: folder of the local profile.
        policy: folder of the policy pack.
        lookup: returns a configured connection, or None if it is not configured.
        clock: the time.
        load: reads the policy pack.
        stand_ins: connections for those that are not configured; None in production.
        open_state: an engine of the migrated state database; by default one of ``state_db``.
        list_restore_points: returns the restore points of a mapped database in the off-site store.
    """

    home: Path
    policy: Path
    lookup: Lookup
    clock: Clock = field(default_factory=SystemClock)
    _: KW_ONLY
    load: Callable[[Path], PolicyPack]
    stand_ins: StandIns | None = None
    open_state: Engine | None = None
    list_restore_points: Callable[[Workplace, str], list[StoredRestorePoint]] = _no_restore_points

    @cached_property
    def pack(self) -> PolicyPack:
        """The policy pack; raises PackError with every fault of a bad one."""
        return self.load(self.policy)

    def is_local(self, conn_id: str) -> bool:
        """Return whether a stand-in serves as a connection; creates nothing."""
        if self.stand_ins is None or self.lookup(conn_id) is not None:
            return False
        return self.stand_ins.stands_in(conn_id)

    @property
    def is_drill(self) -> bool:
        """Whether these are the services of an incident drill."""
        return False

    def mail_is_caught(self) -> bool:
        """Say whether mail gets to nobody: files of the local profile, or of a stack's catcher."""
        spec = self.lookup("mail")
        return self.is_local("mail") or (spec is not None and spec.text("catcher") == "true")

    def connection(self, conn_id: str) -> ConnectionSpec:
        """Return the configured connection, or the local profile's.

        Raises:
            UsageError: there is neither.
        """
        spec = self.lookup(conn_id)
        if spec is None and self.stand_ins is not None:
            spec = self.stand_ins.connection(conn_id)
        if spec is None:
            why = (
                f"is off ({LOCAL_VARIABLE})" if self.stand_ins is None else "has none of that name"
            )
            raise UsageError(
                f"There is no connection {conn_id}, and the local profile {why}.",
                f"Set AIRFLOW_CONN_{conn_id.upper()} or add it in Airflow.",
            )
        return spec

    def database(self, conn_id: str) -> DatabaseAddress:
        """Return the address of a database connection."""
        return DatabaseAddress.from_connection(self.connection(conn_id))

    def _named_database(self, conn_id: str) -> DatabaseAddress:
        address = self.database(conn_id)
        if not address.name:
            raise UsageError(f"The connection {conn_id} names no database.")
        return address

    def role_database(self, conn_id: str, mapped: str) -> DatabaseAddress:
        """Return where a workflow works on a mapped database with just the rights that it needs.

        Args:
            conn_id: the workflow's connection: ``intake_db``, ``retention_db``, ``audit_db``.
            mapped: the database's own connection. Where only that one is configured, it serves;
                where neither is, the local profile's least-privilege role does.
        """
        if self.lookup(conn_id) is None and not self.is_local(mapped):
            return self.database(mapped)
        return self.database(conn_id)

    @contextmanager
    def staff(self, holder: MappedDatabase, login: str = "") -> Iterator[psycopg.Connection]:
        """Connect to the database of a staff table; the pack names tables there without schema.

        Args:
            holder: the database.
            login: a workflow's connection, for `role_database`; by default the database's own.
        """
        address = self.role_database(login or holder.connection, holder.connection)
        with address.connect(autocommit=True) as connection:
            path = [holder.schema_name]
            connection.execute("SELECT set_config('search_path', quote_ident(%s), false)", path)
            yield connection

    def store(self, conn_id: str) -> ObjectStore:
        """Open a store; one on a local database's own disk will say so in its preflight."""
        live = []
        if self.stand_ins is not None and self.is_local("customer_db"):
            live = self.stand_ins.data_folders
        return open_store(self.connection(conn_id), live)

    def connection_faults(self) -> list[str]:
        """Return what is wrong with connections, by reading them only: nothing is connected to.

        What the local profile stands in for is not looked at. Recipients come last: their keys are
        named by a connection that can be read.
        """
        mapped = {one.connection for one in self.pack.databases.values()}
        roles = self.pack.workflow_connections
        with_rights = {conn_id for conn_id in roles if self.lookup(conn_id) is not None}
        needs: list[tuple[str, Callable[[], object]]] = [
            (conn_id, partial(self._named_database, conn_id))
            for conn_id in [*sorted({*mapped, "state_db"}), *sorted(with_rights)]
        ]
        needs.append(("drill_db", partial(self.database, "drill_db")))
        if self.lookup("mail") is not None:
            needs.append(("mail", lambda: MailServer.from_connection(self.connection("mail"))))
        robots = {role.robot for role in self.pack.roles.values() if role.robot}
        needs += [
            (conn_id, partial(Robot.from_connection, self.connection(conn_id), self.clock))
            for conn_id in sorted(robots)
            if self.lookup(conn_id) is not None
        ]
        needs += [(conn_id, partial(self.store, conn_id)) for conn_id in STORES]
        needs += [
            ("evidence_store", lambda: self.trusted),
            ("state_db", lambda: self.erasure_keys),
            ("drill_db", self.drill_key),
        ]
        faults = []
        for conn_id, need in needs:
            try:
                if not self.is_local(conn_id):
                    need()
            except UsageError as error:
                faults.append(str(error))
        if not faults and self.lookup("offsite_store") is not None:
            faults = self._recipient_faults()
        faults += faults_of(self.routes())
        return list(dict.fromkeys(faults))

    def routes(self) -> list[Route]:
        """Return the routes to other machines that are not verified over TLS."""
        mapped = {one.connection for one in self.pack.databases.values()}
        databases = {*mapped, *self.pack.workflow_connections, "state_db", "pages_db", "drill_db"}
        return unverified_routes(self.lookup, databases, STORES)

    def _recipient_faults(self) -> list[str]:
        from include.encryption.recipients import faults_of_recipients

        try:
            usable, unusable = self.recipients()
        except UsageError as error:
            return [str(error)]
        return faults_of_recipients(usable, unusable, self.pack.backup.recipients.minimum)

    @cached_property
    def state(self) -> Engine:
        """The state database, at the newest revision.

        Raises:
            UsageError: migrations are pending (only the local profile migrates by itself).
        """
        from include.state.connect import engine
        from include.state.migrate import ensure_current, migrate

        if self.open_state is not None:
            return self.open_state
        made = engine(self.database("state_db").conninfo())
        if self.is_local("state_db"):
            migrate(made)
        ensure_current(made)
        return made

    @cached_property
    def signer(self) -> Signer:
        """The key that seals evidence."""
        return self._signer("evidence_store", "The key that seals evidence")

    @cached_property
    def manifest_signer(self) -> Signer | None:
        """The key that signs manifests of restore points; None if this process has none.

        Without a key of its own in the connection ``offsite_store`` it is the key that seals
        evidence.
        """
        if self.connection("offsite_store").text("signing_key"):
            return self._signer("offsite_store", "The key that signs manifests")
        return self.signer if self.connection("evidence_store").text("signing_key") else None

    def _signer(self, conn_id: str, what: str) -> Signer:
        from include.evidence.signing import Signer

        key = self._secret(conn_id, "signing_key", what)
        passphrase = self.connection(conn_id).text("signing_key_passphrase").encode()
        return Signer.from_pem(key, passphrase or None)

    @cached_property
    def trusted(self) -> list[bytes]:
        """Public keys whose signatures of evidence count: those named, and the signer's own."""
        spec = self.connection("evidence_store")
        named = [self._material("evidence_store", one) for one in listed(spec, "trusted_keys")]
        if named and not spec.text("signing_key"):
            return named  # a reader's workplace verifies and has no private key
        return [*named, *([self.signer.public_pem] if self.signer.public_pem not in named else [])]

    @cached_property
    def trusted_for_manifests(self) -> list[bytes]:
        """Public keys whose signatures of manifests count.

        Keys of manifests count for nothing else. Keys of evidence count for manifests too: they
        signed those of earlier versions.
        """
        spec = self.connection("offsite_store")
        named = [self._material("offsite_store", path) for path in listed(spec, "trusted_keys")]
        own = [self.manifest_signer.public_pem] if self.manifest_signer else []
        return list(dict.fromkeys([*named, *own, *self.trusted]))

    def recipients(self) -> tuple[list[Recipient], list[UnreadableRecipient]]:
        """Return to whose keys copies and evidence are encrypted, and who cannot be used."""
        from include.encryption.recipients import (
            UnreadableRecipient,
            recipient_from_kms,
            recipient_from_pem,
        )

        spec = self.connection("offsite_store")
        found: list[Recipient] = []
        unreadable: list[UnreadableRecipient] = []
        for number, one in enumerate(listed(spec, "recipients"), 1):
            given = one if isinstance(one, Mapping) else {"certificate": one}
            name = str(given.get("name") or f"recipient {number}")
            try:
                if arn := given.get("kms_key"):
                    found.append(recipient_from_kms(name, str(arn), self._kms()))
                else:
                    pem = self._material("offsite_store", str(given.get("certificate") or ""))
                    found.append(recipient_from_pem(name, pem))
            except UsageError as error:
                unreadable.append(UnreadableRecipient(name, error.message))
        return found, unreadable

    def registers(self) -> EvidenceReader:
        """Return what compares registers of the state database with the newest sealed bundles."""
        from include.evidence.registers import EvidenceReader

        workflows = {one.workflow for one in self.pack.controls}
        return EvidenceReader(self.store("evidence_store"), self.state, self.trusted, workflows)

    def require_complete_registers(self, *registers: Register) -> None:
        """Refuse to rely on registers that lack sealed rows: `EvidenceReader.require_complete`."""
        self.registers().require_complete(self.clock.now(), registers)

    @cached_property
    def erasure_keys(self) -> ErasureKeys:
        """The keys of the erasure ledger, of the connection state_db."""
        from include.erasure.ledger import ErasureKeys

        given = self.connection("state_db").extra.get("erasure_keys")
        if isinstance(given, str) and given:
            spec = self.connection("state_db")
            if not given.lstrip().startswith("{"):
                given = self._material("state_db", given).decode(errors="replace")
            given = json_of(spec, "erasure_keys", given)
        if not isinstance(given, Mapping):
            raise UsageError(
                "The connection state_db has no erasure keys.",
                'Set its extra: {"erasure_keys": {"current": "1", "keys": {"1": "..."}}}.',
            )
        named, current = given.get("keys"), str(given.get("current", ""))
        if not isinstance(named, Mapping) or current not in map(str, named):
            raise UsageError(
                "The erasure keys of the connection state_db name no current key.",
                'Write {"current": "1", "keys": {"1": "..."}}.',
            )
        return ErasureKeys({str(name): str(key).encode() for name, key in named.items()}, current)

    def drill_key(self) -> OpeningKey:
        """Return the private key that drills decrypt with, or its KMS key."""
        from include.encryption.recipients import KMS_KIND, OpeningKey, opening_key_from_pem

        spec = self.connection("drill_db")
        if arn := spec.text("kms_key"):
            return OpeningKey(KMS_KIND, arn, client=self._kms())
        pem = self._secret("drill_db", "private_key", "The drill's private key")
        return opening_key_from_pem(pem, "The private key of drill_db")

    @cached_property
    def code_version(self) -> str:
        """The git commit of this code, with ``+changes`` when files were changed since."""
        from include.services.revision import code_version

        return code_version(ROOT)

    def _kms(self) -> Any:
        from include.services.aws import kms_client

        return kms_client(self.connection("offsite_store"))

    def _secret(self, conn_id: str, key: str, what: str) -> bytes:
        given = self.connection(conn_id).text(key)
        if not given:
            raise UsageError(
                f"{what} is not configured.",
                f"Set `{key}` in the extra of the connection {conn_id}: PEM text or a file.",
            )
        return self._material(conn_id, given)

    def _material(self, conn_id: str, given: str) -> bytes:
        return material(conn_id, given, self.home)
