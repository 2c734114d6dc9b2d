-- A web shop in the manner of Magento: attributes as rows (EAV), composite keys with the store, quotes
-- and orders with copies of the customer's data, IP addresses, money, enums, serialised JSON.
-- personal: customer_entity entity_id email firstname middlename lastname dob gender taxvat password_hash created_at confirmation
-- personal: customer_entity_varchar entity_id value
-- personal: customer_address_entity parent_id firstname lastname street city postcode telephone fax region company
-- personal: customer_visitor customer_id last_ip
-- personal: sales_order customer_id customer_email customer_firstname customer_lastname remote_ip x_forwarded_for grand_total gift_message
-- personal: sales_order_address firstname lastname street city postcode telephone email
-- personal: sales_order_payment cc_last_4 cc_owner iban
-- personal: quote customer_id customer_email customer_note
-- personal: newsletter_subscriber customer_id subscriber_email
-- personal: wishlist customer_id
-- personal: review_detail customer_id nickname detail
-- personal: gdpr_request customer_id payload
-- either: customer_entity failures_num is_active updated_at store_id
-- either: customer_visitor last_visit_at session_id visitor_id
-- either: newsletter_subscriber subscriber_id subscriber_status change_status_at
-- either: review_detail rating title
-- either: sales_invoice grand_total
-- either: sales_order weight
-- either: sales_order_address country_id
-- either: customer_address_entity country_id is_active
-- either: sales_order_item name order_id parent_item_id price qty_ordered sku store_id
-- either: sales_order_payment additional_information amount_paid method order_id store_id
CREATE TYPE order_status AS ENUM ('pending', 'processing', 'complete', 'closed', 'canceled');
CREATE TABLE store (store_id smallint PRIMARY KEY, code varchar(32) UNIQUE, website varchar(64), is_active boolean);
CREATE TABLE eav_attribute (attribute_id smallint PRIMARY KEY, attribute_code varchar(60), backend_type varchar(8), is_required smallint);
CREATE TABLE customer_entity (
    entity_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, store_id smallint REFERENCES store ON DELETE SET NULL, email varchar(255),
    firstname varchar(255), middlename varchar(255), lastname varchar(255), dob date, gender smallint, taxvat varchar(50),
    password_hash varchar(128), confirmation varchar(64), created_at timestamp DEFAULT CURRENT_TIMESTAMP, updated_at timestamp DEFAULT CURRENT_TIMESTAMP,
    is_active smallint DEFAULT 1, failures_num smallint DEFAULT 0, UNIQUE (email, store_id));
CREATE TABLE customer_entity_varchar (
    value_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, attribute_id smallint NOT NULL REFERENCES eav_attribute,
    entity_id bigint NOT NULL REFERENCES customer_entity ON DELETE CASCADE, value varchar(255), UNIQUE (entity_id, attribute_id));
CREATE TABLE customer_address_entity (
    entity_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, parent_id bigint REFERENCES customer_entity ON DELETE CASCADE, firstname varchar(255),
    lastname varchar(255), company varchar(255), street text, city varchar(255), region varchar(255), postcode varchar(255), country_id char(2), telephone varchar(255), fax varchar(255), is_active smallint);
CREATE TABLE customer_visitor (visitor_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer_id bigint REFERENCES customer_entity ON DELETE CASCADE, session_id varchar(64), last_ip inet, last_visit_at timestamp);
CREATE TABLE sales_order (
    store_id smallint NOT NULL REFERENCES store, entity_id bigint NOT NULL, increment_id varchar(50) UNIQUE, status order_status NOT NULL, customer_id bigint REFERENCES customer_entity ON DELETE SET NULL,
    customer_email varchar(128), customer_firstname varchar(128), customer_lastname varchar(128), remote_ip varchar(45), x_forwarded_for varchar(255),
    grand_total money, currency char(3), gift_message text, created_at timestamp NOT NULL, updated_at timestamp NOT NULL, weight numeric(12, 4), PRIMARY KEY (store_id, entity_id));
