-- An ERP system in the manner of Odoo: hundreds of tables, who-columns everywhere, relation tables
-- without a primary key, translated names in JSON, attachments as large objects, polymorphic notes.
-- personal: res_partner id name email phone mobile street street2 city zip vat birthdate comment user_id
-- personal: res_users id login partner_id signature
-- personal: hr_employee id user_id work_email private_email private_phone identification_id birthday bank_account job_title
-- personal: sale_order partner_id partner_shipping_id client_order_ref amount_total date_order note
-- personal: sale_order_line order_partner_id
-- personal: account_move partner_id invoice_date amount_total payment_reference
-- personal: res_partner_bank partner_id acc_number acc_holder_name
-- personal: mail_message author_id email_from body
-- personal: mail_followers partner_id
-- personal: delivery_contact partner_id recipient_name recipient_phone recipient_address delivered_on
-- personal: res_partner_category_rel partner_id
-- either: * create_uid write_uid
-- either: account_move move_type name reversed_entry_id
-- either: hr_employee active coach_id parent_id
-- either: res_partner lang tz is_company customer_rank supplier_rank color active parent_id commercial_partner_id create_date
-- either: res_users active company_id share create_date
-- either: sale_order name state
-- either: sale_order_line order_id product_id product_uom_qty price_unit discount
-- either: mail_message message_type date parent_id
-- either: delivery_contact id order_id
-- either: mail_followers id
-- either: res_partner_bank bank_bic
CREATE TYPE order_state AS ENUM ('draft', 'sent', 'sale', 'done', 'cancel');
CREATE TABLE res_users (
    id serial PRIMARY KEY, login varchar NOT NULL UNIQUE, partner_id integer, signature text, active boolean DEFAULT true,
    company_id integer, share boolean, create_uid integer REFERENCES res_users, create_date timestamp,
    write_uid integer REFERENCES res_users, write_date timestamp);
CREATE TABLE res_partner (
    id serial PRIMARY KEY, name varchar, email varchar, phone varchar, mobile varchar, street varchar, street2 varchar,
    city varchar, zip varchar, vat varchar, birthdate date, comment text, lang varchar, tz varchar, is_company boolean,
    customer_rank integer DEFAULT 0, supplier_rank integer DEFAULT 0, color integer, active boolean DEFAULT true,
    parent_id integer REFERENCES res_partner ON DELETE SET NULL, commercial_partner_id integer REFERENCES res_partner,
    user_id integer REFERENCES res_users, create_uid integer REFERENCES res_users, create_date timestamp,
    write_uid integer REFERENCES res_users, write_date timestamp);
ALTER TABLE res_users ADD FOREIGN KEY (partner_id) REFERENCES res_partner ON DELETE RESTRICT;
CREATE TABLE hr_employee (
    id serial PRIMARY KEY, user_id integer REFERENCES res_users, work_email varchar, private_email varchar,
    private_phone varchar, identification_id varchar, birthday date, bank_account varchar, job_title varchar,
    parent_id integer REFERENCES hr_employee, coach_id integer REFERENCES hr_employee, active boolean DEFAULT true);
CREATE TABLE product_template (id serial PRIMARY KEY, name jsonb NOT NULL, list_price numeric(16, 2), default_code varchar, weight numeric);
CREATE TABLE sale_order (
    id serial PRIMARY KEY, name varchar NOT NULL, state order_state DEFAULT 'draft', date_order timestamp NOT NULL,
    partner_id integer NOT NULL REFERENCES res_partner, partner_shipping_id integer REFERENCES res_partner,
    client_order_ref varchar, amount_total numeric(16, 2), note text, access_token uuid DEFAULT gen_random_uuid(),
    create_uid integer REFERENCES res_users, write_uid integer REFERENCES res_users, write_date timestamp);
CREATE TABLE sale_order_line (
    id serial PRIMARY KEY, order_id integer NOT NULL REFERENCES sale_order ON DELETE CASCADE,
    product_id integer REFERENCES product_template, order_partner_id integer REFERENCES res_partner,
    product_uom_qty numeric NOT NULL DEFAULT 1, price_unit numeric(16, 2), discount double precision,
    create_uid integer REFERENCES res_users, write_uid integer REFERENCES res_users);
