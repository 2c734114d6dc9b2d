"""Foreign keys that refer to the collections of record classes, for the verification only."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from include.policy.retention import RetentionRule
from include.retention.postgres.relations import ForeignKey, Relations


class LeadingKeys:
    """The foreign keys of mapped tables that refer to the collections of some record classes.

    Attributes:
        units: groups of collections that are counted together: a cycle, or a single collection.
    """

    def __init__(self, rules: Sequence[RetentionRule], relations: Relations) -> None:
        self._rules: dict[str, list[RetentionRule]] = {}
        for rule in rules:
            self._rules.setdefault(rule.collection, []).append(rule)
        self._keys = {name: _keys_to(name, relations) for name in self._rules}
        self._circles = self._find_circles()
        self.units = list(
            dict.fromkeys(tuple(sorted(self.circle(name) or {name})) for name in self._rules)
        )

    def to(self, collection: str) -> list[tuple[str, ForeignKey]]:
        """Return the foreign keys to a collection, each with the collection that has it."""
        return self._keys[collection]

    def circle(self, collection: str) -> frozenset[str]:
        """Return the collections of the cycle that contains a collection; empty without a cycle.

        A collection that refers to itself is a cycle too.
        """
        return self._circles.get(collection, frozenset())

    def sets_null(self, child: str, key: ForeignKey, collection: str) -> bool:
        """Return whether a foreign key is set to null when the referenced record is deleted.

        Args:
            child: the collection that has the key.
            key: the foreign key.
            collection: the collection that the key references.
        """
        detached = {text for rule in self._rules[collection] for text in rule.detach}
        return key.on_delete in ("set_null", "set_default") or any(
            f"{child}.{column}" in detached for column in key.columns
        )

    def _find_circles(self) -> dict[str, frozenset[str]]:
        emptied = {
            name for name, rules in self._rules.items() if any(rule.deletes for rule in rules)
        }
        children: dict[str, set[str]] = {name: set() for name in emptied}
        parents: dict[str, set[str]] = {name: set() for name in emptied}
        for name in emptied:
            for child, key in self._keys[name]:
                if child in emptied and not self.sets_null(child, key, name):
                    children[name].add(child)
                    parents[child].add(name)
        return {name: _reached(name, children) & _reached(name, parents) for name in emptied}


def _keys_to(collection: str, relations: Relations) -> list[tuple[str, ForeignKey]]:
    keys = []
    for key in relations.keys_to(relations.by_collection[collection]):
        child = relations.collection_of(key.child_root)
        if child is not None:
            keys.append((child, key))
    return keys


def _reached(start: str, following: Mapping[str, Collection[str]]) -> frozenset[str]:
    reached: set[str] = set()
    waiting = list(following[start])
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += following[name]
    return frozenset(reached)
