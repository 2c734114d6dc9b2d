-- A European company's HR database: schemas, English and German words, special categories of GDPR article 9.
-- personal: people.persons id given_name family_name birth_name date_of_birth nationality gender iban tax_id social_security_number private_email private_phone photo church_tax_denomination union_member disability_degree created_on
-- personal: people.emergency_contacts id person_id contact_name relationship phone
-- personal: people.absences person_id starts_on ends_on reason sick_note
-- personal: people.payslips person_id period gross net payload
-- personal: people.contracts person_id position weekly_hours salary starts_on ends_on
-- personal: recruiting.applications id applicant_name email phone cv cover_letter score received_at rejected_reason
-- personal: recruiting.interviews application_id interviewer_id notes held_at
-- personal: people.mitarbeiter_adresse person_id strasse hausnummer plz ort land
CREATE SCHEMA people; CREATE SCHEMA recruiting; CREATE SCHEMA org;
CREATE TABLE org.cost_centres (code text PRIMARY KEY, title text, budget numeric, country char(2));
CREATE TABLE org.offices (id uuid PRIMARY KEY, name text, street text, city text, postal_code text, country text, reception_phone text, email text);
CREATE TABLE org.job_openings (id uuid PRIMARY KEY, title text, description text, office_id uuid REFERENCES org.offices, opened_on date, salary_band text);
CREATE TABLE people.persons (
    id uuid PRIMARY KEY, given_name text NOT NULL, family_name text NOT NULL, birth_name text, date_of_birth date,
    nationality char(2), gender text, iban text, tax_id text, social_security_number text, private_email text,
    private_phone text, photo bytea, church_tax_denomination text, union_member boolean, disability_degree int,
    created_on date, row_version int);
CREATE TABLE people.emergency_contacts (id uuid PRIMARY KEY, person_id uuid REFERENCES people.persons, contact_name text, relationship text, phone text);
CREATE TABLE people.absences (id uuid PRIMARY KEY, person_id uuid REFERENCES people.persons, starts_on date, ends_on date, reason text, sick_note bytea);
CREATE TABLE people.payslips (id uuid PRIMARY KEY, person_id uuid REFERENCES people.persons, period date, gross numeric, net numeric, payload jsonb);
CREATE TABLE people.contracts (id uuid PRIMARY KEY, person_id uuid REFERENCES people.persons, cost_centre text REFERENCES org.cost_centres, position text, weekly_hours numeric, salary numeric, starts_on date, ends_on date);
CREATE TABLE people.mitarbeiter_adresse (id uuid PRIMARY KEY, person_id uuid REFERENCES people.persons, strasse text, hausnummer text, plz text, ort text, land text);
CREATE TABLE recruiting.applications (
    id uuid PRIMARY KEY, opening_id uuid REFERENCES org.job_openings, applicant_name text, email text, phone text,
    cv bytea, cover_letter text, score int, received_at timestamptz, rejected_reason text);
CREATE TABLE recruiting.interviews (id uuid PRIMARY KEY, application_id uuid REFERENCES recruiting.applications, interviewer_id uuid REFERENCES people.persons, held_at timestamptz, notes text);
CREATE TABLE org.email_templates (id uuid PRIMARY KEY, name text, subject text, body text, language char(2));
CREATE TABLE org.feature_flags (name text PRIMARY KEY, enabled boolean, description text, updated_at timestamptz);
INSERT INTO people.persons SELECT gen_random_uuid(), (ARRAY['Anja','Jürgen','Sophie'])[n % 3 + 1],
    (ARRAY['Müller','O''Neill','van der Berg'])[n % 3 + 1], NULL, date '1960-01-01' + n * 80, 'DE', 'f',
    'DE89370400440532013' || lpad(n::text, 3, '0'), '12345678' || lpad(n::text, 3, '0'), '65 170839 J ' || lpad(n::text, 3, '0'), 'p' || n || '@web.example',
    '+49 30 901820-' || n, NULL, 'rk', false, 0, date '2020-01-01', 1 FROM generate_series(1, 90) n;
INSERT INTO org.offices SELECT gen_random_uuid(), 'Office ' || n, 'Hauptstraße ' || n, 'Berlin', '10115', 'DE', '+49 30 90180-' || n, 'office' || n || '@corp.example' FROM generate_series(1, 6) n;
INSERT INTO people.payslips SELECT gen_random_uuid(), id, date '2024-01-01', 4000, 2500, '{"iban": "DE89", "lohnsteuer": 400, "name": "x"}' FROM people.persons;
INSERT INTO recruiting.applications SELECT gen_random_uuid(), NULL, 'Maria Schmidt', 'a' || n || '@x.example', '0171 555 ' || (1000 + n), NULL, 'Dear Sirs', n % 10, now(), NULL FROM generate_series(1, 30) n;
