"""Provide the keys and the KMS that the tests of encryption share."""

from __future__ import annotations

from tests.support.holders import offline, operations, recipients, stranger

__all__ = ["offline", "operations", "recipients", "stranger"]
