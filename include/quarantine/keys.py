"""Names that identify records in the quarantine register.

The name of a record is its primary key. If the primary key identifies a person or is very long, the
name is a keyed hash (HMAC) of the primary key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from include.erasure.ledger import ErasureKeys
from include.policy.datamap import MappedCollection
from include.quarantine.register import digest_text, key_text

MAX_NAME_BYTES = 1_000  # a row of a PostgreSQL index must be shorter than 2,704 bytes
# Data categories of keys that identify a record but no person.
_IMPERSONAL_CATEGORIES = {"user.unique_id", "user.account", "user.workplace"}


def identifies_person(collection: MappedCollection, key: Sequence[str]) -> bool:
    """Return whether a primary key contains personal data, such as phone numbers.

    A column that is not in the data map is treated as personal data.

    Args:
        collection: the collection in the data map.
        key: columns of its primary key.
    """
    fields = [collection.fields.get(name) for name in key]
    return any(
        column is None
        or any(
            category == "user"
            or (category.startswith("user.") and category not in _IMPERSONAL_CATEGORIES)
            for category in column.categories
        )
        for column in fields
    )


@dataclass(frozen=True)
class KeyNames:
    """Computes the names that identify a collection's records in the quarantine register.

    Attributes:
        keys: HMAC keys of the erasure ledger.
        database: name of the database in the data map.
        collection: the collection in the data map.
        columns: columns of the primary key.
        registered: names of the collection's open entries that are HMACs. Some may be calculated
            with an older key.
    """

    keys: ErasureKeys
    database: str
    collection: MappedCollection
    columns: Sequence[str]
    registered: frozenset[str] = frozenset()

    @cached_property
    def _personal(self) -> bool:
        return identifies_person(self.collection, self.columns)

    def of(self, key: Sequence[str]) -> str:
        """Return the name of a record in the quarantine register.

        If the register already contains a name of the record that was calculated with an older HMAC
        key, return that name.

        Args:
            key: values of the primary key as texts, as PostgreSQL prints them.
        """
        if not self._personal:
            name = key_text(key)
            if len(name.encode()) <= MAX_NAME_BYTES:
                return name
        current = self.keys.current
        # With a new name, the entry of the record would be resolved and entered again.
        if self.registered:
            older_names = (
                self._digest(key_id, key) for key_id in self.keys.keys if key_id != current
            )
            for name in older_names:
                if name in self.registered:
                    return name
        return self._digest(current, key)

    def _digest(self, key_id: str, key: Sequence[str]) -> str:
        digest = self.keys.digest(key_id, self.database, self.collection.name, key)
        return digest_text(f"{key_id}:{digest.hex()}")
