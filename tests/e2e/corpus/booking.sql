-- A booking system for flats and cars: periods with exclusion constraints, guests' passports, tables that
-- refer to each other in a circle, an audit trail written by triggers, a view that takes deletions.
-- personal: guest guest_id full_name passport_no nationality birth_date email mobile wechat created_at
-- personal: booking guest_id stay guests_count special_wish arrival_ip booked_at
-- personal: companion full_name passport_no booking_id
-- personal: payment card_last4 payer_name
-- personal: review guest_id comment stars
-- personal: guest_history old_row guest_id
-- personal: staff staff_id name phone
-- personal: message guest_id body
-- either: booking handled_by parent_booking property_id status
-- either: guest updated_at
-- either: message staff_id
-- either: payment paid_at
-- either: review written_at
-- either: staff active hired_on
-- either: companion booking_id
CREATE EXTENSION IF NOT EXISTS btree_gist;
CREATE EXTENSION IF NOT EXISTS pg_trgm;
CREATE TYPE amenity AS ENUM ('wifi', 'parking', 'kitchen');
CREATE TYPE price AS (amount numeric(10, 2), currency char(3));
CREATE TABLE staff (staff_id smallint PRIMARY KEY, name text NOT NULL, phone text, hired_on date, active boolean);
CREATE TABLE guest (
    guest_id uuid PRIMARY KEY DEFAULT gen_random_uuid(), full_name text NOT NULL, passport_no text, nationality char(2), birth_date date, email text, mobile text, wechat text,
    last_booking uuid, created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE property (property_id integer PRIMARY KEY, title text, city text, amenities amenity[], nightly price, location point, current_booking uuid, last_update timestamptz);
CREATE TABLE booking (
    booking_id uuid PRIMARY KEY, property_id integer NOT NULL REFERENCES property, guest_id uuid REFERENCES guest ON DELETE SET NULL, stay daterange NOT NULL, guests_count smallint, special_wish text, arrival_ip inet,
    booked_at timestamptz NOT NULL, handled_by smallint REFERENCES staff, parent_booking uuid REFERENCES booking, status text CHECK (status IN ('open', 'paid', 'cancelled')),
    EXCLUDE USING gist (property_id WITH =, stay WITH &&) WHERE (status <> 'cancelled'));
ALTER TABLE guest ADD FOREIGN KEY (last_booking) REFERENCES booking ON DELETE SET NULL;
ALTER TABLE property ADD FOREIGN KEY (current_booking) REFERENCES booking DEFERRABLE INITIALLY DEFERRED;
CREATE TABLE companion (companion_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, booking_id uuid NOT NULL REFERENCES booking ON DELETE CASCADE, full_name text, passport_no text);
CREATE TABLE payment (payment_id bigint PRIMARY KEY, booking_id uuid REFERENCES booking, paid price, card_last4 char(4), payer_name text, paid_at timestamptz NOT NULL);
CREATE TABLE review (review_id bigint PRIMARY KEY, guest_id uuid REFERENCES guest ON DELETE CASCADE, property_id integer REFERENCES property, stars smallint, comment text, written_at timestamptz);
CREATE TABLE message (message_id bigint PRIMARY KEY, guest_id uuid REFERENCES guest ON DELETE CASCADE, staff_id smallint REFERENCES staff, body text, sent_at timestamptz NOT NULL);
CREATE TABLE guest_history (history_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, guest_id uuid, old_row jsonb, changed_at timestamptz DEFAULT now());
CREATE TABLE rate_plan (property_id integer REFERENCES property, season daterange, nightly numeric(10, 2), PRIMARY KEY (property_id, season));
CREATE FUNCTION keep_history() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO guest_history (guest_id, old_row) VALUES (OLD.guest_id, to_jsonb(OLD)); RETURN NULL; END $$;
CREATE TRIGGER keep_history AFTER UPDATE ON guest FOR EACH ROW EXECUTE FUNCTION keep_history();
CREATE VIEW open_booking AS SELECT b.booking_id, g.full_name, b.stay FROM booking b LEFT JOIN guest g USING (guest_id) WHERE b.status = 'open';
CREATE FUNCTION cancel_open() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE booking SET status = 'cancelled' WHERE booking_id = OLD.booking_id; RETURN OLD; END $$;
CREATE TRIGGER cancel_open INSTEAD OF DELETE ON open_booking FOR EACH ROW EXECUTE FUNCTION cancel_open();
CREATE INDEX guest_name_trgm ON guest USING gin (full_name gin_trgm_ops);
INSERT INTO staff SELECT n, (ARRAY['Lin', 'Zhao', 'Sun'])[n % 3 + 1] || ' ' || n, '133' || lpad(n::text, 8, '0'), date '2018-01-01', true FROM generate_series(1, 6) n;
INSERT INTO guest (guest_id, full_name, passport_no, nationality, birth_date, email, mobile, created_at) SELECT md5('guest' || n)::uuid, (ARRAY['Maria Garcia', 'John Smith', '林小燕', '佐藤健'])[n % 4 + 1], 'E' || lpad(n::text, 8, '0'), (ARRAY['ES', 'US', 'CN', 'JP'])[n % 4 + 1], date '1960-01-01' + n * 30, 'guest' || n || '@mail.example', '+86 138' || lpad(n::text, 8, '0'), timestamptz '2018-01-01 00:00+08' + n * interval '4 days' FROM generate_series(1, 500) n;
INSERT INTO property SELECT n, 'Flat ' || n, '杭州', ARRAY['wifi', 'kitchen']::amenity[], ROW(300 + n, 'CNY')::price, point(120 + n * 0.01, 30), NULL, timestamptz '2026-01-01 00:00+08' FROM generate_series(1, 40) n;
INSERT INTO booking (booking_id, property_id, guest_id, stay, guests_count, arrival_ip, booked_at, handled_by, status) SELECT md5('booking' || n)::uuid, n % 40 + 1, md5('guest' || n % 500 + 1)::uuid, daterange(date '2019-01-01' + n, date '2019-01-01' + n + 3), n % 4 + 1, '172.16.0.0'::inet + n, timestamptz '2018-12-01 00:00+08' + n * interval '1 day', n % 6 + 1, (ARRAY['open', 'paid', 'paid', 'cancelled'])[n % 4 + 1] FROM generate_series(1, 1500) n;
UPDATE booking SET parent_booking = md5('booking' || 1)::uuid WHERE booking_id = md5('booking' || 41)::uuid;
UPDATE guest g SET last_booking = b.booking_id FROM (SELECT guest_id, (array_agg(booking_id ORDER BY booked_at DESC))[1] AS booking_id FROM booking GROUP BY guest_id) b WHERE b.guest_id = g.guest_id AND g.nationality = 'CN';
UPDATE property SET current_booking = md5('booking' || (1440 + property_id))::uuid WHERE property_id <= 10;
INSERT INTO companion (booking_id, full_name, passport_no) SELECT md5('booking' || n)::uuid, 'Ana Garcia', 'E9' || lpad(n::text, 7, '0') FROM generate_series(1, 700) n;
INSERT INTO payment SELECT n, md5('booking' || n)::uuid, ROW(300, 'CNY')::price, lpad((n % 10000)::text, 4, '0'), 'John Smith', timestamptz '2019-01-02 00:00+08' + n * interval '1 day' FROM generate_series(1, 1500, 3) n;
INSERT INTO review SELECT n, md5('guest' || n)::uuid, n % 40 + 1, n % 5 + 1, '很干净', timestamptz '2022-01-01 00:00+08' FROM generate_series(1, 100) n;
INSERT INTO message SELECT n, md5('guest' || n)::uuid, n % 6 + 1, '几点可以入住?', timestamptz '2020-01-01 00:00+08' + n * interval '3 days' FROM generate_series(1, 500) n;
INSERT INTO rate_plan SELECT n, daterange('2026-01-01', '2026-06-01'), 300 FROM generate_series(1, 40) n;
