-- A customer-relations system that grew in Germany: names with spaces, umlauts and a per cent sign,
-- extension and domain types, arrays, row security, rules, a schema of its own, an unmapped archive.
-- personal: Kunden Daten ID Vorname Nachname E-Mail Adressen Geburtsdatum iban Straße PLZ Ort Telefon Newsletter? geändert
-- personal: Kontakte Kunde Notiz Anruf am
-- personal: Vertrag Kunde Beginn Betrag
-- personal: Mitarbeiter Personalnummer Name Durchwahl
-- personal: einwilligung Kunde zweck erteilt_am widerrufen_am
-- personal: web_login Kunde login ip user_agent
-- personal: beschwerde Kunde text bearbeiter
-- either: Kunden Daten 100% Betreuer Stufe letzte_bestellung merkmale
-- either: Mitarbeiter eintritt
CREATE EXTENSION IF NOT EXISTS citext;
CREATE EXTENSION IF NOT EXISTS hstore;
CREATE SCHEMA "Vertrieb DE";
SET search_path = "Vertrieb DE", public;
CREATE DOMAIN plz AS char(5) CHECK (VALUE ~ '^[0-9]{5}$');
CREATE DOMAIN iban AS varchar(34) CHECK (VALUE IS NULL OR length(VALUE) >= 15);
CREATE TYPE "Stufe" AS ENUM ('Interessent', 'Kunde', 'Ehemalig');
CREATE TABLE "Mitarbeiter" ("Personalnummer" integer PRIMARY KEY, "Name" text, "Durchwahl" text, eintritt date);
CREATE TABLE "Kunden Daten" (
    "ID" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "Vorname" text, "Nachname" text, "E-Mail Adressen" citext[], "Geburtsdatum" date, iban iban,
    "Straße" text, "PLZ" plz, "Ort" text, "Telefon" text, "Stufe" "Stufe" NOT NULL DEFAULT 'Interessent', "100%" numeric(5, 2), "Newsletter?" boolean,
    merkmale hstore, "Betreuer" integer REFERENCES "Mitarbeiter", "geändert" timestamptz NOT NULL DEFAULT now(), letzte_bestellung date);
CREATE TABLE "Kontakte" ("Nr." bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "Kunde" bigint REFERENCES "Kunden Daten" ON DELETE CASCADE, "Notiz" text, "Anruf am" timestamptz, "Dauer" interval);
CREATE TABLE "Vertrag" ("Nr" text PRIMARY KEY, "Kunde" bigint NOT NULL REFERENCES "Kunden Daten" ON DELETE RESTRICT, "Beginn" date NOT NULL, "Ende" date, "Betrag" numeric(10, 2), "Laufzeit" daterange GENERATED ALWAYS AS (daterange("Beginn", "Ende")) STORED);
CREATE TABLE einwilligung ("Kunde" bigint REFERENCES "Kunden Daten" ON DELETE CASCADE, zweck text, erteilt_am timestamptz, widerrufen_am timestamptz, PRIMARY KEY ("Kunde", zweck));
CREATE TABLE web_login (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), "Kunde" bigint REFERENCES "Kunden Daten" ON DELETE CASCADE, login citext UNIQUE, ip inet, user_agent text, at timestamptz);
CREATE TABLE beschwerde (id serial PRIMARY KEY, "Kunde" bigint REFERENCES "Kunden Daten" ON DELETE SET NULL, text text, bearbeiter integer REFERENCES "Mitarbeiter", eingang date NOT NULL, offen boolean NOT NULL DEFAULT true);
CREATE TABLE produkt ("Art.-Nr." text PRIMARY KEY, "Bezeichnung" text, "Preis €" numeric(8, 2), "select" integer, "order" text, "user" text);
CREATE TABLE "Änderungsprotokoll" (id bigserial PRIMARY KEY, tabelle text, aktion text, am timestamptz DEFAULT now());
ALTER TABLE beschwerde ENABLE ROW LEVEL SECURITY;
CREATE POLICY offene ON beschwerde USING (true);
CREATE FUNCTION protokoll() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO "Vertrieb DE"."Änderungsprotokoll" (tabelle, aktion) VALUES (TG_TABLE_NAME, TG_OP); RETURN NULL; END $$;
CREATE TRIGGER protokoll AFTER DELETE ON "Kontakte" FOR EACH ROW EXECUTE FUNCTION protokoll();
CREATE RULE kein_update AS ON UPDATE TO produkt DO INSTEAD NOTHING;
CREATE VIEW "Aktive Kunden" WITH (security_barrier) AS SELECT "ID", "Nachname" FROM "Kunden Daten" WHERE "Stufe" = 'Kunde';
INSERT INTO "Mitarbeiter" SELECT n, (ARRAY['Jürgen Müller', 'Anna Schmidt', 'Bernd Weiß'])[n % 3 + 1], '-' || (100 + n), date '2015-01-01' + n FROM generate_series(1, 9) n;
INSERT INTO "Kunden Daten" ("Vorname", "Nachname", "E-Mail Adressen", "Geburtsdatum", iban, "Straße", "PLZ", "Ort", "Telefon", "Stufe", "100%", "Newsletter?", merkmale, "Betreuer", "geändert", letzte_bestellung)
    SELECT (ARRAY['Hans', 'Ursula', 'Günther', 'Käthe'])[n % 4 + 1], (ARRAY['Schröder', 'Weiß', 'Müller'])[n % 3 + 1], ARRAY['k' || n || '@mail.example', 'K' || n || '@web.example']::citext[], date '1950-01-01' + n * 40,
        'DE89370400440532013000', 'Hauptstraße ' || n, lpad((10000 + n)::text, 5, '0'), 'Köln', '+49 221 ' || (500000 + n), (ARRAY['Interessent', 'Kunde', 'Ehemalig'])[n % 3 + 1]::"Stufe", n % 100, n % 2 = 0, hstore('farbe', 'rot'), n % 9 + 1,
        timestamptz '2026-01-01 00:00+01' + n * interval '1 hour', date '2018-01-01' + n * 5 FROM generate_series(1, 500) n;
INSERT INTO "Kontakte" ("Kunde", "Notiz", "Anruf am", "Dauer") SELECT n % 500 + 1, 'Rückruf erbeten', timestamptz '2020-01-01 00:00+01' + n * interval '2 days', n * interval '1 second' FROM generate_series(1, 1200) n;
INSERT INTO "Vertrag" ("Nr", "Kunde", "Beginn", "Ende", "Betrag") SELECT 'V-' || n, n * 4, date '2019-01-01' + n * 7, date '2021-01-01' + n * 7, n FROM generate_series(1, 120) n;
INSERT INTO einwilligung SELECT n, 'Werbung', timestamptz '2022-01-01 00:00+01', NULL FROM generate_series(1, 300) n;
INSERT INTO web_login ("Kunde", login, ip, user_agent, at) SELECT n, 'Kunde' || n, ('2001:db8::' || to_hex(n))::inet, 'Mozilla/5.0', timestamptz '2025-06-01 00:00+02' + n * interval '1 hour' FROM generate_series(1, 200) n;
INSERT INTO beschwerde ("Kunde", text, bearbeiter, eingang, offen) SELECT n * 3, 'Paket beschädigt', n % 9 + 1, date '2020-01-01' + n * 20, n % 4 = 0 FROM generate_series(1, 100) n;
INSERT INTO produkt SELECT 'A-' || n, 'Karton', n, n, 'x', 'y' FROM generate_series(1, 10) n;
