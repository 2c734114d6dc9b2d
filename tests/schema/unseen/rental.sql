-- A film rental in the manner of Pagila: ranges, a trigger's last_update, staff in customers' records, partitions.
-- personal: customer customer_id first_name last_name email address_id activebool create_date active
-- personal: address address address2 district city_id postal_code phone
-- personal: rental customer_id staff_id rental_period return_date
-- personal: payment customer_id staff_id amount payment_date
-- personal: staff staff_id first_name last_name address_id email store_id active username password picture
-- personal: store manager_staff_id
CREATE TYPE mpaa_rating AS ENUM ('G', 'PG');
CREATE TABLE country (country_id serial PRIMARY KEY, country text NOT NULL, last_update timestamptz DEFAULT now());
CREATE TABLE city (city_id serial PRIMARY KEY, city text NOT NULL, country_id int REFERENCES country, last_update timestamptz DEFAULT now());
CREATE TABLE address (address_id serial PRIMARY KEY, address text, address2 text, district text, city_id int REFERENCES city,
    postal_code text, phone text, last_update timestamptz DEFAULT now());
CREATE TABLE store (store_id serial PRIMARY KEY, manager_staff_id int, address_id int REFERENCES address, last_update timestamptz DEFAULT now());
CREATE TABLE staff (staff_id serial PRIMARY KEY, first_name text, last_name text, address_id int REFERENCES address, email text,
    store_id int REFERENCES store, active boolean, username text, password text, last_update timestamptz DEFAULT now(), picture bytea);
ALTER TABLE store ADD FOREIGN KEY (manager_staff_id) REFERENCES staff;
CREATE TABLE customer (customer_id serial PRIMARY KEY, store_id int REFERENCES store, first_name text, last_name text, email text,
    address_id int REFERENCES address, activebool boolean, create_date date, last_update timestamptz DEFAULT now(), active int);
CREATE TABLE actor (actor_id serial PRIMARY KEY, first_name text, last_name text, last_update timestamptz DEFAULT now());
CREATE TABLE language (language_id serial PRIMARY KEY, name char(20), last_update timestamptz DEFAULT now());
CREATE TABLE category (category_id serial PRIMARY KEY, name text, last_update timestamptz DEFAULT now());
CREATE TABLE film (film_id serial PRIMARY KEY, title text, description text, release_year int, language_id int REFERENCES language,
    rental_duration int, rental_rate numeric(4,2), length int, replacement_cost numeric(5,2), rating mpaa_rating,
    last_update timestamptz DEFAULT now(), special_features text[], fulltext tsvector);
CREATE TABLE film_actor (actor_id int REFERENCES actor, film_id int REFERENCES film, last_update timestamptz, PRIMARY KEY (actor_id, film_id));
CREATE TABLE inventory (inventory_id serial PRIMARY KEY, film_id int REFERENCES film, store_id int REFERENCES store, last_update timestamptz);
CREATE TABLE rental (rental_id serial PRIMARY KEY, rental_period tsrange, inventory_id int REFERENCES inventory,
    customer_id int REFERENCES customer, return_date timestamptz, staff_id int REFERENCES staff, last_update timestamptz DEFAULT now());
CREATE TABLE payment (payment_id serial, customer_id int REFERENCES customer, staff_id int REFERENCES staff, rental_id int,
    amount numeric(5,2), payment_date timestamptz NOT NULL, PRIMARY KEY (payment_date, payment_id)) PARTITION BY RANGE (payment_date);
INSERT INTO address (address, district, postal_code, phone) SELECT n || ' Main Street', 'Alberta', '1' || n, '1403333' || 5000 + n FROM generate_series(10, 60) n;
INSERT INTO staff (first_name, last_name, email, username) SELECT 'Mike', 'Hillyer', 'Mike.Hillyer@rental.example', 'Mike' FROM generate_series(1, 2);
INSERT INTO customer (first_name, last_name, email, active) SELECT (ARRAY['MARY','PATRICIA','LINDA'])[n % 3 + 1], 'SMITH', 'C' || n || '@rental.example', 1 FROM generate_series(1, 50) n;
INSERT INTO actor (first_name, last_name) SELECT 'PENELOPE', 'GUINESS' FROM generate_series(1, 30) n;
INSERT INTO film (title, description) SELECT 'ACADEMY DINOSAUR', 'A film' FROM generate_series(1, 30) n;
