-- Call records: partitions by day with numbers of callers, networks, intervals, high identity values,
-- staging tables without a key, unlogged tables, statistics objects, BRIN indexes.
-- personal: subscriber msisdn imsi id_card full_name addr tariff activated_on
-- personal: cdr a_number b_number duration cell_id started_at client_addr
-- personal: voicemail msisdn recording caller
-- personal: sms_log msisdn peer body
-- personal: device msisdn imei mac
-- personal: invoice_run msisdn total due_on
-- personal: agent agent_no agent_name ext
-- personal: call_note msisdn agent_no note
-- personal: cdr_staging a_number b_number
-- either: subscriber closed_on
CREATE TABLE tariff (code varchar(8) PRIMARY KEY, monthly numeric(8, 2), minutes interval);
CREATE TABLE subscriber (msisdn varchar(15) PRIMARY KEY, imsi varchar(15) UNIQUE, id_card char(18), full_name text, addr text, tariff varchar(8) REFERENCES tariff, activated_on date, closed_on date);
CREATE TABLE device (msisdn varchar(15) REFERENCES subscriber ON DELETE CASCADE, imei char(15), mac macaddr, seen_at timestamptz, PRIMARY KEY (msisdn, imei));
CREATE TABLE cdr (cdr_id bigint GENERATED ALWAYS AS IDENTITY (START 9000000000000000), a_number varchar(15), b_number varchar(15), started_at timestamptz NOT NULL, duration interval, cell_id integer, client_addr inet, charge numeric(10, 4), PRIMARY KEY (cdr_id, started_at)) PARTITION BY RANGE (started_at);
DO $$
BEGIN
    FOR month IN 0..47 LOOP
        EXECUTE format('CREATE TABLE cdr_%s PARTITION OF cdr FOR VALUES FROM (%L) TO (%L)', to_char(date '2023-01-01' + month * interval '1 month', 'YYYYMM'),
            to_char(date '2023-01-01' + month * interval '1 month', 'YYYY-MM-DD 00:00+08'), to_char(date '2023-01-01' + (month + 1) * interval '1 month', 'YYYY-MM-DD 00:00+08'));
    END LOOP;
END $$;
CREATE TABLE cdr_staging (a_number text, b_number text, started_at text, raw text);
CREATE UNLOGGED TABLE session_cache (token text PRIMARY KEY, payload jsonb, expires_at timestamptz);
CREATE TABLE sms_log (sms_id bigint PRIMARY KEY, msisdn varchar(15), peer varchar(15), body text, sent_at timestamp NOT NULL);
CREATE TABLE voicemail (id bigint PRIMARY KEY, msisdn varchar(15) REFERENCES subscriber ON DELETE CASCADE, caller varchar(15), recording bytea, left_at timestamptz NOT NULL);
CREATE TABLE invoice_run (msisdn varchar(15) REFERENCES subscriber, period char(6), total numeric(10, 2), due_on date NOT NULL, PRIMARY KEY (msisdn, period));
CREATE TABLE agent (agent_no char(6) PRIMARY KEY, agent_name text, ext text);
CREATE TABLE call_note (note_id bigint PRIMARY KEY, msisdn varchar(15), agent_no char(6) REFERENCES agent, note text, at timestamptz NOT NULL);
CREATE TABLE cell (cell_id integer PRIMARY KEY, site_name text, azimuth smallint, network cidr, uptime interval, installed_on date);
CREATE INDEX ON cdr USING brin (started_at);
CREATE STATISTICS cdr_pairs ON a_number, b_number FROM cdr;
INSERT INTO tariff VALUES ('S', 19, '100 minutes'), ('M', 39, '500 minutes'), ('L', 79, NULL);
INSERT INTO subscriber SELECT '8613' || lpad(n::text, 9, '0'), '46000' || lpad(n::text, 10, '0'), '11010519491231002X', (ARRAY['何', '吕', '施'])[n % 3 + 1] || '建国', '广州市天河路' || n || '号', (ARRAY['S', 'M', 'L'])[n % 3 + 1], date '2020-01-01' + n, CASE WHEN n % 5 = 0 THEN date '2022-01-01' + n END FROM generate_series(1, 400) n;
INSERT INTO device SELECT '8613' || lpad(n::text, 9, '0'), '35' || lpad(n::text, 13, '0'), ('08:00:2b:01:' || lpad(to_hex(n / 256), 2, '0') || ':' || lpad(to_hex(n % 256), 2, '0'))::macaddr, timestamptz '2026-01-01 00:00+08' FROM generate_series(1, 400) n;
INSERT INTO cdr (a_number, b_number, started_at, duration, cell_id, client_addr, charge) SELECT '8613' || lpad((n % 400 + 1)::text, 9, '0'), '8615' || lpad(n::text, 9, '0'), timestamptz '2023-01-01 00:30+08' + n * interval '8 hours', n % 600 * interval '1 second', n % 30 + 1, '10.8.0.0'::inet + n, 0.1 FROM generate_series(1, 4200) n;
INSERT INTO cdr_staging SELECT '8613' || n, '8615' || n, '2026-01-01', 'x' FROM generate_series(1, 50) n;
INSERT INTO session_cache SELECT md5(n::text), '{}', now() FROM generate_series(1, 5) n;
INSERT INTO sms_log SELECT n, '8613' || lpad((n % 400 + 1)::text, 9, '0'), '8615000000001', '您的快递已到', timestamp '2025-01-01 00:00' + n * interval '6 hours' FROM generate_series(1, 2500) n;
INSERT INTO voicemail SELECT n, '8613' || lpad((n % 400 + 1)::text, 9, '0'), '8615000000001', '\x52494646', timestamptz '2025-01-01 00:00+08' + n * interval '1 day' FROM generate_series(1, 300) n;
INSERT INTO invoice_run SELECT '8613' || lpad(n::text, 9, '0'), '202401', 39, date '2024-02-15' FROM generate_series(1, 400) n;
INSERT INTO agent SELECT lpad(n::text, 6, '0'), '客服' || n, '8' || n FROM generate_series(1, 8) n;
INSERT INTO call_note SELECT n, '8613' || lpad((n % 400 + 1)::text, 9, '0'), lpad((n % 8 + 1)::text, 6, '0'), '客户询问快递', timestamptz '2024-01-01 00:00+08' + n * interval '1 day' FROM generate_series(1, 600) n;
INSERT INTO cell SELECT n, 'Tower ' || n, n * 10, ('10.' || n || '.0.0/16')::cidr, n * interval '1 day', date '2015-01-01' FROM generate_series(1, 30) n;
