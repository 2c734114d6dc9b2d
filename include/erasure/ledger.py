"""The erasure ledger: which records were erased, named only by a keyed HMAC of their key.

Whoever holds the ledger but not the key learns nothing; whoever restores an old backup can still
find the erased records in it and erase them again (PIPL 47, version 2021-11-01).
"""

from __future__ import annotations

import hmac
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.postgresql import insert

from include.services.errors import UsageError
from include.state.tables import erasure


@dataclass(frozen=True)
class ErasureKeys:
    """Keys of the HMAC, by id; several after a rotation.

    Attributes:
        current: id of the key that new entries use.
    """

    keys: Mapping[str, bytes]
    current: str

    def __post_init__(self) -> None:
        if self.current not in self.keys or any(len(key) < 32 for key in self.keys.values()):
            raise UsageError(
                "The erasure keys need a current key, and 32 bytes or more each.",
                "See the extra `erasure_keys` of the connection state_db.",
            )

    def __repr__(self) -> str:
        return f"ErasureKeys({', '.join(self.keys)})"

    def digest(self, key_id: str, database: str, collection: str, key: Sequence[str]) -> bytes:
        """Return HMAC-SHA-256 of a record's primary key, given as PostgreSQL prints it."""
        named = json.dumps([database, collection, list(key)], ensure_ascii=False)
        return hmac.digest(self.keys[key_id], named.encode(), "sha256")


def record(
    conn: Connection,
    keys: ErasureKeys,
    *,
    database: str,
    collection: str,
    record_keys: Sequence[Sequence[str]],
    record_class: str,
    rule: str,
    dag_id: str,
    run_id: str,
    erased_at: datetime,
) -> None:
    """Enter erased records, once each however often it is repeated."""
    if not record_keys:
        return
    conn.execute(
        insert(erasure).on_conflict_do_nothing(),
        [
            {
                "database": database,
                "collection": collection,
                "key_hmac": keys.digest(keys.current, database, collection, key),
                "key_id": keys.current,
                "action": "delete",
                "record_class": record_class,
                "rule": rule,
                "dag_id": dag_id,
                "run_id": run_id,
                "erased_at": erased_at,
            }
            for key in record_keys
        ],
    )


def count(conn: Connection, database: str) -> int:
    """Count the ledger's entries of a database."""
    query = select(func.count()).select_from(erasure).where(erasure.c.database == database)
    return int(conn.scalar(query) or 0)


def erased(conn: Connection, database: str) -> dict[str, dict[str, set[bytes]]]:
    """Return the HMACs of a database's erased records: collection -> key id -> HMACs."""
    found: dict[str, dict[str, set[bytes]]] = defaultdict(lambda: defaultdict(set))
    query = select(erasure.c.collection, erasure.c.key_id, erasure.c.key_hmac).where(
        erasure.c.database == database
    )
    for collection, key_id, digest in conn.execute(query):
        found[collection][key_id].add(bytes(digest))
    return {collection: dict(by_key) for collection, by_key in found.items()}
