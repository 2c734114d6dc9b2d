"""The local profile: what stands in for every connection that nobody configured.

Everything lies under one home folder: an embedded PostgreSQL, two directory stores and generated
keys. It is honest about itself: a directory on the same disk is not off-site, and reports say so.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import psycopg

from include.local.mail import LocalMail
from include.local.postgres import SYSTEM_USER, EmbeddedPostgres
from include.local.roles import (
    COURIER,
    COURIER_OWNER,
    courier_roles,
    grant_courier,
    let_in,
    make_databases,
    make_roles,
    sample_logins,
)
from include.services.connections import ConnectionSpec
from include.services.whole_file import write_whole

RECIPIENTS = ("operations", "escrow", "drill")
STATE = "parcelseal_state"
# Not the logins of workflows, which have a stand-in only where customer_db has one, and not
# pages_db, which has one only where state_db has one.
STAND_INS = ("customer_db", "state_db", "drill_db", "offsite_store", "evidence_store")
AIRFLOW, AIRFLOW_RUNS = "airflow", "airflow_runs"
DATABASES = {
    AIRFLOW: "airflow",
    AIRFLOW_RUNS: "airflow",
    STATE: "parcelseal_state",
    COURIER: COURIER_OWNER,
}


def server_roles() -> dict[str, str]:
    """Return by role what it may do on the whole server; each has a password of its own."""
    own = {
        "airflow": "",
        "parcelseal_state": "",
        "parcelseal_pages": "",
        "parcelseal_drill": "CREATEDB",
    }
    return {**own, **courier_roles()}


@dataclass(frozen=True)
class LocalProfile:
    """The local stack of one home folder.

    Args:
        home: ``PARCELSEAL_HOME``.
    """

    home: Path

    @cached_property
    def postgres(self) -> EmbeddedPostgres:
        """The embedded server."""
        return EmbeddedPostgres(self.home / "postgres")

    @cached_property
    def mail(self) -> LocalMail:
        """The local mail server."""
        return LocalMail(self.home / "mail")

    def prepare(self, now: datetime, tell: Callable[[str], None]) -> None:
        """Start the server and create whatever is missing; safe to repeat and to interrupt.

        Args:
            now: for the validity of generated certificates.
            tell: is told each longer step.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        for store in ("offsite", "evidence"):
            (self.home / store).mkdir(exist_ok=True)
        self._make_keys(now, tell)
        if not self.postgres.data.exists():
            tell("creating the embedded PostgreSQL 18")
            if os.geteuid() == 0:
                tell(
                    f"it runs as the system user {SYSTEM_USER}, since it refuses to run as root; "
                    "folders above it are made passable (not listable) for that user"
                )
        self.postgres.start()
        with psycopg.connect(self.postgres.conninfo("postgres"), autocommit=True) as admin:
            # Two commands at once would change the same rows of the catalogue.
            admin.execute("SELECT pg_advisory_lock(hashtext('parcelseal local profile'))")
            make_roles(admin, server_roles(), self.passwords)
            make_databases(admin, DATABASES)
            grant_courier(admin)
            let_in(admin, STATE, ["parcelseal_pages"])

    @property
    def data_folders(self) -> list[Path]:
        """Return the folders of the databases."""
        return [self.postgres.data]

    def connection(self, conn_id: str) -> ConnectionSpec | None:
        """Return what stands in for a connection; None for one that has no stand-in."""
        maker = self._makers.get(conn_id)
        return maker() if maker else None

    def stands_in(self, conn_id: str) -> bool:
        """Say whether there is a stand-in for a connection, and make nothing for it."""
        if conn_id == "mail":  # only while its server runs
            return self.mail.connection() is not None
        return conn_id in self._makers

    @property
    def _makers(self) -> dict[str, Callable[[], ConnectionSpec | None]]:
        sample = {
            conn_id: partial(self._database, conn_id, COURIER, role)
            for conn_id, role in sample_logins().items()
        }
        return {
            **sample,
            "state_db": self._state,
            "pages_db": lambda: self._database("pages_db", STATE, "parcelseal_pages"),
            "drill_db": self._drill,
            "offsite_store": self._offsite,
            "evidence_store": self._evidence,
            "mail": self.mail.connection,
        }

    def owner_conninfo(self, database: str) -> str:
        """Return a connection string as the owner of one of the profile's databases."""
        role = DATABASES[database]
        return self.postgres.conninfo(database, role, self.passwords[role])

    def sqlalchemy_url(self, database: str, driver: str = "postgresql+psycopg2") -> str:
        """Return the URL that Airflow wants for its own database."""
        from sqlalchemy.engine import URL

        role = DATABASES[database]
        return URL.create(
            driver,
            username=role,
            password=self.passwords[role],
            database=database,
            query={"host": str(self.postgres.socket_folder)},
        ).render_as_string(hide_password=False)

    @cached_property
    def passwords(self) -> dict[str, str]:
        """The roles' passwords and other secrets, made once and kept in a file for us alone."""
        path = self.home / "secrets.json"
        kept: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        names = [*server_roles(), "erasure_key", "airflow_jwt", "airflow_fernet"]
        fresh = {name: secrets.token_urlsafe(32) for name in names if name not in kept}
        if fresh:
            write_whole(path, json.dumps({**kept, **fresh}, indent=1).encode())
        return {**kept, **fresh}

    def key_file(self, name: str) -> Path:
        """Return the private key of a generated pair."""
        return self.home / "keys" / f"{name}.key"

    def certificate_file(self, name: str) -> Path:
        """Return the certificate of a generated pair."""
        return self.home / "keys" / f"{name}.crt"

    def _make_keys(self, now: datetime, tell: Callable[[str], None]) -> None:
        from include.encryption.recipients import new_pair
        from include.evidence.signing import Signer, generate_key

        (self.home / "keys").mkdir(exist_ok=True)
        missing = [name for name in RECIPIENTS if not self.certificate_file(name).exists()]
        if missing:
            tell(f"creating keys: {', '.join(missing)} and the evidence seal")
        for name in missing:
            private, certificate = new_pair(name, now)
            write_whole(self.key_file(name), private)
            write_whole(self.certificate_file(name), certificate)
        seal = self.home / "keys" / "evidence.key"
        if not seal.exists():
            write_whole(seal, generate_key())
        public = self.home / "keys" / "evidence.pub"
        if not public.exists():
            write_whole(public, Signer.from_pem(seal.read_bytes()).public_pem)

    def _database(
        self, conn_id: str, database: str, role: str, extra: dict[str, Any] | None = None
    ) -> ConnectionSpec:
        return ConnectionSpec(
            conn_id=conn_id,
            conn_type="postgres",
            host=str(self.postgres.socket_folder),
            login=role,
            password=self.passwords[role],
            schema=database,
            extra=extra or {},
        )

    def _state(self) -> ConnectionSpec:
        keys = {"current": "local-1", "keys": {"local-1": self.passwords["erasure_key"]}}
        return self._database("state_db", STATE, "parcelseal_state", {"erasure_keys": keys})

    def _drill(self) -> ConnectionSpec:
        extra = {"private_key": str(self.key_file("drill"))}
        return self._database("drill_db", "postgres", "parcelseal_drill", extra)

    def _offsite(self) -> ConnectionSpec:
        recipients = [
            {"name": name, "certificate": str(self.certificate_file(name))} for name in RECIPIENTS
        ]
        extra = {"path": str(self.home / "offsite"), "recipients": recipients}
        return ConnectionSpec("offsite_store", "fs", extra=extra)

    def _evidence(self) -> ConnectionSpec:
        keys = self.home / "keys"
        extra = {
            "path": str(self.home / "evidence"),
            "signing_key": str(keys / "evidence.key"),
            "trusted_keys": [str(keys / "evidence.pub")],
        }
        return ConnectionSpec("evidence_store", "fs", extra=extra)
