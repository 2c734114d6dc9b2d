"""Declare the types, fields and extras of the Airflow connections that ParcelSeal reads.

Some workflows have connections with logins of their own. These connections are not declared here.
`python -m include.reference` generates docs/reference/connections.md from these declarations.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Extra:
    """A key in the extra of a connection.

    Attributes:
        name: name of the key.
        meaning: meaning of the value.
        kind: type of the value.
        default: description of the value that is used if the key is missing; empty if there is no
            such value.
        is_required: whether the connection is invalid without the key.
    """

    name: str
    meaning: str
    kind: str = "text"
    default: str = ""
    is_required: bool = False


@dataclass(frozen=True)
class DeclaredConnection:
    """A connection that ParcelSeal reads from Airflow.

    Attributes:
        id: id of the connection. If the policy pack defines the id, this is a description of the
            connection instead.
        types: accepted types of Airflow connections.
        purpose: purpose for which ParcelSeal uses the connection.
        used_by: workflows, commands and pages that use the connection, as display text.
        fields: description of the fields host, login, password and schema.
        local_default: description of the resource that replaces the connection in the local
            profile.
        extras: accepted keys of the extra.
    """

    id: str
    types: tuple[str, ...]
    purpose: str
    used_by: str
    fields: str
    local_default: str
    extras: tuple[Extra, ...] = ()


POSTGRES_FIELDS = "host, port, login, password; `schema` contains the database name"
_STORE_TYPES = ("aws", "s3", "fs", "file")
_STORE_FIELDS = (
    "for `aws`, login and password contain the id and the secret of the access key; `fs` has none"
)

DATABASE_EXTRAS = (
    Extra(
        "sslmode",
        "How the server's certificate is verified. The check reports a mode that is weaker than "
        "`verify-full`",
        default="`verify-full` with the certificate authorities of the operating system; no "
        "verification for a server on the same machine",
    ),
    Extra(
        "sslrootcert",
        "File with the certificate of the authority that signed the server's certificate",
        kind="file",
    ),
    Extra(
        "sslcert, sslkey, sslpassword",
        "Client certificate, its private key, and the passphrase of that key",
        "files, text",
    ),
    Extra("host", "Folder that contains the Unix socket of the server", kind="folder"),
    Extra(
        "connect_timeout", "Seconds after which an attempt to connect is abandoned", kind="integer"
    ),
)
"""Extras of every PostgreSQL connection; `include.services.database.LIBPQ_EXTRAS` has them all."""

STORE_EXTRAS = (
    Extra(
        "bucket",
        "For `aws`: S3 bucket with versioning. The buckets of `offsite_store` and "
        "`evidence_store` also need Object Lock",
        is_required=True,
    ),
    Extra("prefix", "Prefix that the keys of all objects of the store in the bucket have"),
    Extra("region_name", "AWS region"),
    Extra("endpoint_url", "Address of the S3 service, if it is not AWS", kind="URL"),
    Extra(
        "verify",
        "File with the certificate of the authority that signed the service's "
        "certificate. `false` turns the verification off",
        "file or boolean",
        "`true`",
    ),
    Extra("lock_mode", "Object Lock mode: `COMPLIANCE` or `GOVERNANCE`", default="`COMPLIANCE`"),
    Extra(
        "connect_timeout",
        "Seconds after which an attempt to connect is abandoned",
        "number",
        "10, and 3 on the compliance pages",
    ),
    Extra(
        "read_timeout",
        "Seconds after which a connection waits no longer for a response",
        "number",
        "60, and 8 on the compliance pages",
    ),
    Extra(
        "max_attempts",
        "Number of times that a request is sent if it fails",
        "integer",
        "6, and 2 on the compliance pages",
    ),
    Extra(
        "path", "For `fs`: existing folder that contains the store", kind="folder", is_required=True
    ),
    Extra(
        "site",
        "Site of the store. The backup checks that it differs from the site of the "
        "database, which the data map states",
    ),
)
"""Extras of every store."""

SIGNING_EXTRAS = (
    Extra("signing_key_passphrase", "Passphrase that decrypts the file of `signing_key`"),
    Extra(
        "trusted_keys",
        "Further public keys whose signatures are accepted: earlier keys, and the "
        "current key on a machine that only verifies bundles or manifests",
        kind="list of PEM texts or files",
    ),
)

CONNECTIONS: tuple[DeclaredConnection, ...] = (
    DeclaredConnection(
        "customer_db, and other connections in data maps",
        ("postgres",),
        "Reads a database that has a data map. The login needs `GRANT pg_read_all_data`, and "
        "`BYPASSRLS` if a table has row-level security.",
        "all workflows that read mapped databases",
        POSTGRES_FIELDS,
        "sample courier database",
    ),
    DeclaredConnection(
        "state_db",
        ("postgres",),
        "Owns the state database. The login needs `CREATE` on the database, because an incident "
        "drill creates a separate schema and drops it at its end.",
        "every workflow, and most commands",
        POSTGRES_FIELDS,
        "database on the embedded PostgreSQL server",
        (
            Extra(
                "erasure_keys",
                'Secrets from which erased records get pseudonyms: `{"current": ID, "keys": {ID: '
                "SECRET}}`, or a file with this content. Keep old keys: a changed secret for an "
                "existing id is refused",
                kind="mapping or file",
                is_required=True,
            ),
        ),
    ),
    DeclaredConnection(
        "pages_db",
        ("postgres",),
        "Reads the tables that the compliance pages show, and records downloads of extracts. "
        "`./parcelseal migrate --pages-role` grants these rights. Without this connection, the "
        "pages use `state_db`.",
        "compliance pages",
        POSTGRES_FIELDS,
        "login on the embedded PostgreSQL server that has these rights",
    ),
    DeclaredConnection(
        "drill_db",
        ("postgres",),
        "Creates scratch databases, for which the login needs `CREATEDB`. The server must not be "
        "older than the servers of the mapped databases. Do not use a production server.",
        "`drill_restore`",
        POSTGRES_FIELDS,
        "embedded PostgreSQL server",
        (
            Extra("private_key", "Private key that decrypts restore points", "PEM or file"),
            Extra("kms_key", "ARN of a KMS key that decrypts restore points"),
        ),
    ),
    DeclaredConnection(
        "offsite_store",
        _STORE_TYPES,
        "Stores restore points.",
        "`backup_offsite`, `drill_restore`, `enforce_retention`; commands `backup`, `restore`",
        _STORE_FIELDS,
        "folder `offsite`; reports then say that backups need attention",
        (
            *STORE_EXTRAS,
            Extra(
                "recipients",
                'Public keys for which backups are encrypted: `{"name": ..., "certificate": '
                'FILE or PEM}` or `{"name": ..., "kms_key": ARN}`',
                kind="list of mappings",
                is_required=True,
            ),
            Extra("kms_endpoint_url", "Address of the KMS, if it is not AWS", kind="URL"),
            Extra(
                "signing_key",
                "Ed25519 private key that signs backup manifests",
                "PEM or file",
                "the key of `evidence_store`",
            ),
            *SIGNING_EXTRAS,
            Extra(
                "may_delete",
                "`false` if this login has no right to delete. The files of interrupted "
                "backups are then deleted by the task `prune`, which uses a login with that right",
                "boolean",
                "`true`",
            ),
        ),
    ),
    DeclaredConnection(
        "evidence_store",
        _STORE_TYPES,
        "Stores evidence bundles.",
        "every workflow; command `verify`; compliance pages",
        _STORE_FIELDS,
        "folder `evidence`",
        (
            *STORE_EXTRAS,
            Extra(
                "signing_key",
                "Ed25519 private key that seals evidence bundles. Only workers that seal "
                "bundles need it",
                "PEM or file",
            ),
            *SIGNING_EXTRAS,
        ),
    ),
    DeclaredConnection(
        "extract_store",
        _STORE_TYPES,
        "Stores approved extracts of customer information until their access ends. The login needs "
        "rights to write, read, list and delete all versions. A bucket with a default retention is "
        "refused, because an expired extract could not be deleted from it.",
        "`use_information`, `expire_grants`; command `access`; compliance pages",
        _STORE_FIELDS,
        "folder `extracts`",
        (
            *STORE_EXTRAS,
            Extra(
                "password_key",
                "Random text of at least 32 bytes. The passwords of extracts are derived from it, "
                "so that they are never stored. The compliance pages do not need it",
                is_required=True,
            ),
        ),
    ),
    DeclaredConnection(
        "mail",
        ("smtp",),
        "Sends mail to staff, partners and data subjects.",
        "workflows that send notifications",
        "host, port, login, password",
        "mail server that runs during a workflow and writes each mail to a file `mail/*.eml`",
        (
            Extra(
                "from_email",
                "Sender of all mail: an address, or `Name <address>`",
                is_required=True,
            ),
            Extra("disable_ssl", "Use STARTTLS (port 587) instead of TLS (port 465)", "boolean"),
            Extra(
                "disable_tls",
                "Use no TLS. Accepted only for a server on the same machine",
                "boolean",
            ),
            Extra(
                "verify",
                "File with the certificate of the authority that signed the server's certificate",
                "file",
            ),
            Extra("ssl_context", "Same meaning as in Airflow's SMTP provider; `none` is refused"),
            Extra(
                "timeout",
                "Seconds within which the server must send each reply except the last; at most 600",
                "number",
                "30",
            ),
            Extra(
                "answer_timeout",
                "Seconds within which the server must reply to the complete mail; at most 600",
                "number",
                "300",
            ),
            Extra("reply_to", "Address to which recipients reply", default="the sender"),
            Extra(
                "unsubscribe_to",
                "Address to which recipients write to get no more mail; stated in mail that "
                "a recipient may refuse",
            ),
            Extra(
                "catcher",
                "`true` if the server keeps all mail and delivers none. The evidence then "
                "states this",
                "boolean",
            ),
        ),
    ),
    DeclaredConnection(
        "connections of chat robots that `roles.yaml` names",
        ("http", "https"),
        "Sends messages to a group chat.",
        "workflows that send notifications",
        "host contains the webhook address or only its host name; password contains the "
        "token or key",
        "none",
        (
            Extra("kind", "Chat service: `wecom`, `dingtalk` or `feishu`", is_required=True),
            Extra("secret", "Secret with which messages are signed (DingTalk and Feishu only)"),
        ),
    ),
)
