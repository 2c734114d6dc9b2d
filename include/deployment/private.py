"""Write the private folder and ``.env`` of a deployment: keys, passwords, connections, settings.

Existing files are never overwritten, with one exception: the connections of each trust zone are
always derived from `connections.json`. Therefore, `compose init` may be repeated at any time. After
an upgrade, it adds the files and settings that the new version needs. ``.env`` is in the same
folder as `docker-compose.yaml` and contains no secret.
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
    without_replaced_stores,
)
from include.encryption.recipients import certificate_of, is_certificate_of_key, new_key
from include.evidence.signing import Signer, generate_key
from include.policy import PolicyPack
from include.registry import load_pack
from include.services.errors import UsageError
from include.services.whole_file import write_atomically

DOTENV = ".env"
REVISION = "PARCELSEAL_REVISION"  # git revision of the code in the images; bundles name it
CONTAINER_USER = 10001  # runs the containers if root runs `compose init`


def new_settings(private: str, *, sample: bool) -> dict[str, str]:
    """Return the settings for the ``.env`` file of a new deployment.

    Args:
        private: path of the private folder, either absolute or relative to the folder of
            docker-compose.yaml.
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
    """Return the user id and the group id with which the containers run.

    They are never 0 (root).
    """
    uid, gid = os.geteuid(), os.getegid()
    return (uid, gid) if uid else (CONTAINER_USER, CONTAINER_USER)


def add_settings(path: Path, settings: Mapping[str, str]) -> list[str]:
    """Add missing settings to an ``.env`` file; existing settings keep their values.

    Returns:
        Names of the added settings.

    Raises:
        UsageError: the file cannot be read or written.
    """
    try:
        content = path.read_text(encoding="utf-8") if path.exists() else ""
        existing = {
            line.partition("=")[0].strip()
            for line in content.splitlines()
            if "=" in line and not line.lstrip().startswith("#")
        }
        missing = {key: value for key, value in settings.items() if key not in existing}
        if missing:
            lines = [f"{key}={value}\n" for key, value in missing.items()]
            gap = "" if not content or content.endswith("\n") else "\n"
            path.touch(mode=0o600)
            path.write_text(content + gap + "".join(lines), encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"{path} cannot be used: {reason}.") from None
    return list(missing)


