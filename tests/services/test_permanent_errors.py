"""Test which errors of a database are permanent. A retry cannot help after a permanent error."""

from __future__ import annotations

import psycopg
import pytest

from include.services.errors import is_permanent


def test_error_of_statement_prepared_before_table_changed_is_not_permanent(database: str) -> None:
    """The SQLSTATE of this error, 0A000, otherwise means that the server lacks a feature."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE parcel (id int)")
        connection.execute("SELECT * FROM parcel", prepare=True)
        with psycopg.connect(database, autocommit=True) as other:
            other.execute("ALTER TABLE parcel ADD weight int")
        with pytest.raises(psycopg.errors.FeatureNotSupported) as caught:
            connection.execute("SELECT * FROM parcel", prepare=True)
    assert not is_permanent(caught.value)


def test_error_for_feature_that_the_server_lacks_is_permanent(database: str) -> None:
    query = "CREATE TABLE parcel (weight int CHECK (weight > (SELECT 1)))"
    with (
        pytest.raises(psycopg.errors.FeatureNotSupported) as caught,
        psycopg.connect(database) as connection,
    ):
        connection.execute(query)
    assert is_permanent(caught.value)


def test_error_for_invalid_value_is_permanent(database: str) -> None:
    """A retry would read the same value."""
    with psycopg.connect(database) as connection, pytest.raises(psycopg.DataError) as caught:
        connection.execute("SELECT 'x'::int")
    assert is_permanent(caught.value)
