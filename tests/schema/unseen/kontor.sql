-- German, with blanks in names and tables without keys; bank data, network addresses, periods.
-- personal: Kunden~Daten ID Vorname Nachname Geburtsdatum E-Mail Telefon IBAN BIC Straße PLZ Ort Letzter~Besuch
-- personal: Bestellungen Kunden~ID Bestelldatum Lieferzeitraum Betrag
-- personal: Mitarbeiter ID Name Personalnummer Abteilung
-- personal: Lastschrift kontoinhaber iban bic mandatsreferenz
-- personal: zugriff adresse
-- personal: schicht fahrer_id zeitraum fahrzeug
-- personal: urlaub mitarbeiter_id zeitraum
CREATE TABLE "Kunden Daten" ("ID" int, "Vorname" text, "Nachname" text, "Geburtsdatum" date, "E-Mail" text, "Telefon" text, "IBAN" text, "BIC" text,
    "Straße" text, "PLZ" text, "Ort" text, "Letzter Besuch" date);
CREATE TABLE "Bestellungen" ("ID" int PRIMARY KEY, "Kunden ID" int, "Bestelldatum" date, "Lieferzeitraum" tstzrange, "Betrag" numeric, "Status" text);
CREATE TABLE "Artikel" ("ID" int PRIMARY KEY, "Bezeichnung" text, "Preis" numeric, "Verkaufszeitraum" daterange);
CREATE TABLE "Lieferanten" ("ID" int PRIMARY KEY, "Firma" text, "Telefon" text, "Ort" text, iban text, bic text);
CREATE TABLE "Mitarbeiter" ("ID" int PRIMARY KEY, "Name" text, "Personalnummer" text, "Abteilung" text, last_update timestamptz);
CREATE TABLE "Lastschrift" (nr int PRIMARY KEY, kontoinhaber text, iban text, bic text, mandatsreferenz text, last_update timestamptz);
CREATE TABLE zugriff (nr bigint PRIMARY KEY, adresse inet, pfad text, zeitpunkt timestamptz);
CREATE TABLE netzwerk (nr int PRIMARY KEY, netz cidr, gateway inet, bezeichnung text);
CREATE TABLE schicht (nr int PRIMARY KEY, fahrer_id int, zeitraum tsrange, fahrzeug text);
CREATE TABLE urlaub (nr int PRIMARY KEY, mitarbeiter_id int, zeitraum daterange);
CREATE TABLE preisliste (nr int PRIMARY KEY, artikel_id int REFERENCES "Artikel", gueltig daterange, preis numeric);
INSERT INTO "Kunden Daten" SELECT n, 'Anna', 'Müller', date '1970-01-01' + n, 'k' || n || '@kontor.example', '+49 30 90182' || n, 'DE89370400440532013000', 'COBADEFFXXX',
    'Hauptstraße ' || n, '10115', 'Berlin' FROM generate_series(10, 60) n;
INSERT INTO "Lastschrift" SELECT n, 'Anna Müller', 'DE89370400440532013000', 'COBADEFFXXX', 'M' || n FROM generate_series(10, 60) n;
INSERT INTO "Artikel" SELECT n, 'Lampe', 10 FROM generate_series(10, 60) n;
INSERT INTO zugriff SELECT n, ('10.0.0.' || n)::inet, '/' FROM generate_series(10, 60) n;
