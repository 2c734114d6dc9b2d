-- What courier_incident needs to say who is affected by an incident, to look up where letters to them go, and to copy
-- the log of accesses, and nothing more: it reads, it changes nothing.

GRANT USAGE ON SCHEMA public TO courier_incident;
GRANT SELECT ON customer, address, consent, waybill, complaint, access_log, share_log TO courier_incident;
GRANT SELECT (employee_id, number, department_id, left_on, leave_from, leave_until)
    ON employee TO courier_incident;
GRANT SELECT (department_id, name) ON department TO courier_incident;
