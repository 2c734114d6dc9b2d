"""Databases that differ from the sample database, each with the policy pack that maps it."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import psycopg
from psycopg import sql

# Values of the databases below that may occur nowhere else.
IN_CLOCK = "QUOTED-clock-5a1f77"
IN_CHECK = "QUOTED-check-c09d42"
IN_LOAN = "借书证-8E4471"

# A library, whose names, types and keys differ from the sample's.
LIBRARY = f"""
CREATE SCHEMA stock;
CREATE TYPE stock.state AS ENUM ('in', 'out', 'lost');
CREATE TABLE stock."Book" (
    isbn text PRIMARY KEY, "title (original)" text NOT NULL,
    state stock.state NOT NULL DEFAULT 'in',
    words tsvector GENERATED ALWAYS AS (to_tsvector('simple', "title (original)")) STORED);
CREATE TABLE 读者 (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), card text UNIQUE NOT NULL,
    介绍人 uuid REFERENCES 读者);
CREATE TABLE loan (
    isbn text REFERENCES stock."Book", reader uuid REFERENCES 读者, at timestamptz NOT NULL,
    PRIMARY KEY (isbn, reader, at));
CREATE TABLE bundle_reader (code "char" PRIMARY KEY, note jsonb, plan bytea);
INSERT INTO stock."Book" SELECT 'isbn-' || n, 'Volume ' || n FROM generate_series(1, 200) n;
INSERT INTO 读者 (card) SELECT 'card-' || n FROM generate_series(1, 40) n;
INSERT INTO 读者 (card, 介绍人) SELECT '{IN_LOAN}', id FROM 读者 WHERE card = 'card-7';
INSERT INTO loan SELECT 'isbn-' || n, (SELECT id FROM 读者 WHERE card = 'card-' || (n % 40 + 1)),
    now() - n * interval '1 minute' FROM generate_series(1, 150) n;
INSERT INTO bundle_reader VALUES ('a', '{{"n": 1}}', '\\x00ff0a5c'), ('b', NULL, NULL);
"""
LIBRARY_ROWS = {'stock."Book"': 200, "读者": 41, "loan": 150, "bundle_reader": 2}
LIBRARY_PACK = """
dataset:
  - fides_key: library
    name: Town library
    meta:
      parcelseal:
        connection: customer_db
        schema: public
        site: town-hall
        newest: [{collection: loan, field: at}]
        collections:
          book: {schema: stock, table: Book}
    collections:
      - name: book
        fields:
          - {name: isbn, fides_meta: {primary_key: true}}
          - {name: title (original)}
      - name: 读者
        fields:
          - {name: id, data_categories: [user.unique_id], fides_meta: {primary_key: true}}
          - {name: card, data_categories: [user.unique_id]}
      - name: loan
        fields:
          - {name: isbn, fides_meta: {primary_key: true}}
          - {name: reader, fides_meta: {primary_key: true}}
          - {name: at, fides_meta: {primary_key: true}}
"""

PLAIN = (
    "CREATE TABLE note (id int PRIMARY KEY, text text); INSERT INTO note VALUES (1, 'a'), (2, 'b');"
)
FAULTY = {
    "sound": PLAIN,
    # Its copy will be damaged in the store.
    "tampered": PLAIN,
    # Its only manifest will be changed in the store.
    "forged": PLAIN,
    # Its newest value is no time, and the server's error quotes the value.
    "clockless": f"""
        CREATE TABLE note (id int PRIMARY KEY, text text);
        INSERT INTO note VALUES (1, '{IN_CLOCK}');""",
    # Its connection is not configured.
    "homeless": PLAIN,
    # Its constraint refuses every row in a restored copy, and the error quotes the row.
    "unloadable": f"""
        CREATE FUNCTION here(value text) RETURNS boolean IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
            IF current_database() <> 'unloadable' THEN RAISE EXCEPTION 'refused: %', value; END IF;
            RETURN true;
        END $$;
        CREATE TABLE note (id int PRIMARY KEY, text text CHECK (here(text)));
        INSERT INTO note VALUES (1, '{IN_CHECK}');""",
}


def make(admin: str, name: str, script: str, reader: str, password: str) -> None:
    """Create a database from a script, and a role that may read all of it.

    Args:
        admin: connection string of the server's superuser for the database ``postgres``.
        name: name of the new database.
        script: SQL statements that fill the database.
        reader: name of the role, which is created if it does not exist.
        password: password of the role.
    """
    with psycopg.connect(admin, autocommit=True) as conn:
        conn.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        there = conn.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [reader]).fetchone()
        if there is None:
            conn.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
                    sql.Identifier(reader), sql.Literal(password)
                )
            )
            conn.execute(sql.SQL("GRANT pg_read_all_data TO {}").format(sql.Identifier(reader)))
    with psycopg.connect(admin, dbname=name) as conn:
        conn.execute(script)


def library_pack(folder: Path) -> Path:
    """Write the policy pack of the library, which consists of a data map only."""
    (folder / "datamap").mkdir(parents=True)
    (folder / "datamap" / "library.yaml").write_text(dedent(LIBRARY_PACK))
    return folder


def faulty_pack(folder: Path) -> Path:
    """Write the policy pack of the faulty databases."""
    (folder / "datamap").mkdir(parents=True)
    for name in FAULTY:
        newest = "newest: [{collection: note, field: text}]" if name == "clockless" else ""
        (folder / "datamap" / f"{name}.yaml").write_text(
            dedent(f"""
            fides_key: {name}
            meta:
              parcelseal:
                connection: {name}_db
                site: town-hall
                {newest}
            collections:
              - name: note
                fields: [{{name: id, fides_meta: {{primary_key: true}}}}, {{name: text}}]
            """)
        )
    return folder