def set_setting(path: Path, name: str, value: str) -> bool:
    """Set the value of a setting in an ``.env`` file, even if the setting exists.

    Returns:
        Whether the file was changed.

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
    """Return the settings of an ``.env`` file.

    The function interprets values without quotes in the same way as Docker Compose.
    """
    pairs = (line.partition("=") for line in path.read_text(encoding="utf-8").splitlines())
    return {key.strip(): value.strip() for key, sign, value in pairs if sign and key[:1] != "#"}


ADMIN = {"id": "admin", "name": "Administrator", "mail": "admin@courier.example"}
CONNECTIONS, PAGES_CONNECTIONS = "connections.json", "connections_pages.json"
ALL_CONNECTIONS = "connections_all.json"  # without the connections of single queues
USERS, PASSWORDS, ROLE_PASSWORDS = "users.json", "passwords.json", "role_passwords.json"
OFFLINE = "offline"  # folder of keys that leave this machine
POLICY = "policy"
_PACK = Path(__file__).parent / "pack"  # policy pack of the stack's own databases
# Two people of each department of the sample courier that answers tasks, and an external auditor.
SAMPLE_PEOPLE = Path(__file__).parent / "sample_people.json"


@dataclass
class PrivateFolder:
    """The private folder that `compose init` writes.

    Args:
        folder: private folder of the deployment, readable only by its owner.
        now: start of the validity of certificates.
        sample: whether the sample customer database is part of the stack.
        shipped: folder of the shipped policy pack, which describes the sample customer database.

    Attributes:
        created: names of the files that were created or changed.
    """

    folder: Path
    now: datetime
    sample: bool
    shipped: Path
    created: list[str] = field(default_factory=list)

    def write(self) -> list[str]:
        """Create the missing files of the private folder.

        Returns:
            Names of the created and changed files, relative to the folder; empty if nothing
            changed.

        Raises:
            UsageError: the folder cannot be written, or one file of a key pair is missing.
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
                "Run the command as the owner of the folder.",
            ) from None
        return self.created

    def text(self, name: str) -> str:
        """Return the content of a file in the private folder.

        Args:
            name: name of the file, relative to the private folder.
        """
        return (self.folder / name).read_text(encoding="utf-8")

    def _passwords(self) -> None:
        for host in layout.ROLES:
            self._keep(f"{host}_superuser", _password)
        for name in ("redis_password", "jwt_secret", "api_secret_key"):
            self._keep(name, _password)
        self._keep("fernet_key", lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)))
        for user in layout.STORE_USERS:
            self._keep(f"store_{user}_access", lambda: secrets.token_hex(10).upper().encode())
            self._keep(f"store_{user}_secret", _password)
        self._keep("extract_password_key", _password)
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
                (self.folder / f"{host}_key").unlink(missing_ok=True)  # of an old certificate
                self._keep(f"{host}_key", key)
                self._keep(f"{host}_certificate", certificate)

    def _keys(self) -> None:
        for name in layout.RECIPIENTS:
            private = f"{name}.key" if name == "drill" else f"{OFFLINE}/{name}.key"
            self._recipient(name, private)
        for name in ("evidence", "manifest"):
            self._pair(f"{name}.key", f"{name}.pub", generate_key, _signing_public)

    def _recipient(self, name: str, private: str) -> None:
        """Create the private key and certificate of a backup recipient, if they are missing.

        If only the certificate exists, no private key is created, because the owner may have moved
        the private key to another place.

        Args:
            name: name of the recipient.
            private: name of the private key file.

        Raises:
            UsageError: the private key does not belong to the certificate.
        """
        key, certificate = self.folder / private, self.folder / f"{name}.crt"
        if not certificate.exists():
            # An interrupted `compose init` may have left a key without a certificate.
            self._keep(private, new_key)
            self._keep(certificate.name, certificate_of(name, key.read_bytes(), self.now))
        elif key.exists() and not is_certificate_of_key(
            name, key.read_bytes(), certificate.read_bytes()
        ):
            raise UsageError(
                f"{private} and {certificate.name} in {self.folder} do not belong together.",
                "Backups for that certificate could not be opened. Restore both files from "
                "your backup.",
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
        pages = without_replaced_stores(pages_connections(roles, self.text), ours, there)
        self._add_missing(PAGES_CONNECTIONS, pages)
        configured = json.loads(self.text(CONNECTIONS))
        self._derive(ALL_CONNECTIONS, without_overrides(configured))
        pack = self._pack()
        for zone in ZONES.values():
            self._derive(zone.connections_file, connections_of(zone, configured, pack))

    def _pack(self) -> PolicyPack | None:
        """Return the policy pack, or None if it cannot be read.

        The command `config check` reports the errors of the policy pack.
        """
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
                f"{self.folder / USERS} is not a list of users with `id`, `name`, `mail` and "
                f"`roles`."
            ) from None
        self._add_missing(PASSWORDS, {account: secrets.token_urlsafe(16) for account in accounts})

    def _policy(self) -> None:
        """Create the policy pack of the deployment.

        The policy pack contains the data maps of the stack's own databases. For a stack with the
        sample customer database, it starts as a copy of the shipped policy pack.
        """
        policy = self.folder / POLICY
        purposes = (_PACK / "purposes.yaml").read_bytes()
        if self.sample and not policy.exists():
            partial = self.folder / f".{POLICY}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(self.shipped, partial)
            with (partial / "purposes.yaml").open("ab") as file:
                file.write(b"\n" + purposes)
            partial.rename(policy)
            self.created.append(f"{POLICY}/")
        (policy / "datamap").mkdir(parents=True, exist_ok=True)
        self._keep(f"{POLICY}/purposes.yaml", purposes)
        for path in sorted((_PACK / "datamap").glob("*.yaml")):
            self._keep(f"{POLICY}/datamap/{path.name}", path.read_bytes)

    def _pair(
        self, private: str, public: str, make: Callable[[], bytes], shown: Callable[[bytes], bytes]
    ) -> None:
        """Create the private key file and the public key file of a key pair, if they are missing.

        If an earlier `compose init` was interrupted between the two files, the public key file is
        created from the existing private key file.

        Args:
            private: name of the private key file.
            public: name of the public key file.
            make: function that generates the content of the private key file.
            shown: function that derives the content of the public key file from it.

        Raises:
            UsageError: the public key file exists, but the private key file is missing.
        """
        if (self.folder / public).exists() and not (self.folder / private).exists():
            raise UsageError(
                f"{self.folder} has {public}, but lacks {private}.",
                f"Restore {private} from your backup of the folder.",
            )
        self._keep(private, make)
        self._keep(public, lambda: shown((self.folder / private).read_bytes()))

    def _add_missing(self, name: str, values: Mapping[str, object]) -> None:
        """Add missing keys to the JSON object in a file. Existing values are kept.

        Args:
            name: name of the file, relative to the private folder.
            values: values by key.
        """
        kept = self._json_object(name)
        missing = {key: value for key, value in values.items() if key not in kept}
        if missing:
            write_atomically(self.folder / name, _json({**kept, **missing}))
            self.created.append(f"{name} ({', '.join(missing)})" if kept else name)

    def _json_object(self, name: str) -> dict[str, Any]:
        """Return the JSON object in a file, or an empty object if the file does not exist.

        Args:
            name: name of the file, relative to the private folder.

        Raises:
            UsageError: the file contains no JSON object.
        """
        path = self.folder / name
        try:
            return dict(json.loads(path.read_bytes())) if path.exists() else {}
        except (ValueError, TypeError):
            raise UsageError(f"{path} is not a JSON object.", "Correct it.") from None

    def _derive(self, name: str, content: object) -> None:
        """Write a file whose content is derived from other files.

        If the file has this content already, it is not written.

        Args:
            name: name of the file, relative to the private folder.
            content: object that is written as JSON.
        """
        path, text = self.folder / name, _json(content)
        if not path.exists() or path.read_bytes() != text:
            write_atomically(path, text)
            self.created.append(name)

    def _keep(self, name: str, content: bytes | Callable[[], bytes]) -> None:
        """Create a file atomically if it does not exist.

        Only the owner of the new file can read it.

        Args:
            name: name of the file, relative to the private folder.
            content: content of the file, or the function that creates the content.
        """
        path = self.folder / name
        if not path.exists():
            write_atomically(path, content() if callable(content) else content)
            self.created.append(name)


def hand_over(folder: Path, uid: int, gid: int) -> None:
    """Change the owner of a folder and its content to the user and group that run the containers.

    This requires root.

    Args:
        folder: the folder.
        uid: id of the user.
        gid: id of the group.
    """
    for path in (folder, *folder.rglob("*")):
        os.chown(path, uid, gid, follow_symlinks=False)


def close_to_others(folder: Path) -> None:
    """Remove all permissions of other users and groups on a folder and its content."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o700 if path.is_dir() else 0o600)


def _password() -> bytes:
    return secrets.token_urlsafe(32).encode()


def _signing_public(private: bytes) -> bytes:
    return Signer.from_pem(private).public_pem


def _json(content: object) -> bytes:
    return (json.dumps(content, ensure_ascii=False, indent=1) + "\n").encode()
