"""The example pack maps every table of the Chinook database."""

from __future__ import annotations

from pathlib import Path

from include.policy.datamap import MappedDatabase
from include.registry import load_pack

PACK = Path(__file__).parents[2] / "examples" / "packs" / "chinook"

# Chinook 1.4.5 for PostgreSQL: tables, columns in order.
TABLES = {
    "album": "album_id title artist_id",
    "artist": "artist_id name",
    "customer": "customer_id first_name last_name company address city state country postal_code "
    "phone fax email support_rep_id",
    "employee": "employee_id last_name first_name title reports_to birth_date hire_date address "
    "city state country postal_code phone fax email",
    "genre": "genre_id name",
    "invoice": "invoice_id customer_id invoice_date billing_address billing_city billing_state "
    "billing_country billing_postal_code total",
    "invoice_line": "invoice_line_id invoice_id track_id unit_price quantity",
    "media_type": "media_type_id name",
    "playlist": "playlist_id name",
    "playlist_track": "playlist_id track_id",
    "track": "track_id name album_id media_type_id genre_id composer milliseconds bytes unit_price",
}
PRIMARY_KEYS = {name: (f"{name}_id",) for name in TABLES} | {
    "playlist_track": ("playlist_id", "track_id")
}
FOREIGN_KEYS = {
    "album.artist_id": "artist.artist_id",
    "customer.support_rep_id": "employee.employee_id",
    "employee.reports_to": "employee.employee_id",
    "invoice.customer_id": "customer.customer_id",
    "invoice_line.invoice_id": "invoice.invoice_id",
    "invoice_line.track_id": "track.track_id",
    "playlist_track.playlist_id": "playlist.playlist_id",
    "playlist_track.track_id": "track.track_id",
    "track.album_id": "album.album_id",
    "track.genre_id": "genre.genre_id",
    "track.media_type_id": "media_type.media_type_id",
}


def load_chinook() -> MappedDatabase:
    return load_pack(PACK).database("chinook")


def test_chinook_pack_maps_every_table_and_column() -> None:
    database = load_chinook()
    mapped = {
        name: " ".join(collection.fields) for name, collection in database.collections.items()
    }
    assert mapped == TABLES
    assert {collection.schema_name for collection in database.collections.values()} == {"public"}
    assert all(collection.table == name for name, collection in database.collections.items())


def test_chinook_pack_maps_primary_and_foreign_keys_of_the_database() -> None:
    """The pack states each foreign key as a reference, including self references."""
    collections = load_chinook().collections
    assert {
        name: collection.primary_key for name, collection in collections.items()
    } == PRIMARY_KEYS
    references = {
        f"{table}.{name}": f"{reference.collection}.{reference.field}"
        for table, collection in collections.items()
        for name, field in collection.fields.items()
        for reference in field.references
    }
    assert references == FOREIGN_KEYS


def test_chinook_pack_classifies_every_table_and_marks_personal_data() -> None:
    database = load_chinook()
    personal = {
        name
        for name, collection in database.collections.items()
        if any(field.is_personal for field in collection.fields.values())
    }
    assert personal == {"customer", "employee", "invoice", "invoice_line"}
    for collection in database.collections.values():
        assert collection.data_class
        assert collection.department
        assert collection.owner
    assert database.collections["customer"].data_class == "confidential"
    assert database.site == "head-office"
    assert load_pack(PACK).remarks == ()
