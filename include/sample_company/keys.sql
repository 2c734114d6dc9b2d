-- Primary keys, unique keys and indexes: those of a table are made once its rows are in.

ALTER TABLE administrative_division ADD PRIMARY KEY (code);
ALTER TABLE department ADD PRIMARY KEY (department_id), ADD UNIQUE (name);
ALTER TABLE employee ADD PRIMARY KEY (employee_id), ADD UNIQUE (number);
ALTER TABLE course ADD PRIMARY KEY (course_id), ADD UNIQUE (code, version);
ALTER TABLE training_completion ADD PRIMARY KEY (completion_id);
ALTER TABLE notice_version ADD PRIMARY KEY (notice_version_id), ADD UNIQUE (version, language);
ALTER TABLE customer ADD PRIMARY KEY (customer_id);
ALTER TABLE address ADD PRIMARY KEY (address_id);
ALTER TABLE consent ADD PRIMARY KEY (consent_id);
ALTER TABLE waybill ADD PRIMARY KEY (waybill_id, created_at);
ALTER TABLE delivery_proof ADD PRIMARY KEY (proof_id);
ALTER TABLE complaint ADD PRIMARY KEY (complaint_id);
ALTER TABLE approval ADD PRIMARY KEY (approval_id);
ALTER TABLE access_log ADD PRIMARY KEY (access_id);
ALTER TABLE partner ADD PRIMARY KEY (partner_id), ADD UNIQUE (name);
ALTER TABLE share_log ADD PRIMARY KEY (share_id);
ALTER TABLE intake_record ADD PRIMARY KEY (intake_id);

CREATE INDEX ON customer (updated_at);
CREATE INDEX ON address (customer_id);
CREATE INDEX ON consent (customer_id);
CREATE INDEX ON waybill (sender_id);
CREATE INDEX ON waybill (receiver_id);
CREATE INDEX ON delivery_proof (waybill_id, waybill_created_at);
CREATE INDEX ON complaint (waybill_id, waybill_created_at);
CREATE INDEX ON complaint (customer_id);
CREATE INDEX ON access_log (accessed_at);
CREATE INDEX ON access_log (customer_id);
CREATE INDEX ON share_log (customer_id);
CREATE INDEX ON intake_record (batch_id);
