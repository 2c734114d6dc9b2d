-- Foreign keys to tables that are filled before: those of a table are made while it is empty, so
-- that PostgreSQL need not look every row up.

ALTER TABLE employee ADD FOREIGN KEY (department_id) REFERENCES department;
ALTER TABLE training_completion
    ADD FOREIGN KEY (employee_id) REFERENCES employee,
    ADD FOREIGN KEY (course_id) REFERENCES course;
ALTER TABLE customer
    ADD FOREIGN KEY (department_id) REFERENCES department,
    ADD FOREIGN KEY (entered_by) REFERENCES employee,
    ADD FOREIGN KEY (reviewed_by) REFERENCES employee;
ALTER TABLE address ADD FOREIGN KEY (customer_id) REFERENCES customer;
ALTER TABLE consent
    ADD FOREIGN KEY (customer_id) REFERENCES customer,
    ADD FOREIGN KEY (notice_version_id) REFERENCES notice_version;
ALTER TABLE waybill
    ADD FOREIGN KEY (sender_id) REFERENCES customer,
    ADD FOREIGN KEY (receiver_id) REFERENCES customer,
    ADD FOREIGN KEY (sender_address_id) REFERENCES address ON DELETE SET NULL,
    ADD FOREIGN KEY (receiver_address_id) REFERENCES address ON DELETE SET NULL;
ALTER TABLE delivery_proof
    ADD FOREIGN KEY (waybill_id, waybill_created_at) REFERENCES waybill (waybill_id, created_at);
ALTER TABLE complaint
    ADD FOREIGN KEY (customer_id) REFERENCES customer,
    ADD FOREIGN KEY (handled_by) REFERENCES employee,
    ADD FOREIGN KEY (waybill_id, waybill_created_at) REFERENCES waybill (waybill_id, created_at);
ALTER TABLE approval
    ADD FOREIGN KEY (requester_id) REFERENCES employee,
    ADD FOREIGN KEY (approver_id) REFERENCES employee;
ALTER TABLE access_log
    ADD FOREIGN KEY (employee_id) REFERENCES employee,
    ADD FOREIGN KEY (customer_id) REFERENCES customer,
    ADD FOREIGN KEY (approval_id) REFERENCES approval;
ALTER TABLE share_log
    ADD FOREIGN KEY (partner_id) REFERENCES partner,
    ADD FOREIGN KEY (customer_id) REFERENCES customer,
    ADD FOREIGN KEY (consent_id) REFERENCES consent;
ALTER TABLE intake_record
    ADD FOREIGN KEY (entered_by) REFERENCES employee,
    ADD FOREIGN KEY (reviewed_by) REFERENCES employee,
    ADD FOREIGN KEY (customer_id) REFERENCES customer;
