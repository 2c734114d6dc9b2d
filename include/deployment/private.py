"""The private folder of a deployment and its ``.env``: keys, passwords, connections, settings.

Existing files are never written again, except the connections of each zone, which follow from
`connections.json`. So `compose init` may be repeated at any time: after an upgrade it adds what the
new version needs. ``.env`` beside `docker-compose.yaml` holds no secret.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from include.deployment import layout
from include.deployment.authority import authority_of, new_authority_key, new_server
from include.deployment.connections import connections, pages_connections, url
from include.deployment.zones import (
    ZONES,
    connections_of,
    without_logins_of_replaced_stores,
    without_overrides,
)
from include.encryption.recipients import belong_together, certificate_of, new_key
from include.evidence.signing import Signer, generate_key
from include.policy import PolicyPack
from include.registry import load_pack
from include.services.errors import UsageError
from include.services.whole_file import write_whole

DOTENV = ".env"
REVISION = "PARCELSEAL_REVISION"  # of the code that images are built of; evidence names it
CONTAINER_USER = (
    10001  # of containers, where `compose init` runs as root; else they run as who ran it
)


def new_settings(private: str, *, sample: bool) -> dict[str, str]:
    """Return the settings of a new deployment.

    Args:
        private: the private folder, as Compose finds it from its own.
        sample: whether the sample customer database is part of the stack.
    """
    uid, gid = container_user()
    return {
        "PARCELSEAL_UID": str(uid),
        "PARCELSEAL_GID": str(gid),
        "PARCELSEAL_PRIVATE": private,
        "PARCELSEAL_TAG": "latest",
        "COMPOSE_PROFILES": "sample" if sample else "",
    }


def container_user() -> tuple[int, int]:
    """Return user and group that containers run as: never root."""
    uid, gid = os.geteuid(), os.getegid()
    return (uid, gid) if uid else (CONTAINER_USER, CONTAINER_USER)


def add_settings(path: Path, settings: Mapping[str, str]) -> list[str]:
    """Add settings that a file lacks; existing settings stay as they are.

    Returns:
        Names of what was added.

    Raises:
        UsageError: the file cannot be read or written.
    """
    try:
        there = path.read_text(encoding="utf-8") if path.exists() else ""
        kept = {
            line.partition("=")[0].strip()
            for line in there.splitlines()
            if "=" in line and not line.lstrip().startswith("#")
        }
        missing = {key: value for key, value in settings.items() if key not in kept}
        if missing:
            lines = [f"{key}={value}\n" for key, value in missing.items()]
            gap = "" if not there or there.endswith("\n") else "\n"
            path.touch(mode=0o600)
            path.write_text(there + gap + "".join(lines), encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise UsageError(f"{path} cannot be used: {reason}.") from None
    return list(missing)


def set_setting(path: Path, name: str, value: str) -> bool:
    """Set a setting that follows the code; return whether it changed.

    Raises:
        UsageError: the file cannot be read or written.
    """
    if add_settings(path, {name: value}):
        return True
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    changed = [
        f"{name}={value}\n" if line.partition("=")[0].strip() == name else line for line in lines
    ]
    if changed != lines:
        path.write_text("".join(changed), encoding="utf-8")
    return changed != lines


def read_settings(path: Path) -> dict[str, str]:
    """Return the settings of a file, as Compose reads plain ones."""
    pairs = (line.partition("=") for line in path.read_text(encoding="utf-8").splitlines())
    return {key.strip(): value.strip() for key, sign, value in pairs if sign and key[:1] != "#"}


ADMIN = {"id": "admin", "name": "Administrator", "mail": "admin@courier.example"}
CONNECTIONS, PAGES_CONNECTIONS = "connections.json", "connections_pages.json"
ALL_CONNECTIONS = "connections_all.json"  # without those of single queues
USERS, PASSWORDS, ROLE_PASSWORDS = "users.json", "passwords.json", "role_passwords.json"
OFFLINE = "offline"  # folder of keys that leave this machine
POLICY = "policy"
_PACK = Path(__file__).parent / "pack"  # of the stack's own databases
# Two of each department of the sample courier that workflows ask, and an auditor from outside.
SAMPLE_PEOPLE = Path(__file__).parent / "sample_people.json"


@dataclass
class PrivateFolder:
    """The files that `compose init` writes.

    Args:
        folder: of the deployment, for its owner alone.
        now: from when certificates are valid.
        sample: whether the sample customer database is part of the stack.
        shipped: the shipped policy pack, which describes the sample.
    """

    folder: Path
    now: datetime
    sample: bool
    shipped: Path
    made: list[str] = field(default_factory=list)

    def write(self) -> list[str]:
        """Make the missing files.

        Returns:
            Names of what was made, relative to the folder; empty when all was there.

        Raises:
            UsageError: the folder cannot be written, or half of a pair is gone.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.folder / OFFLINE).mkdir(mode=0o700, exist_ok=True)
            self._passwords()
            self._certificates()
            self._keys()
            self._urls()
            self._policy()
            self._connections()
            self._people()
        except OSError as error:
            raise UsageError(
                f"{error.filename or self.folder} cannot be written: {error.strerror}.",
                "Run it as who owns the folder.",
            ) from None
        return self.made

    def text(self, name: str) -> str:
        """Return a secret that was made."""
        return (self.folder / name).read_text(encoding="utf-8")

    def _passwords(self) -> None:
        for host in layout.ROLES:
            self._keep(f"{host}_superuser", _password)
        for name in ("redis_password", "jwt_secret", "api_secret_key"):
            self._keep(name, _password)
        self._keep("fernet_key", lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)))
        for user in (*layout.BUCKETS, layout.READER, layout.WRITER):
            self._keep(f"store_{user}_access", lambda: secrets.token_hex(10).upper().encode())
            self._keep(f"store_{user}_secret", _password)
        erasure = {"current": "1", "keys": {"1": secrets.token_urlsafe(32)}}
        self._keep("erasure_keys", _json(erasure))
        roles = [role for host in layout.ROLES.values() for role in host]
        self._add_missing(ROLE_PASSWORDS, {role: secrets.token_urlsafe(32) for role in roles})

    def _certificates(self) -> None:
        self._pair(
            "authority.key",
            "ca_certificate",
            new_authority_key,
            lambda key: authority_of(key, self.now),
        )
        for host in layout.SERVERS:
            if (self.folder / f"{host}_certificate").exists():
                continue
            authority_key = (self.folder / "authority.key").read_bytes()
            authority = (self.folder / "ca_certificate").read_bytes()
            key, certificate = new_server(host, authority_key, authority, self.now)
            if host in layout.JOINED:
                self._keep(f"{host}_certificate", certificate + key)
            else:
                (self.folder / f"{host}_key").unlink(missing_ok=True)  # of another certificate
                self._keep(f"{host}_key", key)
                self._keep(f"{host}_certificate", certificate)

    def _keys(self) -> None:
        for name in layout.RECIPIENTS:
            private = f"{name}.key" if name == "drill" else f"{OFFLINE}/{name}.key"
            self._recipient(name, private)
        for name in ("evidence", "manifest"):
            self._pair(f"{name}.key", f"{name}.pub", generate_key, _signing_public)

    def _recipient(self, name: str, private: str) -> None:
        """A pair whose private half may have left long ago: the certificate says it was made."""
        key, certificate = self.folder / private, self.folder / f"{name}.crt"
        if not certificate.exists():
            # A key without one is of an init that was ended between the two.
            self._keep(private, new_key)
            self._keep(certificate.name, certificate_of(name, key.read_bytes(), self.now))
        elif key.exists() and not belong_together(name, key.read_bytes(), certificate.read_bytes()):
            raise UsageError(
                f"{private} and {certificate.name} in {self.folder} do not belong together.",
                "Backups to that certificate could not be opened. Restore both from your copy.",
            )

    def _urls(self) -> None:
        roles = json.loads(self.text(ROLE_PASSWORDS))
        for name, scheme in (
            (layout.AIRFLOW, "postgresql+psycopg2"),
            (layout.RESULTS, "db+postgresql+psycopg2"),
        ):
            address = url(scheme, name, roles[name], layout.POSTGRES, name)
            self._keep(f"{name}_database", address.encode())
        broker = (
            f"rediss://:{self.text('redis_password')}@{layout.REDIS}:{layout.REDIS_PORT}/0"
            f"?ssl_cert_reqs=required&ssl_ca_certs={layout.mounted('ca_certificate')}"
        )
        self._keep("celery_broker", broker.encode())

    def _connections(self) -> None:
        roles = json.loads(self.text(ROLE_PASSWORDS))
        ours = connections(roles, self.text, sample=self.sample)
        there = self._json_object(CONNECTIONS)
        self._add_missing(CONNECTIONS, without_logins_of_replaced_stores(ours, there))
        self._add_missing(PAGES_CONNECTIONS, pages_connections(roles, self.text))
        configured = json.loads(self.text(CONNECTIONS))
        self._derive(ALL_CONNECTIONS, without_overrides(configured))
        pack = self._pack()
        for zone in ZONES.values():
            self._derive(zone.connections_file, connections_of(zone, configured, pack))

    def _pack(self) -> PolicyPack | None:
        """Return the policy pack; None if it cannot be read, as `config check` will say."""
        try:
            return load_pack(self.folder / POLICY)
        except UsageError:
            return None

    def _people(self) -> None:
        people = json.loads(SAMPLE_PEOPLE.read_bytes()) if self.sample else []
        self._keep(USERS, _json([{**ADMIN, "roles": ["Admin"]}, *people]))
        try:
            accounts = [user["id"] for user in json.loads(self.text(USERS))]
        except (ValueError, TypeError, KeyError):
            raise UsageError(
                f"{self.folder / USERS} is no list of users with `id`, `name`, `mail` and `roles`."
            ) from None
        self._add_missing(PASSWORDS, {account: secrets.token_urlsafe(16) for account in accounts})

    def _policy(self) -> None:
        """Copy the shipped pack for the sample, and what describes the stack's own databases."""
        policy = self.folder / POLICY
        purposes = (_PACK / "purposes.yaml").read_bytes()
        if self.sample and not policy.exists():
            partial = self.folder / f".{POLICY}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(self.shipped, partial)
            with (partial / "purposes.yaml").open("ab") as file:
                file.write(b"\n" + purposes)
            partial.rename(policy)
            self.made.append(f"{POLICY}/")
        (policy / "datamap").mkdir(parents=True, exist_ok=True)
        self._keep(f"{POLICY}/purposes.yaml", purposes)
        for path in sorted((_PACK / "datamap").glob("*.yaml")):
            self._keep(f"{POLICY}/datamap/{path.name}", path.read_bytes)

    def _pair(
        self, private: str, public: str, make: Callable[[], bytes], shown: Callable[[bytes], bytes]
    ) -> None:
        """A private file, and the public one that is made of it: also after an init that ended."""
        if (self.folder / public).exists() and not (self.folder / private).exists():
            raise UsageError(
                f"Of {private} and {public} in {self.folder} only {public} is there.",
                "Restore the other from your backup of the folder.",
            )
        self._keep(private, make)
        self._keep(public, lambda: shown((self.folder / private).read_bytes()))

    def _add_missing(self, name: str, values: Mapping[str, object]) -> None:
        """Add names to a JSON object that lacks them; existing values stay as they are."""
        kept = self._json_object(name)
        missing = {key: value for key, value in values.items() if key not in kept}
        if missing:
            write_whole(self.folder / name, _json({**kept, **missing}))
            self.made.append(f"{name} ({', '.join(missing)})" if kept else name)

    def _json_object(self, name: str) -> dict[str, Any]:
        """Return the object in a file, empty if there is no file; raises UsageError."""
        path = self.folder / name
        try:
            return dict(json.loads(path.read_bytes())) if path.exists() else {}
        except (ValueError, TypeError):
            raise UsageError(f"{path} is no JSON object.", "Correct it.") from None

    def _derive(self, name: str, content: object) -> None:
        """Write a file that follows from others, if it changed."""
        path, text = self.folder / name, _json(content)
        if not path.exists() or path.read_bytes() != text:
            write_whole(path, text)
            self.made.append(name)

    def _keep(self, name: str, content: bytes | Callable[[], bytes]) -> None:
        """Make a file that is not there: whole, for its owner alone, or not at all."""
        path = self.folder / name
        if not path.exists():
            write_whole(path, content() if callable(content) else content)
            self.made.append(name)


def hand_over(folder: Path, uid: int, gid: int) -> None:
    """Give a folder and all in it to the user that containers run as; needs root."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, uid, gid, follow_symlinks=False)


def close_to_others(folder: Path) -> None:
    """Remove all rights of everybody but the owner."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o700 if path.is_dir() else 0o600)


def _password() -> bytes:
    return secrets.token_urlsafe(32).encode()


def _signing_public(private: bytes) -> bytes:
    return Signer.from_pem(private).public_pem


def _json(content: object) -> bytes:
    return (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode()
