-- What courier_training needs to tell who has to be trained, and nothing more: no customer's table.

GRANT USAGE ON SCHEMA public TO courier_training;
GRANT SELECT (employee_id, number, name, email, department_id, manager_id, joined_on, left_on,
    leave_from, leave_until, has_data_access) ON employee TO courier_training;
GRANT SELECT ON department, course TO courier_training;
GRANT SELECT (employee_id, course_id, course_version, completed_on, passed)
    ON training_completion TO courier_training;
