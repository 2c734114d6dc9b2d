-- What courier_intake needs to let incoming records in, and nothing more (docs/explanation/intake.md).
-- Foreign keys are checked with the owner's rights and need none here.

GRANT USAGE ON SCHEMA public TO courier_intake;
GRANT SELECT ON intake_record, customer, administrative_division, notice_version TO courier_intake;
GRANT SELECT (employee_id, number, department_id, has_data_access, left_on, leave_from, leave_until)
    ON employee TO courier_intake;
GRANT SELECT (department_id, name) ON department TO courier_intake;
GRANT UPDATE (status, reviewed_by, reviewed_at, customer_id) ON intake_record TO courier_intake;
GRANT INSERT (customer_id, name, phone, id_number, email, birth_date, status, record_class,
    department_id, default_address_id, marketing_subscribed, created_at, updated_at, verified_at,
    entered_by, reviewed_by, reviewed_at) ON customer TO courier_intake;
GRANT INSERT (address_id, customer_id, division_code, province, city, district, street, is_default,
    created_at) ON address TO courier_intake;
GRANT INSERT (customer_id, purpose, notice_version_id, given_at, channel, by_guardian)
    ON consent TO courier_intake;
GRANT USAGE ON SEQUENCE customer_customer_id_seq, address_address_id_seq TO courier_intake;
