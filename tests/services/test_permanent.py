"""Errors of a database: which of them a retry may remove."""

from __future__ import annotations

import psycopg
import pytest

from include.services.errors import is_permanent


def test_statement_that_a_changed_table_outdates_is_repeated(database: str) -> None:
    """Its SQLSTATE, 0A000, is otherwise that of a feature that the server lacks."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("CREATE TABLE parcel (id int)")
        connection.execute("SELECT * FROM parcel", prepare=True)
        with psycopg.connect(database, autocommit=True) as other:
            other.execute("ALTER TABLE parcel ADD weight int")
        with pytest.raises(psycopg.errors.FeatureNotSupported) as caught:
            connection.execute("SELECT * FROM parcel", prepare=True)
    assert not is_permanent(caught.value)


def test_feature_that_the_server_lacks_is_permanent(database: str) -> None:
    query = "CREATE TABLE parcel (weight int CHECK (weight > (SELECT 1)))"
    with (
        pytest.raises(psycopg.errors.FeatureNotSupported) as caught,
        psycopg.connect(database) as connection,
    ):
        connection.execute(query)
    assert is_permanent(caught.value)


def test_value_that_does_not_fit_is_permanent(database: str) -> None:
    """The next attempt reads the same value."""
    with psycopg.connect(database) as connection, pytest.raises(psycopg.DataError) as caught:
        connection.execute("SELECT 'x'::int")
    assert is_permanent(caught.value)
