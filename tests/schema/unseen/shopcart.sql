-- A shop in the manner of Magento: entity tables, addresses under parent_id, the customer repeated in orders.
-- personal: customer_entity entity_id email increment_id created_at updated_at is_active created_in prefix firstname middlename lastname suffix dob password_hash rp_token default_billing default_shipping taxvat confirmation gender failures_num first_failure group_id
-- personal: customer_address_entity parent_id city company country_id fax firstname lastname postcode region street telephone vat_id
-- personal: sales_order customer_id grand_total customer_email customer_firstname customer_lastname customer_dob customer_gender customer_taxvat remote_ip x_forwarded_for increment_id customer_note shipping_address_id billing_address_id customer_note_notify
-- personal: sales_order_address parent_id firstname lastname street city region postcode country_id telephone email company customer_id
-- personal: sales_order_item order_id product_id name price qty_ordered
-- personal: newsletter_subscriber subscriber_id subscriber_email customer_id subscriber_status change_status_at
-- personal: review_detail nickname title detail customer_id
-- personal: customer_log customer_id last_login_at last_logout_at
-- personal: admin_user user_id firstname lastname email username password created logdate is_active
CREATE TABLE store (store_id serial PRIMARY KEY, code text, name text, sort_order int, is_active int);
CREATE TABLE customer_group (customer_group_id serial PRIMARY KEY, customer_group_code text, tax_class_id int);
CREATE TABLE customer_entity (entity_id serial PRIMARY KEY, website_id int, email text, group_id int, increment_id text, store_id int REFERENCES store,
    created_at timestamp, updated_at timestamp, is_active int, created_in text, prefix text, firstname text, middlename text,
    lastname text, suffix text, dob date, password_hash text, rp_token text, default_billing int, default_shipping int, taxvat text, confirmation text,
    gender int, failures_num int, first_failure timestamp);
CREATE TABLE customer_address_entity (entity_id serial PRIMARY KEY, parent_id int REFERENCES customer_entity, is_active int, city text, company text,
    country_id text, fax text, firstname text, lastname text, postcode text, region text, street text, telephone text, vat_id text, created_at timestamp, updated_at timestamp);
CREATE TABLE sales_order (entity_id serial PRIMARY KEY, state text, status text, coupon_code text, store_id int REFERENCES store, customer_id int REFERENCES customer_entity,
    grand_total numeric, customer_email text, customer_firstname text, customer_lastname text, customer_dob date, customer_gender int, customer_taxvat text,
    remote_ip text, x_forwarded_for text, increment_id text, customer_note text, customer_note_notify int, shipping_address_id int, billing_address_id int, created_at timestamp, updated_at timestamp);
CREATE TABLE sales_order_address (entity_id serial PRIMARY KEY, parent_id int REFERENCES sales_order, customer_id int, firstname text, lastname text, street text, city text,
    region text, postcode text, country_id text, telephone text, email text, company text, address_type text);
CREATE TABLE catalog_product_entity (entity_id serial PRIMARY KEY, attribute_set_id int, type_id text, sku text, has_options int, created_at timestamp, updated_at timestamp);
CREATE TABLE catalog_product_entity_varchar (value_id serial PRIMARY KEY, attribute_id int, store_id int, entity_id int REFERENCES catalog_product_entity, value text);
CREATE TABLE sales_order_item (item_id serial PRIMARY KEY, order_id int REFERENCES sales_order, product_id int, name text, price numeric, qty_ordered numeric);
CREATE TABLE newsletter_subscriber (subscriber_id serial PRIMARY KEY, store_id int REFERENCES store, change_status_at timestamp, customer_id int, subscriber_email text, subscriber_status int);
CREATE TABLE review (review_id serial PRIMARY KEY, created_at timestamp, entity_id int, status_id int);
CREATE TABLE review_detail (detail_id serial PRIMARY KEY, review_id int REFERENCES review, store_id int, title text, detail text, nickname text, customer_id int REFERENCES customer_entity);
CREATE TABLE customer_log (log_id serial PRIMARY KEY, customer_id int, last_login_at timestamp, last_logout_at timestamp);
CREATE TABLE admin_user (user_id serial PRIMARY KEY, firstname text, lastname text, email text, username text, password text, created timestamp, logdate timestamp, is_active int);
CREATE TABLE eav_attribute (attribute_id serial PRIMARY KEY, entity_type_id int, attribute_code text, backend_type text, frontend_label text, note text);
CREATE TABLE cron_schedule (schedule_id serial PRIMARY KEY, job_code text, status text, messages text, created_at timestamp, scheduled_at timestamp);
CREATE TABLE core_config_data (config_id serial PRIMARY KEY, scope text, scope_id int, path text, value text, updated_at timestamp);
INSERT INTO customer_entity (email, firstname, lastname, dob) SELECT 'u' || n || '@cart.example', 'Mary', 'Jones', date '1970-01-01' + n FROM generate_series(1, 60) n;
INSERT INTO sales_order (customer_email, customer_firstname, remote_ip, increment_id) SELECT 'u' || n || '@cart.example', 'Mary', '198.51.100.' || n, '0000' || n FROM generate_series(1, 60) n;
INSERT INTO catalog_product_entity_varchar (value) SELECT 'Blue Shirt ' || n FROM generate_series(1, 60) n;
