-- What courier_retention needs to dispose of expired records, and nothing more. It reads keys,
-- clocks and what refers to what; of customers' own data it reads what it masks.
-- Foreign keys act with the rights of the tables' owner (ON DELETE SET NULL too) and need none here.
-- Partitions are dropped by SET LOCAL ROLE to the owner: the local profile lets it, INHERIT FALSE.

GRANT USAGE ON SCHEMA public TO courier_retention;
GRANT SELECT (ctid, tableoid, waybill_id, created_at, number, sender_id, receiver_id,
    sender_address_id, receiver_address_id, delivered_at, masked_at,
    sender_name, sender_phone, sender_address, receiver_name, receiver_phone, receiver_address)
    ON waybill TO courier_retention;
GRANT SELECT (ctid, tableoid, proof_id, waybill_id, waybill_created_at, signed_at)
    ON delivery_proof TO courier_retention;
GRANT SELECT (ctid, tableoid, complaint_id, customer_id, waybill_id, waybill_created_at, closed_at)
    ON complaint TO courier_retention;
GRANT SELECT (ctid, tableoid, access_id, employee_id, customer_id, accessed_at, approval_id)
    ON access_log TO courier_retention;
GRANT SELECT (ctid, tableoid, approval_id, requester_id, approver_id, approved_at) ON approval TO courier_retention;
GRANT SELECT (ctid, tableoid, share_id, customer_id, consent_id, ended_at) ON share_log TO courier_retention;
GRANT SELECT (ctid, tableoid, consent_id, customer_id) ON consent TO courier_retention;
GRANT SELECT (ctid, tableoid, address_id, customer_id) ON address TO courier_retention;
GRANT SELECT (ctid, tableoid, completion_id, employee_id) ON training_completion TO courier_retention;
GRANT SELECT (ctid, tableoid, intake_id, customer_id, reviewed_at) ON intake_record TO courier_retention;
GRANT SELECT (ctid, tableoid, customer_id, closed_at, default_address_id) ON customer TO courier_retention;
GRANT SELECT (employee_id, number, department_id, left_on, leave_from, leave_until)
    ON employee TO courier_retention;
GRANT SELECT (department_id, name) ON department TO courier_retention;
GRANT DELETE ON waybill, delivery_proof, complaint, access_log, approval, share_log, consent,
    address, training_completion, intake_record, customer TO courier_retention;
GRANT UPDATE (sender_name, sender_phone, sender_address, receiver_name, receiver_phone,
    receiver_address, masked_at) ON waybill TO courier_retention;
GRANT UPDATE (waybill_id, waybill_created_at) ON complaint TO courier_retention;
GRANT UPDATE (default_address_id) ON customer TO courier_retention;
-- SELECT ... FOR UPDATE asks for the right to update some column; the key is the one that nothing
-- can be done with, since other records refer to it.
GRANT UPDATE (proof_id) ON delivery_proof TO courier_retention;
GRANT UPDATE (access_id) ON access_log TO courier_retention;
GRANT UPDATE (approval_id) ON approval TO courier_retention;
GRANT UPDATE (share_id) ON share_log TO courier_retention;
GRANT UPDATE (consent_id) ON consent TO courier_retention;
GRANT UPDATE (address_id) ON address TO courier_retention;
GRANT UPDATE (completion_id) ON training_completion TO courier_retention;
GRANT UPDATE (intake_id) ON intake_record TO courier_retention;
