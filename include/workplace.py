"""What a command or a task works with: connections, policy pack, stores, keys, state.

The one place where connections become services. Domain code is handed the services and knows
neither connections nor environment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.local.profile import LocalProfile
from include.policy import SHIPPED, PolicyPack
from include.policy.kept import kept_pack
from include.services.clock import Clock, SystemClock
from include.services.connections import ConnectionSpec, configured
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
    from sqlalchemy import Engine

    from include.backup.drill import DrillPlace
    from include.backup.offsite import Offsite
    from include.encryption.recipients import OpeningKey, Recipient, UnreadableRecipient
    from include.erasure.ledger import ErasureKeys
    from include.evidence.register_figures import Register
    from include.evidence.registers import EvidenceReader
    from include.evidence.signing import Signer
    from include.retention.desk import Desk

ROOT = Path(__file__).resolve().parent.parent
STORES = ("offsite_store", "evidence_store")
HOME_VARIABLE, POLICY_VARIABLE = "PARCELSEAL_HOME", "PARCELSEAL_POLICY"
LOCAL_VARIABLE, OFF = "PARCELSEAL_LOCAL_PROFILE", "off"  # in production nothing stands in
READERS = 8  # connections that a server of pages keeps to the state database

Lookup = Callable[[str], ConnectionSpec | None]


@dataclass(frozen=True)
class Workplace:
    """Everything a run needs, made when it is first asked for.

    Args:
        home: folder of the local profile.
        policy: folder of the policy pack.
        lookup: finds a configured connection, None when it is not configured.
        clock: the time.
        stand_ins: whether the local profile stands in for connections that nobody configured.
    """

    home: Path
    policy: Path
    lookup: Lookup
    clock: Clock = field(default_factory=SystemClock)
    stand_ins: bool = field(default=True, kw_only=True)

    @classmethod
    def from_environment(
        cls, environment: Mapping[str, str], lookup: Lookup | None = None
    ) -> Workplace:
        """Make the workplace that an environment describes."""
        home = Path(environment.get(HOME_VARIABLE) or ROOT / ".parcelseal").expanduser()
        policy = Path(environment.get(POLICY_VARIABLE) or SHIPPED).expanduser()
        return cls(
            home.absolute(),
            policy.absolute(),
            lookup or (lambda conn_id: configured(conn_id, environment)),
            stand_ins=environment.get(LOCAL_VARIABLE, "").strip().lower() != OFF,
        )

    @cached_property
    def pack(self) -> PolicyPack:
        """The policy pack; raises PackError with every fault of a bad one."""
        return kept_pack(self.policy)

    @cached_property
    def local(self) -> LocalProfile:
        """The local profile of this home."""
        return LocalProfile(self.home)

    def is_local(self, conn_id: str) -> bool:
        """Say whether the local profile stands in for a connection; nothing is made for it."""
        return self.stand_ins and self.lookup(conn_id) is None and self.local.stands_in(conn_id)

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
        if spec is None and self.stand_ins:
            spec = self.local.connection(conn_id)
        if spec is None:
            why = "has none of that name" if self.stand_ins else f"is off ({LOCAL_VARIABLE})"
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

    def store(self, conn_id: str) -> ObjectStore:
        """Open a store; one on a local database's own disk will say so in its preflight."""
        live = [self.local.postgres.data] if self.is_local("customer_db") else []
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

        made = engine(self.database("state_db").conninfo())
        if self.is_local("state_db"):
            migrate(made)
        ensure_current(made)
        return made

    @cached_property
    def reader(self) -> Engine:
        """The state database for pages, as one who only reads: the connection pages_db.

        Raises:
            UsageError: migrations are pending (only the local profile migrates by itself).
        """
        from include.state.connect import reading_engine
        from include.state.migrate import ensure_current
        from include.state.reading import grant_pages

        address = self.role_database("pages_db", "state_db")
        if self.is_local("pages_db") and self.is_local("state_db"):
            with self.state.begin() as conn:
                grant_pages(conn, self.connection("pages_db").login)
        made = reading_engine(address.conninfo(), READERS)
        ensure_current(made)
        return made

    @cached_property
    def signer(self) -> Signer:
        """The key that seals evidence and signs manifests."""
        from include.evidence.signing import Signer

        key = self._secret("evidence_store", "signing_key", "The key that seals evidence")
        passphrase = self.connection("evidence_store").text("signing_key_passphrase").encode()
        return Signer.from_pem(key, passphrase or None)

    @cached_property
    def trusted(self) -> list[bytes]:
        """Public keys whose signatures count: those named, and the signer's own."""
        spec = self.connection("evidence_store")
        named = [self._material("evidence_store", one) for one in listed(spec, "trusted_keys")]
        if named and not spec.text("signing_key"):
            return named  # a reader's workplace verifies and has no private key
        return [*named, *([self.signer.public_pem] if self.signer.public_pem not in named else [])]

    def offsite(self) -> Offsite:
        """Return the off-site store with its recipients and signer."""
        from include.backup.offsite import Offsite

        recipients, unreadable = self.recipients()
        return Offsite(
            self.store("offsite_store"), recipients, unreadable, self.signer, self.trusted
        )

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

    def retention_desk(
        self, database: str, run: tuple[str, str] = ("", ""), starter: str | None = None
    ) -> Desk:
        """Return what the steps of `enforce_retention` work with.

        Args:
            database: of the data map.
            run: dag id and run id; nothing of a preview is remembered, and it has none.
            starter: user id of who started the run; None when its schedule did.
        """
        from include.retention.desk import Desk

        pack = self.pack
        mapped, staff = pack.database(database), pack.disposition.approval.staff
        holder = pack.database_of(staff.collection, staff.database) if staff else None
        return Desk(
            database=mapped,
            rules=pack.retention_of(database),
            disposition=pack.disposition,
            timezone=pack.calendar.timezone,
            reader=self.database(mapped.connection),
            writer=self.role_database(pack.disposition.connection, mapped.connection),
            staff=(holder, self.database(holder.connection)) if holder else None,
            state=self.state,
            keys=self.erasure_keys,
            clock=self.clock,
            dag_id=run[0],
            run_id=run[1],
            starter=starter,
        )

    def drill_place(self) -> DrillPlace:
        """Return where drills restore, with the names that they must not touch."""
        from include.backup.drill import DrillPlace
        from include.erasure.replay import schedule_of

        live = {self.database(one.connection).name for one in self.pack.databases.values()}
        schedules = {
            name: schedule_of(one, self.pack.retention_of(name))
            for name, one in self.pack.databases.items()
        }
        return DrillPlace(self.database("drill_db"), live, self.state, self.erasure_keys, schedules)

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
        from include.services.kms import kms_client

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
