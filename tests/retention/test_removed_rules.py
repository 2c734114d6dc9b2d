"""Tests of erasure requests whose record classes are temporarily missing in the policy pack."""

from __future__ import annotations

from tests.retention.runner import RetentionRunner
from tests.retention.test_linked_requests import numbers, pagila, state

__all__ = ["pagila"]  # a fixture


def test_erasure_request_with_record_of_removed_record_class_stays_open(
    pagila: RetentionRunner,
) -> None:
    """The stored key of the record must be kept while the policy pack lacks the record class."""
    pagila.insert("store", store_id=1, address_id=1)
    pagila.request("1")
    pagila.run()
    rules = [rule for rule in pagila.rules if rule.collection != "address"]
    assert state(pagila.but(rules=rules).run("r2")[-1]) == "open"
    pagila.sql("DELETE FROM store")
    assert state(pagila.run("r3")[-1]) == "closed"
    assert numbers(pagila, "address") == {2, 3}
