"""The local profile: local services that replace connections that are not configured.

A home folder contains an embedded PostgreSQL, a directory as off-site store, a directory as
evidence store, and generated keys. Reports state that a directory on the disk of the databases is
not off-site.
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
    create_databases,
    create_roles,
    grant_connect,
    grant_courier,
    sample_logins,
)
from include.services.connections import ConnectionSpec
from include.services.whole_file import write_atomically

RECIPIENTS = ("operations", "escrow", "drill")
STATE = "parcelseal_state"
# Without workflows' logins, pages_db and extract_store: logins are replaced only if customer_db is
# replaced, and the others only if state_db is replaced.
STAND_INS = ("customer_db", "state_db", "drill_db", "offsite_store", "evidence_store")
AIRFLOW, AIRFLOW_RUNS = "airflow", "airflow_runs"
DATABASES = {
    AIRFLOW: "airflow",
    AIRFLOW_RUNS: "airflow",
    STATE: "parcelseal_state",
    COURIER: COURIER_OWNER,
}

_OTHER_SECRETS = ("erasure_key", "extract_passwords", "airflow_jwt", "airflow_fernet")


def server_roles() -> dict[str, str]:
    """Return the database roles of the local server: role -> attributes, such as ``CREATEDB``."""
    roles = {
        "airflow": "",
        "parcelseal_state": "",
        "parcelseal_pages": "",
        "parcelseal_drill": "CREATEDB",
    }
    return {**roles, **courier_roles()}


@dataclass(frozen=True)
class LocalProfile:
    """The local services of a home folder.

    Args:
        home: the home folder, ``PARCELSEAL_HOME``.
    """

    home: Path

    @cached_property
    def postgres(self) -> EmbeddedPostgres:
        """The embedded PostgreSQL server."""
        return EmbeddedPostgres(self.home / "postgres")

    @cached_property
    def mail(self) -> LocalMail:
        """The local mail server."""
        return LocalMail(self.home / "mail")

    def prepare(self, now: datetime, report: Callable[[str], None]) -> None:
        """Start the PostgreSQL server and create all missing folders, keys, roles and databases.

        If a call is interrupted, a second call completes the work.

        Args:
            now: time from which generated certificates are valid.
            report: function that is called with a message before each longer step.
        """
        self.home.mkdir(parents=True, exist_ok=True)
        for store in ("offsite", "evidence", "extracts"):
            (self.home / store).mkdir(exist_ok=True)
        self._make_keys(now, report)
        if not self.postgres.data.exists():
            report("creating the embedded PostgreSQL 18")
            if os.geteuid() == 0:
                report(
                    f"it runs as the system user {SYSTEM_USER}, since it refuses to run as root; "
                    "folders above it are made passable (not listable) for that user"
                )
        self.postgres.start()
        with psycopg.connect(self.postgres.conninfo("postgres"), autocommit=True) as admin:
            # Concurrent commands would change the same rows of the system catalogue.
            admin.execute("SELECT pg_advisory_lock(hashtext('parcelseal local profile'))")
            create_roles(admin, server_roles(), self.passwords)
            create_databases(admin, DATABASES)
            grant_courier(admin)
            grant_connect(admin, STATE, ["parcelseal_pages"])

    @property
    def data_folders(self) -> list[Path]:
        """The data folders of the local databases."""
        return [self.postgres.data]

    def connection(self, conn_id: str) -> ConnectionSpec | None:
        """Return the local replacement of a connection, or None if the local profile has none.

        Args:
            conn_id: id of the connection.
        """
        maker = self._makers.get(conn_id)
        return maker() if maker else None

    def has_replacement(self, conn_id: str) -> bool:
        """Return whether the local profile can replace a connection. The call creates no files.

        The connection ``mail`` can be replaced only while the local mail server runs.

        Args:
            conn_id: id of the connection.
        """
        if conn_id == "mail":  # only while the mail server runs
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
            "extract_store": self._extracts,
            "mail": self.mail.connection,
        }

    def owner_conninfo(self, database: str) -> str:
        """Return a libpq connection string for a local database with its owner's login."""
        role = DATABASES[database]
        return self.postgres.conninfo(database, role, self.passwords[role])

    def sqlalchemy_url(self, database: str, driver: str = "postgresql+psycopg2") -> str:
        """Return the SQLAlchemy URL of a local database with the owner's login.

        Airflow uses this URL.

        Args:
            database: name of the database.
            driver: scheme of the URL, which names the database driver.
        """
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
        """The passwords of database roles, and other secrets, by name.

        They are generated once and stored in a file that only the current user can read.
        """
        path = self.home / "secrets.json"
        stored: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        names = [*server_roles(), *_OTHER_SECRETS]
        generated = {name: secrets.token_urlsafe(32) for name in names if name not in stored}
        if generated:
            write_atomically(path, json.dumps({**stored, **generated}, indent=1).encode())
        return {**stored, **generated}

    def key_file(self, name: str) -> Path:
        """Return the path of a generated private key.

        Args:
            name: name of the key, without a suffix.
        """
        return self.home / "keys" / f"{name}.key"

    def certificate_file(self, name: str) -> Path:
        """Return the path of the certificate of a generated key.

        Args:
            name: name of the key, without a suffix.
        """
        return self.home / "keys" / f"{name}.crt"

    def _make_keys(self, now: datetime, report: Callable[[str], None]) -> None:
        from include.encryption.recipients import new_pair
        from include.evidence.signing import Signer, generate_key

        (self.home / "keys").mkdir(exist_ok=True)
        missing = [name for name in RECIPIENTS if not self.certificate_file(name).exists()]
        if missing:
            report(f"creating keys: {', '.join(missing)} and the evidence seal")
        for name in missing:
            private, certificate = new_pair(name, now)
            write_atomically(self.key_file(name), private)
            write_atomically(self.certificate_file(name), certificate)
        seal = self.home / "keys" / "evidence.key"
        if not seal.exists():
            write_atomically(seal, generate_key())
        public = self.home / "keys" / "evidence.pub"
        if not public.exists():
            write_atomically(public, Signer.from_pem(seal.read_bytes()).public_pem)

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

    def _extracts(self) -> ConnectionSpec:
        extra = {
            "path": str(self.home / "extracts"),
            "password_key": self.passwords["extract_passwords"],
        }
        return ConnectionSpec("extract_store", "fs", extra=extra)