CREATE TABLE account_move (
    id serial PRIMARY KEY, name varchar, move_type varchar NOT NULL, partner_id integer REFERENCES res_partner,
    invoice_date date, amount_total numeric(16, 2), payment_reference varchar,
    reversed_entry_id integer REFERENCES account_move, invoice_origin integer REFERENCES sale_order ON DELETE SET NULL);
CREATE TABLE res_partner_bank (
    id serial PRIMARY KEY, partner_id integer NOT NULL REFERENCES res_partner ON DELETE CASCADE, acc_number varchar NOT NULL,
    acc_holder_name varchar, bank_bic varchar, sequence integer);
CREATE TABLE mail_message (
    id serial PRIMARY KEY, model varchar, res_id integer, author_id integer REFERENCES res_partner, email_from varchar,
    body text, message_type varchar, date timestamp, parent_id integer REFERENCES mail_message ON DELETE SET NULL);
CREATE TABLE mail_followers (id serial PRIMARY KEY, res_model varchar, res_id integer, partner_id integer REFERENCES res_partner ON DELETE CASCADE,
    UNIQUE (res_model, res_id, partner_id));
CREATE TABLE delivery_contact (
    id serial PRIMARY KEY, order_id integer REFERENCES sale_order ON DELETE CASCADE, partner_id integer REFERENCES res_partner,
    recipient_name varchar, recipient_phone varchar, recipient_address varchar, delivered_on timestamp);
CREATE TABLE ir_attachment (id serial PRIMARY KEY, name varchar, res_model varchar, res_id integer, db_datas bytea, store_oid oid, checksum varchar(40), mimetype varchar);
CREATE TABLE ir_cron (id serial PRIMARY KEY, cron_name varchar, interval_number integer, interval_type varchar, nextcall timestamp, active boolean);
CREATE TABLE res_partner_category (id serial PRIMARY KEY, name jsonb, color integer, parent_path varchar);
CREATE TABLE res_partner_category_rel (category_id integer NOT NULL REFERENCES res_partner_category ON DELETE CASCADE,
    partner_id integer NOT NULL REFERENCES res_partner ON DELETE CASCADE, UNIQUE (category_id, partner_id));
-- 300 tables of modules, each with two keys to the users and one to the table before it.
DO $$
BEGIN
    FOR module IN 1..300 LOOP
        EXECUTE format('CREATE TABLE module_%s (id serial PRIMARY KEY, sequence integer, active boolean DEFAULT true,
            "%s%%" numeric, config jsonb, state order_state, create_uid integer REFERENCES res_users,
            write_uid integer REFERENCES res_users, write_date timestamp%s)', lpad(module::text, 3, '0'), module,
            CASE WHEN module > 1 THEN format(', parent_id integer REFERENCES module_%s', lpad((module - 1)::text, 3, '0')) ELSE '' END);
    END LOOP;
END $$;
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.write_date := localtimestamp; RETURN NEW; END $$;
CREATE TRIGGER touch BEFORE UPDATE ON sale_order FOR EACH ROW EXECUTE FUNCTION touch();
CREATE VIEW sale_report AS SELECT p.city, date_trunc('month', o.date_order) AS month, sum(o.amount_total) AS total
    FROM sale_order o JOIN res_partner p ON p.id = o.partner_id GROUP BY 1, 2;
INSERT INTO res_users (login, company_id, share, create_date) SELECT 'user' || n || '@erp.example', 1, false, timestamp '2020-01-01' FROM generate_series(1, 12) n;
INSERT INTO res_partner (name, email, phone, mobile, street, city, zip, vat, birthdate, lang, tz, is_company, customer_rank, user_id, create_uid, create_date, write_date)
    SELECT (ARRAY['王', '李', '张', '刘', '陈', '杨'])[n % 6 + 1] || (ARRAY['伟', '芳', '娜', '敏', '静', '磊', '洋'])[n % 7 + 1],
        'partner' || n || '@mail.example', '021-6' || lpad(n::text, 7, '0'), '138' || lpad((n * 7919 % 100000000)::text, 8, '0'),
        '中山路' || n || '号', '上海', '2000' || lpad((n % 90)::text, 2, '0'), CASE WHEN n % 5 = 0 THEN 'CN' || (100000000 + n) END,
        date '1960-01-01' + n * 37, 'zh_CN', 'Asia/Shanghai', false, n % 4, n % 12 + 1, n % 12 + 1, timestamp '2019-06-01' + n * interval '1 day', timestamp '2026-01-01' + n * interval '1 hour'
    FROM generate_series(1, 400) n;
