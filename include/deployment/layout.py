"""Define the names in the Docker Compose stack: servers, databases, roles, buckets and secrets.

`docker-compose.yaml` repeats these names for Docker. A test in tests/deployment compares that file
with this module.
"""

from __future__ import annotations

from include.deployment.ports import MAIL_PORT, REDIS_PORT, STORE_PORT, mounted
from include.local.roles import COURIER, COURIER_OWNER, courier_roles

__all__ = ["MAIL_PORT", "REDIS_PORT", "STORE_PORT", "mounted"]
POSTGRES, SCRATCH, CUSTOMERS = "postgres", "scratch", "customers"  # hosts of databases
STORE, REDIS, MAIL = "store", "redis", "mail"
# Servers with TLS, each with a certificate for this name.
SERVERS = (POSTGRES, SCRATCH, CUSTOMERS, STORE, REDIS, MAIL)
JOINED = (STORE, MAIL)  # which take certificate and key in one file

AIRFLOW, RESULTS, STATE = "airflow", "celery_results", "parcelseal_state"
BACKUP_READER, PAGES = "backup_reader", "parcelseal_pages"
DRILL = "parcelseal_drill"
# host -> role -> its right on the whole server
ROLES: dict[str, dict[str, str]] = {
    POSTGRES: {AIRFLOW: "", RESULTS: "", STATE: "", BACKUP_READER: "", PAGES: ""},
    SCRATCH: {DRILL: "CREATEDB"},
    CUSTOMERS: courier_roles(),
}
# host -> database -> owner
DATABASES: dict[str, dict[str, str]] = {
    POSTGRES: {AIRFLOW: AIRFLOW, RESULTS: RESULTS, STATE: STATE},
    SCRATCH: {},
    CUSTOMERS: {COURIER: COURIER_OWNER},
}

# users of the store, each owns one bucket
BACKUPS, EVIDENCE, EXTRACTS = "backup", "evidence", "extract"
READER = "reader"  # reads backups and evidence, and changes nothing
WRITER = "writer"  # writes and reads backups, and deletes nothing
EXTRACT_READER = "extract_reader"  # reads extracts for the compliance pages, and changes nothing
BUCKETS = {
    BACKUPS: "parcelseal-backups",
    EVIDENCE: "parcelseal-evidence",
    EXTRACTS: "parcelseal-extracts",
}
LOCKABLE = (BACKUPS, EVIDENCE)  # with Object Lock; an expired extract must be deleted at once
STORE_USERS = (*BUCKETS, READER, WRITER, EXTRACT_READER)
REGION = "default"

# Kept on the machine: operations opens backups on the worst day, drill every night. Escrow goes
# to a safe.
RECIPIENTS = ("operations", "escrow", "drill")
