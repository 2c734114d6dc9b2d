"""Define a database with unusual features that every supported PostgreSQL version has."""

from __future__ import annotations

from datetime import timedelta

from tests.support.holders import NOW

OWNER = "owner_of_versions"  # a role that the statements name
ODD = rf"""
CREATE SCHEMA "客户 1";
CREATE TYPE mood AS ENUM ('good', 'so "la" la');
CREATE DOMAIN phone AS text CHECK (VALUE ~ '^[0-9+]+$');
CREATE TYPE place AS (street text, number int);
CREATE FUNCTION shorter(text) RETURNS text IMMUTABLE LANGUAGE sql RETURN left($1, 3);
CREATE TABLE customer (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL,
    upper_name text GENERATED ALWAYS AS (upper(name)) STORED,
    feeling mood, phone phone, lives place,
    seen timestamptz, bytes bytea, tags text[], extra jsonb, span tstzmultirange, at point,
    CONSTRAINT named CHECK (shorter(name) <> ''), UNIQUE NULLS NOT DISTINCT (at_night, phone),
    at_night bool);
INSERT INTO customer (name, feeling, phone, lives, seen, bytes, tags, extra, span, at)
SELECT 'name ' || n || E'\t\\.\n\\', 'so "la" la'::mood, '+86' || n,
    ROW('街', n)::place, '{NOW - timedelta(hours=2)}'::timestamptz,
    decode('00ff0a5c2e', 'hex'), ARRAY['a', NULL, '{{"'], '{{"k": "v"}}'::jsonb,
    '{{[2026-01-01,)}}'::tstzmultirange, '(1,2)'::point
FROM generate_series(1, 40) n;
CREATE TABLE waybill (id int PRIMARY KEY, customer bigint REFERENCES customer ON DELETE CASCADE,
    parent int REFERENCES waybill DEFERRABLE, seen timestamptz, scan oid);
INSERT INTO waybill SELECT n, n, 41 - n, NULL, lo_from_bytea(n, 'scan')
FROM generate_series(1, 40) n;
CREATE TABLE "客户 1"."Ta""ble" ("Ke'y" text, "with space" int, PRIMARY KEY ("Ke'y", "with space"));
INSERT INTO "客户 1"."Ta""ble" VALUES ('\N', 1), (E'\\.', 2);
CREATE TABLE scan (id int, at timestamptz NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE scan_2026 PARTITION OF scan FOR VALUES FROM ('2026-01-01') TO ('2027-01-01')
    PARTITION BY HASH (id);
CREATE TABLE scan_2026_0 PARTITION OF scan_2026 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE scan_2026_1 PARTITION OF scan_2026 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE INDEX ON scan (at);
INSERT INTO scan SELECT n, '2026-03-01' FROM generate_series(1, 100) n;
CREATE TABLE parent (a int); CREATE TABLE child (b int) INHERITS (parent);
INSERT INTO child VALUES (1, 2);
CREATE VIEW names AS SELECT id, name FROM customer WHERE feeling IS NOT NULL;
CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM names;
CREATE TABLE secret (id int PRIMARY KEY, who text);
INSERT INTO secret VALUES (1, 'nobody');
ALTER TABLE secret ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY mine ON secret USING (who = current_user);
CREATE STATISTICS of_two ON name, phone FROM customer;
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;
CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON waybill FOR EACH ROW EXECUTE FUNCTION refuse();
CREATE FUNCTION number_of_customers() RETURNS bigint LANGUAGE sql SECURITY DEFINER
    SET search_path = public AS 'SELECT count(*) FROM customer';
CREATE TABLE event_log (tag text);
CREATE FUNCTION logged() RETURNS event_trigger LANGUAGE plpgsql
    AS $$ BEGIN INSERT INTO public.event_log VALUES (tg_tag); END $$;
CREATE PUBLICATION changes FOR TABLE customer (id, name);
ALTER TABLE waybill OWNER TO {OWNER};
GRANT SELECT ON customer TO {OWNER};
ALTER DEFAULT PRIVILEGES IN SCHEMA "客户 1" GRANT SELECT ON TABLES TO {OWNER};
CREATE EVENT TRIGGER log_changes ON ddl_command_end EXECUTE FUNCTION logged();
"""
