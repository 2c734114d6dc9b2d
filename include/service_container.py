"""The services of a command or a task: connections, policy pack, stores, keys, state database.

Only this module turns connections into services. It does not import the workflows or the local
profile. Instead, `include.composition` passes to it what they provide.
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
from include.services.connection_secrets import json_from_extra, list_from_extra, read_key_material
from include.services.connections import ConnectionSpec
from include.services.database import DatabaseAddress
from include.services.errors import UsageError
from include.services.mail import MailServer
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


class ReplacementConnections(Protocol):
    """The connections of the local profile, which are used if a connection is not configured."""

    @property
    def data_folders(self) -> list[Path]:
        """Return the data folders of the local databases.

        A store on the same disk as one of these folders is not off-site.
        """
        ...

    def has_replacement(self, conn_id: str) -> bool:
        """Return whether a connection has a replacement. The call creates no file and no server."""
        ...

    def connection(self, conn_id: str) -> ConnectionSpec | None:
        """Return the replacement of a connection, or None if the connection has none."""
        ...


def _no_restore_points(services: Services, database: str) -> list[StoredRestorePoint]:
    raise UsageError(f"These services list no restore points of {database}.")


@dataclass(frozen=True)
class Services:
    """The services of a run. Each service is created at its first use.

    Args:
        home: folder of the local profile.
        policy: folder of the policy pack.
        lookup: function that returns a configured connection by its id, or None if the connection
            is not configured.
        clock: source of the current time.
        load: function that reads the policy pack from its folder.
        replacements: connections of the local profile, used if a connection is not configured; None
            in production.
        open_state: engine of a migrated state database. If it is None, the connection ``state_db``
            is opened.
        list_restore_points: function that returns the restore points of a mapped database in the
            off-site store.
    """

    home: Path
    policy: Path
    lookup: Lookup
    clock: Clock = field(default_factory=SystemClock)
    _: KW_ONLY
    load: Callable[[Path], PolicyPack]
    replacements: ReplacementConnections | None = None
    open_state: Engine | None = None
    list_restore_points: Callable[[Services, str], list[StoredRestorePoint]] = _no_restore_points

    @cached_property
    def pack(self) -> PolicyPack:
        """The policy pack, read at the first use.

        Raises:
            PackError: the policy pack is invalid. The error lists every problem.
        """
        return self.load(self.policy)

    def is_local(self, conn_id: str) -> bool:
        """Return whether the local profile replaces a connection.

        The call creates no file and no server.
        """
        if self.replacements is None or self.lookup(conn_id) is not None:
            return False
        return self.replacements.has_replacement(conn_id)

    @property
    def is_drill(self) -> bool:
        """Whether these services belong to an incident drill."""
        return False

    def mail_is_caught(self) -> bool:
        """Return whether mail reaches no recipient.

        This is the case with the local profile or a mail catcher, which only store mail.
        """
        spec = self.lookup("mail")
        return self.is_local("mail") or (spec is not None and spec.text("catcher") == "true")

    def connection(self, conn_id: str) -> ConnectionSpec:
        """Return a connection as configured, or else its replacement from the local profile.

        Raises:
            UsageError: the connection is not configured and has no replacement.
        """
        spec = self.lookup(conn_id)
        if spec is None and self.replacements is not None:
            spec = self.replacements.connection(conn_id)
        if spec is None:
            reason = (
                f"is off ({LOCAL_VARIABLE})"
                if self.replacements is None
                else "has none of that name"
            )
            raise UsageError(
                f"There is no connection {conn_id}, and the local profile {reason}.",
                f"Set AIRFLOW_CONN_{conn_id.upper()} or add it in Airflow.",
            )
        return spec

    def database(self, conn_id: str) -> DatabaseAddress:
        """Return the address of the database to which a connection leads."""
        return DatabaseAddress.from_connection(self.connection(conn_id))

    def _named_database(self, conn_id: str) -> DatabaseAddress:
        address = self.database(conn_id)
        if not address.name:
            raise UsageError(f"The connection {conn_id} names no database.")
        return address

    def role_database(self, conn_id: str, mapped: str) -> DatabaseAddress:
        """Return the address of a mapped database with a workflow's least-privilege login.

        The connection ``conn_id`` is used if it is configured, or else the connection ``mapped``.
        If neither is configured, the local profile's role for the workflow is used.

        Args:
            conn_id: id of the connection with the workflow's login: ``intake_db``, ``retention_db``
                or ``audit_db``.
            mapped: id of the connection that the data map names for the database.
        """
        if self.lookup(conn_id) is None and not self.is_local(mapped):
            return self.database(mapped)
        return self.database(conn_id)

    @contextmanager
    def staff(self, holder: MappedDatabase, login: str = "") -> Iterator[psycopg.Connection]:
        """Yield a connection to the database that contains the staff tables.

        The policy pack names the staff tables without a schema. Therefore the search path of the
        connection is the schema of the mapped database.

        Args:
            holder: the mapped database that contains the staff tables.
            login: id of the connection with a workflow's login, as in `role_database`; by default
                the connection of the mapped database.
        """
        address = self.role_database(login or holder.connection, holder.connection)
        with address.connect(autocommit=True) as connection:
            path = [holder.schema_name]
            connection.execute("SELECT set_config('search_path', quote_ident(%s), false)", path)
            yield connection

    def store(self, conn_id: str) -> ObjectStore:
        """Return the store of a connection.

        If the store is on the same disk as a local database, the preflight of the store reports it.
        """
        data_folders = []
        if self.replacements is not None and self.is_local("customer_db"):
            data_folders = self.replacements.data_folders
        return open_store(self.connection(conn_id), data_folders)

    def connection_faults(self) -> list[str]:
        """Return the faults in the settings of connections, without opening a connection.

        Connections that the local profile replaces are skipped. The keys of the recipients, which
        the connection ``offsite_store`` names, are checked only if the other settings have no
        fault.
        """
        mapped = {database.connection for database in self.pack.databases.values()}
        roles = self.pack.workflow_connections
        role_connections = {conn_id for conn_id in roles if self.lookup(conn_id) is not None}
        checks: list[tuple[str, Callable[[], object]]] = [
            (conn_id, partial(self._named_database, conn_id))
            for conn_id in [*sorted({*mapped, "state_db"}), *sorted(role_connections)]
        ]
        checks.append(("drill_db", partial(self.database, "drill_db")))
        if self.lookup("mail") is not None:
            checks.append(("mail", lambda: MailServer.from_connection(self.connection("mail"))))
        robots = {role.robot for role in self.pack.roles.values() if role.robot}
        checks += [
            (conn_id, partial(Robot.from_connection, self.connection(conn_id), self.clock))
            for conn_id in sorted(robots)
            if self.lookup(conn_id) is not None
        ]
        checks += [(conn_id, partial(self.store, conn_id)) for conn_id in STORES]
        checks += [
            ("evidence_store", lambda: self.trusted),
            ("state_db", lambda: self.erasure_keys),
            ("drill_db", self.drill_key),
        ]
        faults = []
        for conn_id, check in checks:
            try:
                if not self.is_local(conn_id):
                    check()
            except UsageError as error:
                faults.append(str(error))
        if not faults and self.lookup("offsite_store") is not None:
            faults = self._recipient_faults()
        faults += faults_of(self.routes())
        return list(dict.fromkeys(faults))

    def routes(self) -> list[Route]:
        """Return the network routes that leave this machine without verified TLS.

        They lead to databases, stores or a KMS. The configured connections are read, but not
        opened.
        """
        mapped = {database.connection for database in self.pack.databases.values()}
        databases = {*mapped, *self.pack.workflow_connections, "state_db", "pages_db", "drill_db"}
        return unverified_routes(self.lookup, databases, STORES)

    def _recipient_faults(self) -> list[str]:
        from include.encryption.recipients import recipient_faults

        try:
            usable, unusable = self.recipients()
        except UsageError as error:
            return [str(error)]
        return recipient_faults(usable, unusable, self.pack.backup.recipients.minimum)

    @cached_property
    def state(self) -> Engine:
        """An engine of the state database at the newest revision.

        Raises:
            UsageError: the state database needs a migration. Only the local profile migrates it
                automatically.
        """
        from include.state.connect import engine
        from include.state.migrate import ensure_current, migrate

        if self.open_state is not None:
            return self.open_state
        state = engine(self.database("state_db").conninfo())
        if self.is_local("state_db"):
            migrate(state)
        ensure_current(state)
        return state

    @cached_property
    def signer(self) -> Signer:
        """The private key that signs evidence bundles."""
        return self._signer("evidence_store", "The key that seals evidence")

    @cached_property
    def manifest_signer(self) -> Signer | None:
        """The private key that signs manifests of restore points; None if this process has none.

        If the connection ``offsite_store`` names a separate key, that key is used. Otherwise it is
        the key that signs evidence bundles.
        """
        if self.connection("offsite_store").text("signing_key"):
            return self._signer("offsite_store", "The key that signs manifests")
        return self.signer if self.connection("evidence_store").text("signing_key") else None

    def _signer(self, conn_id: str, purpose: str) -> Signer:
        from include.evidence.signing import Signer

        key = self._secret(conn_id, "signing_key", purpose)
        passphrase = self.connection(conn_id).text("signing_key_passphrase").encode()
        return Signer.from_pem(key, passphrase or None)

    @cached_property
    def trusted(self) -> list[bytes]:
        """The public keys (PEM) whose signatures of evidence bundles are accepted.

        They are the trusted keys of the connection ``evidence_store``, and the public key of
        `signer`. If the connection has trusted keys and no signing key, the process only verifies
        evidence, and only the trusted keys are used.
        """
        spec = self.connection("evidence_store")
        keys = [
            self._material("evidence_store", path) for path in list_from_extra(spec, "trusted_keys")
        ]
        if keys and not spec.text("signing_key"):
            return keys  # a process that only verifies evidence has no private key
        return [*keys, *([self.signer.public_pem] if self.signer.public_pem not in keys else [])]

    @cached_property
    def trusted_for_manifests(self) -> list[bytes]:
        """The public keys (PEM) whose signatures of restore point manifests are accepted.

        They are the keys for manifests and the keys for evidence bundles, because earlier versions
        of ParcelSeal signed manifests with the keys for evidence bundles. Signatures of evidence
        bundles with a key for manifests are not accepted.
        """
        spec = self.connection("offsite_store")
        keys = [
            self._material("offsite_store", path) for path in list_from_extra(spec, "trusted_keys")
        ]
        own_key = [self.manifest_signer.public_pem] if self.manifest_signer else []
        return list(dict.fromkeys([*keys, *own_key, *self.trusted]))

    def recipients(self) -> tuple[list[Recipient], list[UnreadableRecipient]]:
        """Return the recipients whose keys can decrypt restore points and evidence extracts.

        Returns:
            The usable recipients, and the recipients whose key cannot be read.
        """
        from include.encryption.recipients import (
            UnreadableRecipient,
            recipient_from_kms,
            recipient_from_pem,
        )

        spec = self.connection("offsite_store")
        recipients: list[Recipient] = []
        unreadable: list[UnreadableRecipient] = []
        for number, entry in enumerate(list_from_extra(spec, "recipients"), 1):
            settings = entry if isinstance(entry, Mapping) else {"certificate": entry}
            name = str(settings.get("name") or f"recipient {number}")
            try:
                if arn := settings.get("kms_key"):
                    recipients.append(recipient_from_kms(name, str(arn), self._kms()))
                else:
                    pem = self._material("offsite_store", str(settings.get("certificate") or ""))
                    recipients.append(recipient_from_pem(name, pem))
            except UsageError as error:
                unreadable.append(UnreadableRecipient(name, error.message))
        return recipients, unreadable

    def registers(self) -> EvidenceReader:
        """Return the object that compares registers of the state database with sealed bundles."""
        from include.evidence.registers import EvidenceReader

        workflows = {control.workflow for control in self.pack.controls}
        return EvidenceReader(self.store("evidence_store"), self.state, self.trusted, workflows)

    def require_complete_registers(self, *registers: Register) -> None:
        """Raise ControlFailed if a register lacks rows that a sealed evidence bundle counted.

        See `EvidenceReader.require_complete`.

        Args:
            registers: registers to check. Without this argument, all registers are checked.
        """
        self.registers().require_complete(self.clock.now(), registers)

    @cached_property
    def erasure_keys(self) -> ErasureKeys:
        """The HMAC keys of the erasure ledger, from the connection ``state_db``."""
        from include.erasure.ledger import ErasureKeys

        setting = self.connection("state_db").extra.get("erasure_keys")
        if isinstance(setting, str) and setting:
            spec = self.connection("state_db")
            if not setting.lstrip().startswith("{"):
                setting = self._material("state_db", setting).decode(errors="replace")
            setting = json_from_extra(spec, "erasure_keys", setting)
        if not isinstance(setting, Mapping):
            raise UsageError(
                "The connection state_db has no erasure keys.",
                'Set its extra: {"erasure_keys": {"current": "1", "keys": {"1": "..."}}}.',
            )
        keys, current = setting.get("keys"), str(setting.get("current", ""))
        if not isinstance(keys, Mapping) or current not in map(str, keys):
            raise UsageError(
                "The erasure keys of the connection state_db name no current key.",
                'Write {"current": "1", "keys": {"1": "..."}}.',
            )
        return ErasureKeys({str(name): str(key).encode() for name, key in keys.items()}, current)

    def drill_key(self) -> OpeningKey:
        """Return the private key or KMS key with which restore drills decrypt restore points."""
        from include.encryption.recipients import KMS_KIND, OpeningKey, opening_key_from_pem

        spec = self.connection("drill_db")
        if arn := spec.text("kms_key"):
            return OpeningKey(KMS_KIND, arn, client=self._kms())
        pem = self._secret("drill_db", "private_key", "The drill's private key")
        return opening_key_from_pem(pem, "The private key of drill_db")

    @cached_property
    def code_version(self) -> str:
        """The git commit of this code, followed by ``+changes`` if files differ from the commit."""
        from include.services.revision import code_version

        return code_version(ROOT)

    def _kms(self) -> Any:
        from include.services.aws import kms_client

        return kms_client(self.connection("offsite_store"))

    def _secret(self, conn_id: str, key: str, purpose: str) -> bytes:
        setting = self.connection(conn_id).text(key)
        if not setting:
            raise UsageError(
                f"{purpose} is not configured.",
                f"Set `{key}` in the extra of the connection {conn_id}: PEM text or a file.",
            )
        return self._material(conn_id, setting)

    def _material(self, conn_id: str, text_or_path: str) -> bytes:
        return read_key_material(conn_id, text_or_path, self.home)
