"""Define the connections to the servers of the Docker Compose stack.

They have the format of Airflow's connection file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

from include.deployment import layout
from include.deployment.zones import OVERRIDE
from include.local.roles import COURIER, sample_logins
from include.workflow.declaration import Queue

Connection = dict[str, Any]
CA = layout.mounted("ca_certificate")
_VERIFIED = {"sslmode": "verify-full", "sslrootcert": CA}


def connections(
    passwords: Mapping[str, str], secret: Callable[[str], str], *, sample: bool
) -> dict[str, Connection]:
    """Return the connections that workers and the command line need in a new stack.

    Args:
        passwords: passwords by PostgreSQL role.
        secret: function that returns a secret by its name.
        sample: whether the sample customer database is part of the stack.
    """
    database = partial(_database, passwords)
    recipients = [
        {"name": name, "certificate": layout.mounted(f"{name}.crt")} for name in layout.RECIPIENTS
    ]
    configured = {
        "state_db": database(
            layout.POSTGRES,
            layout.STATE,
            layout.STATE,
            erasure_keys=layout.mounted("erasure_keys"),
        ),
        # By which the stack's own databases are backed up: datamap/ of the deployment.
        "airflow_copy_db": database(layout.POSTGRES, layout.BACKUP_READER, layout.AIRFLOW),
        "state_copy_db": database(layout.POSTGRES, layout.BACKUP_READER, layout.STATE),
        "drill_db": database(
            layout.SCRATCH, layout.DRILL, "postgres", private_key=layout.mounted("drill.key")
        ),
        # No site: this store is at the site of the databases. Name its site after moving it.
        "offsite_store": _store(
            layout.BACKUPS,
            layout.BACKUPS,
            secret,
            recipients=recipients,
            signing_key=layout.mounted("manifest.key"),
            trusted_keys=[layout.mounted("manifest.pub")],
        ),
        "evidence_store": _store(
            layout.EVIDENCE,
            layout.EVIDENCE,
            secret,
            signing_key=layout.mounted("evidence.key"),
            trusted_keys=[layout.mounted("evidence.pub")],
        ),
        # Only of the zone `default`, which delivers and ends accesses: zones.py.
        "extract_store": _store(
            layout.EXTRACTS,
            layout.EXTRACTS,
            secret,
            password_key=secret("extract_password_key"),
        ),
        "mail": _connection(
            "smtp",
            host=layout.MAIL,
            port=layout.MAIL_PORT,
            extra={
                "disable_ssl": True,  # from the first byte; STARTTLS then
                "verify": CA,
                "catcher": True,  # evidence says that mail reached no recipient
                "from_email": "ParcelSeal <parcelseal@courier.example>",
            },
        ),
    }
    configured |= _overrides(secret)
    if sample:
        configured |= {
            conn_id: database(layout.CUSTOMERS, role, COURIER)
            for conn_id, role in sample_logins().items()
        }
    return configured


def pages_connections(
    passwords: Mapping[str, str], secret: Callable[[str], str]
) -> dict[str, Connection]:
    """Return the connections of the compliance pages.

    These connections allow only reading, except that the login of ``pages_db`` records openings of
    extracts. They have no signing key, and no key from which passwords of extracts are derived.

    Args:
        passwords: passwords by PostgreSQL role.
        secret: function that returns a secret by its name.
    """
    return {
        "pages_db": _database(passwords, layout.POSTGRES, layout.PAGES, layout.STATE),
        "evidence_store": _store(
            layout.EVIDENCE,
            layout.READER,
            secret,
            trusted_keys=[layout.mounted("evidence.pub")],
        ),
        # Manifests of restore points, which are signed; the dumps beside them are encrypted.
        "offsite_store": _store(
            layout.BACKUPS,
            layout.READER,
            secret,
            trusted_keys=[layout.mounted("manifest.pub")],
        ),
        # The pages send the encrypted file; the password goes to the requester by mail only.
        "extract_store": _store(layout.EXTRACTS, layout.EXTRACT_READER, secret),
    }


def _overrides(secret: Callable[[str], str]) -> dict[str, Connection]:
    """Return the logins to object stores that apply only to workers of one queue, by `ID@QUEUE`.

    The connection `ID` has the login of the bucket's owner. For the workers of the queue, the
    returned login, which has fewer rights, replaces it.

    Args:
        secret: function that returns a secret by its name.
    """

    def login(user: str) -> Connection:
        return {
            "login": secret(f"store_{user}_access"),
            "password": secret(f"store_{user}_secret"),
        }

    overrides = {
        ("offsite_store", Queue.BACKUP): {
            **login(layout.WRITER),
            "extra_dejson": {"may_delete": False},
        },
        ("offsite_store", Queue.DRILL): login(layout.READER),
        ("offsite_store", Queue.DEFAULT): login(layout.READER),
        ("evidence_store", Queue.BACKUP): login(layout.READER),
        ("evidence_store", Queue.DRILL): login(layout.READER),
        ("evidence_store", Queue.RETENTION): login(layout.READER),
    }
    return {f"{name}{OVERRIDE}{queue}": override for (name, queue), override in overrides.items()}


def url(scheme: str, role: str, password: str, host: str, database: str) -> str:
    """Return the SQLAlchemy URL of a database of the stack, with verified TLS.

    Args:
        scheme: scheme of the URL, such as ``postgresql+psycopg2``.
        role: PostgreSQL role that logs in.
        password: password of the role.
        host: host name of the server.
        database: name of the database.
    """
    words = "&".join(f"{key}={quote(value, safe='/')}" for key, value in _VERIFIED.items())
    return f"{scheme}://{quote(role, safe='')}:{quote(password, safe='')}@{host}/{database}?{words}"


def _store(bucket: str, user: str, secret: Callable[[str], str], **extra: Any) -> Connection:
    return _connection(
        "aws",
        login=secret(f"store_{user}_access"),
        password=secret(f"store_{user}_secret"),
        extra={
            "bucket": layout.BUCKETS[bucket],
            "endpoint_url": f"https://{layout.STORE}:{layout.STORE_PORT}",
            "region_name": layout.REGION,
            "verify": CA,
            **extra,
        },
    )


def _database(
    passwords: Mapping[str, str], host: str, role: str, name: str, **extra: str
) -> Connection:
    return _connection(
        "postgres",
        host=host,
        port=5432,
        login=role,
        password=passwords[role],
        schema=name,
        extra={**_VERIFIED, **extra},
    )


def _connection(conn_type: str, *, extra: Mapping[str, Any], **words: Any) -> Connection:
    return {"conn_type": conn_type, **words, "extra_dejson": dict(extra)}
