"""Keys and the KMS that the encryption tests share."""

from __future__ import annotations

from tests.support.holders import offline, operations, recipients, stranger

__all__ = ["offline", "operations", "recipients", "stranger"]
