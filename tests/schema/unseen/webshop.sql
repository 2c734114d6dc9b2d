-- A web shop as a framework makes it: plural tables, polymorphic and technical tables around.
-- personal: users id email encrypted_password full_name phone birthday locale sign_in_count current_sign_in_at current_sign_in_ip created_at updated_at
-- personal: addresses user_id recipient line1 line2 city zip country_code phone
-- personal: orders user_id number total_cents placed_at email shipping_address_id note ip_address
-- personal: order_items order_id product_id quantity unit_price
-- personal: reviews user_id body
-- personal: newsletter_signups email confirmed_at
-- personal: support_tickets customer_email subject message assigned_to
-- personal: payment_methods user_id card_last4 card_brand holder_name billing_zip
CREATE TABLE users (id bigserial PRIMARY KEY, email text NOT NULL, encrypted_password text, full_name text, phone text,
    birthday date, locale text, sign_in_count int, current_sign_in_at timestamp, current_sign_in_ip inet, created_at timestamp, updated_at timestamp);
CREATE TABLE addresses (id bigserial PRIMARY KEY, user_id bigint REFERENCES users, recipient text, line1 text, line2 text, city text, zip text,
    country_code char(2), phone text, created_at timestamp);
CREATE TABLE orders (id bigserial PRIMARY KEY, user_id bigint REFERENCES users, number text, state text, total_cents int, placed_at timestamp,
    email text, shipping_address_id bigint REFERENCES addresses, note text, ip_address inet, created_at timestamp, updated_at timestamp);
CREATE TABLE products (id bigserial PRIMARY KEY, name text, description text, sku text, price_cents int, weight numeric, image_url text, brand text);
CREATE TABLE order_items (id bigserial PRIMARY KEY, order_id bigint REFERENCES orders, product_id bigint REFERENCES products, quantity int, unit_price int);
CREATE TABLE reviews (id bigserial PRIMARY KEY, product_id bigint REFERENCES products, user_id bigint REFERENCES users, rating int, body text);
CREATE TABLE newsletter_signups (id bigserial PRIMARY KEY, email text, confirmed_at timestamp, source text);
CREATE TABLE support_tickets (id bigserial PRIMARY KEY, customer_email text, subject text, message text, assigned_to text, priority int);
CREATE TABLE payment_methods (id bigserial PRIMARY KEY, user_id bigint REFERENCES users, gateway text, card_last4 char(4), card_brand text, holder_name text, billing_zip text);
CREATE TABLE categories (id bigserial PRIMARY KEY, name text, parent_id bigint REFERENCES categories, position int);
CREATE TABLE warehouses (id bigserial PRIMARY KEY, name text, address text, city text, zip text, phone text, lat numeric, lng numeric);
CREATE TABLE schema_migrations (version text PRIMARY KEY);
CREATE TABLE delayed_jobs (id bigserial PRIMARY KEY, handler text, attempts int, last_error text, locked_by text, run_at timestamp);
CREATE TABLE mail_templates (id bigserial PRIMARY KEY, name text, subject text, body text);
CREATE TABLE tax_rates (id bigserial PRIMARY KEY, country text, state text, zip text, city text, rate numeric, name text);
INSERT INTO users (email, full_name, phone, birthday) SELECT 'u' || n || '@shop.example', (ARRAY['Anna Keller','Mary Jones','Tom Lee'])[n % 3 + 1], '+49 170 55500' || n, date '1970-01-01' + n FROM generate_series(10, 90) n;
INSERT INTO addresses (user_id, recipient, line1, city, zip) SELECT n, 'Anna Keller', n || ' Main St', 'Boston', '0210' || n % 9 FROM generate_series(1, 50) n;
INSERT INTO products (name, description, brand) SELECT 'Red Lamp ' || n, 'A lamp', 'Lumen' FROM generate_series(1, 30) n;
INSERT INTO support_tickets (customer_email, subject, message, assigned_to) SELECT 'u' || n || '@shop.example', 'Broken', 'It broke', 'Mary Jones' FROM generate_series(1, 30) n;
