"""Test which errors of a database are permanent. A retry cannot help after a permanent error."""

from __future__ import annotations

import psycopg
import pytest

from include.services.errors import is_permanent


def test_is_permanent_is_false_for_error_of_prepared_statement_whose_table_changed(
    database: str,
) -> None:
    """The SQLSTATE of this error, 0A000, otherwise means that the server lacks a feature."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE parcel (id int)")
        connection.execute("SELECT * FROM parcel", prepare=True)
        with psycopg.connect(database, autocommit=True) as other:
            other.execute("ALTER TABLE parcel ADD weight int")
        with pytest.raises(psycopg.errors.FeatureNotSupported) as caught:
            connection.execute("SELECT * FROM parcel", prepare=True)
    assert not is_permanent(caught.value)


def test_is_permanent_is_true_for_error_of_feature_that_the_server_lacks(database: str) -> None:
    query = "CREATE TABLE parcel (weight int CHECK (weight > (SELECT 1)))"
    with (
        pytest.raises(psycopg.errors.FeatureNotSupported) as caught,
        psycopg.connect(database) as connection,
    ):
        connection.execute(query)
    assert is_permanent(caught.value)


def test_is_permanent_is_true_for_error_of_invalid_value(database: str) -> None:
    """A retry would read the same value."""
    with psycopg.connect(database) as connection, pytest.raises(psycopg.DataError) as caught:
        connection.execute("SELECT 'x'::int")
    assert is_permanent(caught.value)
