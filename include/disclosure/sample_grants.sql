-- The rights that courier_use needs to read the roster and the requested records; it writes nothing.

GRANT USAGE ON SCHEMA public TO courier_use;
GRANT SELECT ON employee, department, course, training_completion, customer, address, waybill, complaint,
    access_log, approval TO courier_use;
