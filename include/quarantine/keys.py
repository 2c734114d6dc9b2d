"""Name records in the quarantine register: by the key, or by a keyed HMAC of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from include.erasure.ledger import ErasureKeys
from include.policy.datamap import MappedCollection
from include.quarantine.register import digest_text, key_text

LONGEST = 1_000  # bytes of a name; PostgreSQL's indexes take no row of 2,704
# Categories of keys that name a record and do not identify a person.
_PLAIN = {"user.unique_id", "user.account", "user.workplace"}


def tells_a_person(collection: MappedCollection, key: Sequence[str]) -> bool:
    """Return whether a key is personal data, such as a phone number, or is not declared."""
    fields = [collection.fields.get(name) for name in key]
    return any(
        column is None
        or any(
            category == "user" or (category.startswith("user.") and category not in _PLAIN)
            for category in column.categories
        )
        for column in fields
    )


@dataclass(frozen=True)
class KeyNames:
    """Names of the records of one collection.

    Attributes:
        keys: of the HMAC.
        database: of the data map.
        collection: of the data map.
        columns: of the primary key.
        kept: digests in the register, some of an older key of the HMAC.
    """

    keys: ErasureKeys
    database: str
    collection: MappedCollection
    columns: Sequence[str]
    kept: frozenset[str] = frozenset()

    @cached_property
    def _personal(self) -> bool:
        return tells_a_person(self.collection, self.columns)

    def of(self, key: Sequence[str]) -> str:
        """Return the name of a record, from its key as PostgreSQL prints it."""
        if not self._personal:
            named = key_text(key)
            if len(named.encode()) <= LONGEST:
                return named
        current = self.keys.current
        if self.kept:  # otherwise the entry would be resolved, and the record entered again
            older = (self._digest(each, key) for each in self.keys.keys if each != current)
            for named in older:
                if named in self.kept:
                    return named
        return self._digest(current, key)

    def _digest(self, key_id: str, key: Sequence[str]) -> str:
        digest = self.keys.digest(key_id, self.database, self.collection.name, key)
        return digest_text(f"{key_id}:{digest.hex()}")
