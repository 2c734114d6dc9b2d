-- An ERP in the manner of Odoo: "partner" holds the customers, create_uid and write_date everywhere.
-- personal: res_partner id name display_name date title ref lang tz vat website comment credit_limit function street street2 zip city state_id country_id partner_latitude partner_longitude email phone mobile company_name email_normalized phone_sanitized create_uid write_uid create_date parent_id user_id active is_company type
-- personal: res_users id login password partner_id signature active create_uid write_uid create_date
-- personal: res_company create_uid write_uid
-- personal: res_partner_bank acc_number sanitized_acc_number acc_holder_name partner_id iban bic create_uid write_uid
-- personal: sale_order partner_id partner_invoice_id partner_shipping_id date_order user_id amount_total note create_uid write_uid name validity_date
-- personal: sale_order_line order_id product_id product_uom_qty price_unit name create_uid write_uid
-- personal: stock_picking partner_id create_uid write_uid name
-- personal: hr_employee id name work_email work_phone mobile_phone private_email birthday gender marital identification_id passport_id job_title user_id company_id active create_uid write_uid create_date
-- personal: crm_lead id contact_name partner_name email_from phone probability partner_id user_id create_uid write_uid
-- personal: product_template create_uid write_uid
CREATE TABLE res_country (id serial PRIMARY KEY, name text, code char(2));
CREATE TABLE res_country_state (id serial PRIMARY KEY, country_id int REFERENCES res_country, name text, code text);
CREATE TABLE res_currency (id serial PRIMARY KEY, name text, symbol text, rounding numeric, active boolean);
CREATE TABLE res_users (id serial PRIMARY KEY, active boolean, login text, password text, partner_id int, signature text,
    create_uid int REFERENCES res_users, create_date timestamp, write_uid int REFERENCES res_users, write_date timestamp);
CREATE TABLE res_company (id serial PRIMARY KEY, name text, partner_id int, currency_id int REFERENCES res_currency, email text, phone text,
    create_uid int REFERENCES res_users, create_date timestamp, write_uid int REFERENCES res_users, write_date timestamp);
CREATE TABLE res_partner (id serial PRIMARY KEY, name text, company_id int REFERENCES res_company, display_name text, date date, title int,
    parent_id int REFERENCES res_partner, ref text, lang text, tz text, user_id int REFERENCES res_users, vat text, website text, comment text,
    credit_limit float, active boolean, function text, type text, street text, street2 text, zip text, city text,
    state_id int REFERENCES res_country_state, country_id int REFERENCES res_country, partner_latitude numeric, partner_longitude numeric,
    email text, phone text, mobile text, is_company boolean, color int, company_name text, email_normalized text, phone_sanitized text,
    create_uid int REFERENCES res_users, create_date timestamp, write_uid int REFERENCES res_users, write_date timestamp);
ALTER TABLE res_users ADD FOREIGN KEY (partner_id) REFERENCES res_partner;
ALTER TABLE res_company ADD FOREIGN KEY (partner_id) REFERENCES res_partner;
CREATE TABLE res_bank (id serial PRIMARY KEY, name text, bic text, street text, city text, phone text, email text);
CREATE TABLE res_partner_bank (id serial PRIMARY KEY, acc_number text, sanitized_acc_number text, acc_holder_name text, iban text, bic text,
    partner_id int REFERENCES res_partner, bank_id int REFERENCES res_bank, create_uid int REFERENCES res_users, write_uid int REFERENCES res_users, write_date timestamp);
CREATE TABLE product_template (id serial PRIMARY KEY, name text, description text, list_price numeric, default_code text, active boolean,
    create_uid int REFERENCES res_users, create_date timestamp, write_uid int REFERENCES res_users, write_date timestamp);
CREATE TABLE sale_order (id serial PRIMARY KEY, name text, partner_id int REFERENCES res_partner, partner_invoice_id int REFERENCES res_partner,
    partner_shipping_id int REFERENCES res_partner, date_order timestamp, validity_date date, user_id int REFERENCES res_users, amount_total numeric, state text,
    note text, currency_id int REFERENCES res_currency, create_uid int REFERENCES res_users, create_date timestamp, write_uid int REFERENCES res_users, write_date timestamp);
CREATE TABLE sale_order_line (id serial PRIMARY KEY, order_id int REFERENCES sale_order, product_id int REFERENCES product_template, name text,
    product_uom_qty numeric, price_unit numeric, create_uid int REFERENCES res_users, create_date timestamp, write_uid int REFERENCES res_users, write_date timestamp);
CREATE TABLE stock_picking (id serial PRIMARY KEY, name text, partner_id int REFERENCES res_partner, state text, scheduled_date timestamp,
    create_uid int REFERENCES res_users, create_date timestamp, write_uid int REFERENCES res_users, write_date timestamp);
CREATE TABLE hr_employee (id serial PRIMARY KEY, name text, user_id int REFERENCES res_users, company_id int REFERENCES res_company, work_email text,
    work_phone text, mobile_phone text, private_email text, birthday date, gender text, marital text, identification_id text, passport_id text,
    job_title text, active boolean, create_uid int REFERENCES res_users, create_date timestamp, write_uid int REFERENCES res_users, write_date timestamp);
CREATE TABLE crm_lead (id serial PRIMARY KEY, name text, contact_name text, partner_name text, email_from text, phone text, probability float,
    partner_id int REFERENCES res_partner, user_id int REFERENCES res_users, create_uid int REFERENCES res_users, write_uid int REFERENCES res_users, write_date timestamp);
CREATE TABLE ir_attachment (id serial PRIMARY KEY, name text, res_model text, store_fname text, checksum text, mimetype text, file_size int);
CREATE TABLE ir_model_fields (id serial PRIMARY KEY, name text, model text, field_description jsonb, ttype text, relation text, state text);
INSERT INTO res_partner (name, display_name, email, phone, mobile, street, city) SELECT x, x, 'p' || n || '@erp.example',
    '+33 1 70 18 0' || n, '+33 6 12 34 5' || n, n || ' Main Street', 'Lyon'
    FROM (SELECT n, (ARRAY['Mary Jones','James Smith','Anna Keller','Julia Nowak','Paul Meyer'])[n % 5 + 1] AS x FROM generate_series(100, 180) n) p;
INSERT INTO sale_order (name, partner_id, amount_total) SELECT 'S0' || n, n, 10 FROM generate_series(1, 40) n;
INSERT INTO product_template (name) SELECT 'Large Cabinet' FROM generate_series(1, 40) n;