CREATE TABLE sales_order_address (
    entity_id bigint PRIMARY KEY, store_id smallint NOT NULL, order_id bigint NOT NULL, address_type varchar(16), firstname varchar(255), lastname varchar(255),
    street varchar(255), city varchar(255), postcode varchar(255), telephone varchar(255), email varchar(255), country_id char(2),
    FOREIGN KEY (store_id, order_id) REFERENCES sales_order ON DELETE CASCADE);
CREATE TABLE sales_order_item (item_id bigint PRIMARY KEY, store_id smallint NOT NULL, order_id bigint NOT NULL, parent_item_id bigint REFERENCES sales_order_item ON DELETE CASCADE,
    sku varchar(255), name varchar(255), qty_ordered numeric(12, 4), price money, FOREIGN KEY (store_id, order_id) REFERENCES sales_order ON DELETE CASCADE);
CREATE TABLE sales_order_payment (entity_id bigint PRIMARY KEY, store_id smallint NOT NULL, order_id bigint NOT NULL, method varchar(128), cc_last_4 char(4), cc_owner varchar(128), iban varchar(34),
    amount_paid money, additional_information jsonb, FOREIGN KEY (store_id, order_id) REFERENCES sales_order ON DELETE CASCADE);
CREATE TABLE sales_invoice (store_id smallint, entity_id bigint, order_id bigint, grand_total money, created_at timestamp NOT NULL, PRIMARY KEY (store_id, entity_id),
    FOREIGN KEY (store_id, order_id) REFERENCES sales_order ON DELETE NO ACTION);
CREATE TABLE quote (entity_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, customer_id bigint, customer_email varchar(255), customer_note text, items_count integer, is_active smallint, updated_at timestamp);
CREATE TABLE newsletter_subscriber (subscriber_id bigint PRIMARY KEY, customer_id bigint REFERENCES customer_entity ON DELETE CASCADE, subscriber_email varchar(150), subscriber_status integer, change_status_at timestamp);
CREATE TABLE wishlist (wishlist_id bigint PRIMARY KEY, customer_id bigint UNIQUE REFERENCES customer_entity ON DELETE CASCADE, shared smallint, sharing_code varchar(32), updated_at timestamp);
CREATE TABLE review_detail (detail_id bigint PRIMARY KEY, customer_id bigint REFERENCES customer_entity ON DELETE SET NULL, title varchar(255), detail text, nickname varchar(128), rating smallint CHECK (rating BETWEEN 1 AND 5));
CREATE TABLE gdpr_request (request_id uuid PRIMARY KEY DEFAULT gen_random_uuid(), customer_id bigint, payload jsonb, created_at timestamptz DEFAULT now());
CREATE TABLE catalog_product (entity_id bigint PRIMARY KEY, sku varchar(64) UNIQUE, attributes jsonb, price money, search tsvector GENERATED ALWAYS AS (to_tsvector('simple', sku)) STORED);
CREATE TABLE core_config (config_id serial PRIMARY KEY, path varchar(255), value text);
CREATE TABLE cron_schedule (schedule_id bigint PRIMARY KEY, job_code varchar(255), status varchar(7), scheduled_at timestamp);
INSERT INTO store VALUES (0, 'admin', 'admin', true), (1, 'cn', 'base', true), (2, 'hk', 'base', true);
INSERT INTO eav_attribute VALUES (1, 'wechat_id', 'varchar', 0), (2, 'id_card', 'varchar', 0), (3, 'newsletter_color', 'varchar', 0);
INSERT INTO customer_entity (store_id, email, firstname, lastname, dob, gender, password_hash, created_at, updated_at)
    SELECT n % 2 + 1, 'buyer' || n || '@mail.example', (ARRAY['伟', '芳', '娜', '敏'])[n % 4 + 1], (ARRAY['王', '李', '张'])[n % 3 + 1], date '1970-01-01' + n * 31, n % 3, md5(n::text), timestamp '2018-01-01' + n * interval '3 days', timestamp '2026-01-01' FROM generate_series(1, 500) n;
