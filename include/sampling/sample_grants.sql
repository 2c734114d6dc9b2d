-- What courier_audit needs to list the audited populations, and nothing more: keys and moments.

GRANT USAGE ON SCHEMA public TO courier_audit;
GRANT SELECT (access_id, employee_id, accessed_at) ON access_log TO courier_audit;
GRANT SELECT (employee_id, number, department_id, left_on, leave_from, leave_until)
    ON employee TO courier_audit;
GRANT SELECT (department_id, name) ON department TO courier_audit;
GRANT SELECT (form_number, shared_at) ON share_log TO courier_audit;
GRANT SELECT (customer_id, department_id, created_at) ON customer TO courier_audit;
GRANT SELECT (waybill_id, delivered_at) ON waybill TO courier_audit;
GRANT SELECT (completion_id, completed_on) ON training_completion TO courier_audit;
