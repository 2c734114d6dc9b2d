"""Requests whose record classes are gone from the policy pack for a while."""

from __future__ import annotations

from tests.retention.rig import Rig
from tests.retention.test_linked_requests import numbers, pagila, state

__all__ = ["pagila"]  # a fixture


def test_request_stays_open_while_no_request_erases_class_of_a_kept_record(pagila: Rig) -> None:
    """The pack lost the rule for a night; the key of the record must not be lost with it."""
    pagila.insert("store", store_id=1, address_id=1)
    pagila.request("1")
    pagila.run()
    rules = [rule for rule in pagila.rules if rule.collection != "address"]
    assert state(pagila.but(rules=rules).run("r2")[-1]) == "open"
    pagila.sql("DELETE FROM store")
    assert state(pagila.run("r3")[-1]) == "closed"
    assert numbers(pagila, "address") == {2, 3}
