-- Tracks of couriers on the map: geometric, network, bit, XML, text-search, range and composite types,
-- large arrays, deep schemas, default privileges, a table without columns, infinite and ancient dates.
-- personal: rider rider_id real_name phone home idcard_no last_fix blood_group device
-- personal: track rider_id path fix_times
-- personal: parcel_scan rider_id receiver_name receiver_phone receiver_point scanned_at
-- personal: incident_report rider_id narrative photo
-- personal: contact person phones
-- either: contact contact_id since
-- either: rider joined left_on speed
CREATE SCHEMA fleet;
CREATE SCHEMA ref;
CREATE TYPE ref.person AS (family text, given text, born date);
CREATE TYPE ref.speed_range AS RANGE (subtype = float8);
CREATE TABLE ref.zone (zone_id integer PRIMARY KEY, area polygon, bounds box, centre circle, axis lseg, border path, flags bit(8), mask bit varying(16), kind "char");
CREATE TABLE ref.doc (doc_id integer PRIMARY KEY, body xml, words tsvector, query tsquery, hash bytea, size bigint, price money, version pg_lsn, snapshot txid_snapshot);
CREATE TABLE ref.empty_table ();
CREATE TABLE fleet.rider (rider_id integer PRIMARY KEY, real_name text, phone text, home point, idcard_no text, blood_group char(2), last_fix point, joined date, left_on date, speed ref.speed_range, device macaddr8);
CREATE TABLE fleet.track (track_id bigint PRIMARY KEY, rider_id integer REFERENCES fleet.rider ON DELETE CASCADE, path path, fix_times timestamptz[], speeds real[], started_at timestamptz NOT NULL, tags text[]);
CREATE TABLE fleet.parcel_scan (scan_id bigint PRIMARY KEY, rider_id integer REFERENCES fleet.rider, receiver_name text, receiver_phone text, receiver_point point, scanned_at timestamptz, valid_until timestamptz, raw json);
CREATE TABLE fleet.incident_report (report_id uuid PRIMARY KEY, rider_id integer REFERENCES fleet.rider ON DELETE SET NULL, narrative text, photo bytea, happened_on date NOT NULL, hidden boolean);
CREATE TABLE fleet.contact (contact_id integer PRIMARY KEY, person ref.person, phones text[], since date NOT NULL);
CREATE TABLE fleet.vehicle (plate text PRIMARY KEY, model text, capacity numeric, dims box, mileage oid, online xid8, period int4range, tz interval);
CREATE INDEX ON fleet.track USING gin (tags);
CREATE INDEX ON fleet.rider USING gist (home);
ALTER DEFAULT PRIVILEGES IN SCHEMA fleet GRANT SELECT ON TABLES TO PUBLIC;
INSERT INTO ref.zone SELECT n, polygon(box(point(n, n), point(n + 1, n + 1))), box(point(n, n), point(n + 1, n + 1)), circle(point(n, n), 1), lseg(point(0, 0), point(n, n)), path '[(0,0),(1,1)]', n::bit(8), B'101', 'z' FROM generate_series(1, 40) n;
INSERT INTO ref.doc SELECT n, NULL, to_tsvector('simple', 'rule ' || n), to_tsquery('simple', 'rule'), '\x00', n, n::numeric::money, '0/16B3748', NULL FROM generate_series(1, 20) n;
INSERT INTO fleet.rider SELECT n, (ARRAY['马', '朱', '胡'])[n % 3 + 1] || '骑手', '158' || lpad(n::text, 8, '0'), point(121.4 + n * 0.001, 31.2), '310101199001011234', 'A', point(121.5, 31.3), date '2019-01-01' + n, CASE WHEN n % 3 = 0 THEN date '2021-01-01' + n END, ref.speed_range(0, n), '08:00:2b:01:02:03:04:05' FROM generate_series(1, 150) n;
INSERT INTO fleet.track SELECT n, n % 150 + 1, path '[(121,31),(122,32)]', ARRAY[timestamptz '2024-01-01 00:00+08', timestamptz '2024-01-01 00:05+08'], ARRAY[1.5, 2.5]::real[], timestamptz '2024-01-01 00:00+08' + n * interval '6 hours', ARRAY['day', 'rain'] FROM generate_series(1, 2000) n;
INSERT INTO fleet.parcel_scan SELECT n, n % 150 + 1, '王先生', '188' || lpad(n::text, 8, '0'), point(121.4, 31.2), CASE WHEN n % 100 = 0 THEN NULL ELSE timestamptz '2022-01-01 00:00+08' + n * interval '12 hours' END, CASE WHEN n % 2 = 0 THEN 'infinity'::timestamptz ELSE timestamptz '0044-03-15 00:00 BC' END, '{"k": 1, "k": 2}' FROM generate_series(1, 2500) n;
INSERT INTO fleet.incident_report SELECT md5(n::text)::uuid, n, '摔倒, 轻伤', '\xffd8', date '2019-01-01' + n * 30, false FROM generate_series(1, 60) n;
INSERT INTO fleet.contact SELECT n, ROW('钱', '一', date '1990-01-01')::ref.person, ARRAY['188' || lpad(n::text, 8, '0')], date '2020-01-01' + n * 20 FROM generate_series(1, 90) n;
INSERT INTO fleet.vehicle SELECT '沪A' || lpad(n::text, 5, '0'), 'van', n, box(point(0, 0), point(2, 5)), n::text::oid, n::text::xid8, int4range(n, n + 5), '8 hours' FROM generate_series(1, 30) n;