UPDATE res_users SET partner_id = id;
UPDATE res_partner SET commercial_partner_id = id;
INSERT INTO hr_employee (user_id, work_email, private_email, private_phone, identification_id, birthday, bank_account, job_title, parent_id)
    SELECT n, 'user' || n || '@erp.example', 'home' || n || '@mail.example', '139' || lpad(n::text, 8, '0'), NULL, date '1980-01-01' + n * 100, '62220212' || lpad(n::text, 11, '0'), 'Clerk', nullif(n - 1, 0) FROM generate_series(1, 12) n;
INSERT INTO product_template (name, list_price, default_code, weight) SELECT jsonb_build_object('en_US', 'Parcel box ' || n, 'zh_CN', '纸箱' || n), n, 'BOX' || n, n * 0.1 FROM generate_series(1, 30) n;
INSERT INTO sale_order (name, state, date_order, partner_id, partner_shipping_id, client_order_ref, amount_total, create_uid, write_uid)
    SELECT 'S' || lpad(n::text, 5, '0'), (ARRAY['draft', 'sent', 'sale', 'done', 'cancel'])[n % 5 + 1]::order_state, timestamp '2019-01-01' + n * interval '2 days',
        n % 400 + 1, n % 400 + 1, 'PO' || n, n * 1.5, n % 12 + 1, n % 12 + 1 FROM generate_series(1, 1300) n;
INSERT INTO sale_order_line (order_id, product_id, order_partner_id, product_uom_qty, price_unit) SELECT n % 1300 + 1, n % 30 + 1, (n % 1300) % 400 + 1, n % 9 + 1, n % 50 FROM generate_series(1, 3000) n;
INSERT INTO account_move (name, move_type, partner_id, invoice_date, amount_total, payment_reference, invoice_origin)
    SELECT 'INV/' || n, 'out_invoice', n % 400 + 1, date '2019-01-05' + n * 5, n * 1.5, 'RF' || n, n FROM generate_series(1, 500) n;
UPDATE account_move SET reversed_entry_id = id - 1 WHERE id % 50 = 0;
INSERT INTO res_partner_bank (partner_id, acc_number, acc_holder_name, bank_bic) SELECT n, 'DE' || lpad((n * 13 % 97)::text, 2, '0') || '50010517' || lpad(n::text, 10, '0'), '王伟', 'INGDDEFF' FROM generate_series(1, 60) n;
INSERT INTO mail_message (model, res_id, author_id, email_from, body, message_type, date) SELECT 'sale.order', n, n % 400 + 1, 'partner' || (n % 400 + 1) || '@mail.example', '<p>请尽快发货</p>', 'comment', timestamp '2019-02-01' + n * interval '2 days' FROM generate_series(1, 900) n;
INSERT INTO mail_followers (res_model, res_id, partner_id) SELECT 'sale.order', n, n % 400 + 1 FROM generate_series(1, 300) n;
INSERT INTO delivery_contact (order_id, partner_id, recipient_name, recipient_phone, recipient_address, delivered_on)
    SELECT n, n % 400 + 1, '李娜', '137' || lpad(n::text, 8, '0'), '上海市浦东新区世纪大道' || n || '号', timestamp '2019-01-03' + n * interval '2 days' FROM generate_series(1, 1300) n;
INSERT INTO ir_attachment (name, res_model, res_id, db_datas, store_oid, checksum, mimetype) SELECT 'scan' || n, 'sale.order', n, decode(md5(n::text), 'hex'), lo_from_bytea(0, decode(md5(n::text), 'hex')), md5(n::text), 'image/png' FROM generate_series(1, 20) n;
INSERT INTO ir_cron (cron_name, interval_number, interval_type, nextcall, active) SELECT 'Job ' || n, 1, 'days', timestamp '2026-12-01', true FROM generate_series(1, 10) n;
INSERT INTO res_partner_category (name, color) SELECT jsonb_build_object('en_US', 'Group ' || n), n FROM generate_series(1, 5) n;
INSERT INTO res_partner_category_rel SELECT n % 5 + 1, n FROM generate_series(1, 200) n;
INSERT INTO module_001 (sequence) SELECT n FROM generate_series(1, 20) n;
INSERT INTO module_002 (sequence, parent_id) SELECT n, n FROM generate_series(1, 20) n;
