-- Foreign keys within a table or in a circle, made and checked once all rows are in.

ALTER TABLE department ADD FOREIGN KEY (parent_id) REFERENCES department;
ALTER TABLE employee ADD FOREIGN KEY (manager_id) REFERENCES employee;
-- A department has a head and the head belongs to a department: one of them waits.
ALTER TABLE department
    ADD FOREIGN KEY (head_employee_id) REFERENCES employee DEFERRABLE INITIALLY DEFERRED;
-- A customer has a default address and the address has a customer: one of them waits.
ALTER TABLE customer
    ADD FOREIGN KEY (default_address_id) REFERENCES address DEFERRABLE INITIALLY DEFERRED;
