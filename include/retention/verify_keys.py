"""Foreign keys that lead to the collections of record classes, for the count afterwards alone."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from include.policy.retention import RetentionRule
from include.retention.relations import ForeignKey, Relations


class LeadingKeys:
    """The foreign keys of mapped tables that lead to the collections of some record classes.

    Attributes:
        units: the collections that are counted together: all of a circle, or one alone.
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
        """Return the collections that refer to each other in a circle with one, or none.

        A collection that refers to itself is a circle too.
        """
        return self._circles.get(collection, frozenset())

    def sets_null(self, child: str, key: ForeignKey, collection: str) -> bool:
        """Return whether a foreign key is set to null when a record of the collection goes.

        Args:
            child: the collection that has the key.
            key: the foreign key.
            collection: to which it leads.
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