INSERT INTO customer_entity_varchar (attribute_id, entity_id, value) SELECT 1, n, 'wxid_' || md5(n::text) FROM generate_series(1, 500) n;
INSERT INTO customer_address_entity (parent_id, firstname, lastname, street, city, region, postcode, country_id, telephone) SELECT n, '伟', '王', '南京西路' || n || '号', '上海', '上海', '200040', 'CN', '136' || lpad(n::text, 8, '0') FROM generate_series(1, 500) n;
INSERT INTO customer_visitor (customer_id, session_id, last_ip, last_visit_at) SELECT n % 500 + 1, md5(n::text), '10.0.0.0'::inet + n, timestamp '2024-01-01' + n * interval '1 hour' FROM generate_series(1, 700) n;
INSERT INTO sales_order SELECT n % 2 + 1, n, '1' || lpad(n::text, 8, '0'), (ARRAY['pending', 'processing', 'complete', 'closed', 'canceled'])[n % 5 + 1]::order_status, n % 500 + 1, 'buyer' || (n % 500 + 1) || '@mail.example', '伟', '王', '10.0.' || n % 200 || '.7', NULL, (n * 1.5)::numeric::money, 'CNY', NULL, timestamp '2020-01-01' + n * interval '1 day', timestamp '2020-01-02' + n * interval '1 day', n % 10 FROM generate_series(1, 1500) n;
INSERT INTO sales_order_address SELECT n, n % 2 + 1, n, 'shipping', '伟', '王', '南京西路' || n || '号', '上海', '200040', '136' || lpad(n::text, 8, '0'), 'buyer' || (n % 500 + 1) || '@mail.example', 'CN' FROM generate_series(1, 1500) n;
INSERT INTO sales_order_item SELECT n, n % 2 + 1, n, NULL, 'BOX' || n % 20, 'Parcel box', 1, 9.5::numeric::money FROM generate_series(1, 1500) n;
INSERT INTO sales_order_item SELECT 10000 + n, n % 2 + 1, n, n, 'TAPE', 'Tape', 1, 1::numeric::money FROM generate_series(1, 300) n;
INSERT INTO sales_order_payment SELECT n, n % 2 + 1, n, 'card', lpad((n % 10000)::text, 4, '0'), '王伟', CASE WHEN n % 3 = 0 THEN 'DE89370400440532013000' END, (n * 1.5)::numeric::money, '{"fraud": false}' FROM generate_series(1, 1500) n;
INSERT INTO sales_invoice SELECT n % 2 + 1, n, n, (n * 1.5)::numeric::money, timestamp '2020-01-02' + n * interval '1 day' FROM generate_series(1, 1500, 2) n;
INSERT INTO quote (customer_id, customer_email, items_count, is_active, updated_at) SELECT n, 'buyer' || n || '@mail.example', n % 4, n % 2, timestamp '2025-01-01' + n * interval '1 day' FROM generate_series(1, 300) n;
INSERT INTO newsletter_subscriber SELECT n, n, 'buyer' || n || '@mail.example', 1, timestamp '2024-01-01' FROM generate_series(1, 200) n;
INSERT INTO wishlist SELECT n, n, 0, md5(n::text), timestamp '2024-06-01' FROM generate_series(1, 100) n;
INSERT INTO review_detail SELECT n, n, 'Good', '包装很好', 'fast_buyer' || n, n % 5 + 1 FROM generate_series(1, 80) n;
INSERT INTO gdpr_request (customer_id, payload) SELECT n, jsonb_build_object('email', 'buyer' || n || '@mail.example', 'phone', '13600000000') FROM generate_series(1, 10) n;
INSERT INTO catalog_product (entity_id, sku, attributes, price) SELECT n, 'BOX' || n, '{"color": "brown"}', 9.5::numeric::money FROM generate_series(1, 20) n;
INSERT INTO core_config (path, value) SELECT 'web/url/' || n, 'https://shop.example' FROM generate_series(1, 20) n;
INSERT INTO cron_schedule SELECT n, 'indexer', 'success', timestamp '2026-01-01' FROM generate_series(1, 50) n;
