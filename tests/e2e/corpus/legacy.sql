-- A legacy system that was moved here from a mainframe: no keys, no references, padded fixed-length
-- fields, days and amounts as text, names of 63 characters, reserved words, repeated rows, names in pinyin initials.
-- personal: KHXX KHBH KHXM SFZH LXDH LXDZ YZBM CSRQ XB
-- personal: YJXX KHBH SJRXM SJRDH SJRDZ JJRXM JJRDH
-- personal: USER USER_ID USER_NAME PASSWD
-- personal: TSJL KHBH TSNR
-- personal: order KHBH
-- personal: a_table_with_a_name_that_is_as_long_as_postgresql_allows_it_to_ KHBH a_column_with_a_name_that_is_as_long_as_postgresql_allows_it_to
-- either: KHXX ZT LRRQ
-- either: USER LEVEL
-- either: order select group
CREATE TABLE "KHXX" ("KHBH" char(10), "KHXM" char(20), "SFZH" char(18), "LXDH" char(15), "LXDZ" char(60), "YZBM" char(6), "CSRQ" char(8), "XB" char(1), "ZT" char(1), "LRRQ" char(8));
CREATE TABLE "YJXX" ("YJHM" char(13), "KHBH" char(10), "SJRXM" char(20), "SJRDH" char(15), "SJRDZ" char(60), "JJRXM" char(20), "JJRDH" char(15), "ZL" char(8), "JE" char(12), "SJRQ" char(8), "SJSJ" timestamp);
CREATE TABLE "USER" ("USER_ID" char(8), "USER_NAME" char(20), "PASSWD" char(32), "LEVEL" smallint);
CREATE TABLE "TSJL" ("XH" numeric(18, 0), "KHBH" char(10), "TSNR" varchar(400), "TSRQ" date);
CREATE TABLE "order" ("select" integer, "from" text, "where" text, "KHBH" char(10), "group" date);
CREATE TABLE "DMB" ("LB" char(4), "DM" char(4), "MC" char(40));
CREATE TABLE "a_table_with_a_name_that_is_as_long_as_postgresql_allows_it_to_" ("KHBH" char(10), "a_column_with_a_name_that_is_as_long_as_postgresql_allows_it_to" text);
CREATE TABLE "KONGBIAO" ("A" integer, "B" text);
CREATE INDEX ON "YJXX" ("SJSJ");
INSERT INTO "KHXX" SELECT 'K' || lpad(n::text, 9, '0'), (ARRAY['冯', '褚', '卫'])[n % 3 + 1] || '国强', '110105194912310' || lpad((n % 1000)::text, 3, '0'), '138' || lpad(n::text, 8, '0'), '天津市和平区南京路' || n || '号', '300000', to_char(date '1955-01-01' + n * 20, 'YYYYMMDD'), (n % 2 + 1)::text, '1', to_char(date '2015-01-01' + n, 'YYYYMMDD') FROM generate_series(1, 600) n;
INSERT INTO "KHXX" SELECT * FROM "KHXX" LIMIT 5;
INSERT INTO "YJXX" SELECT '98' || lpad(n::text, 11, '0'), 'K' || lpad((n % 600 + 1)::text, 9, '0'), '冯国强', '138' || lpad(n::text, 8, '0'), '天津市和平区南京路' || n || '号', '褚建军', '139' || lpad(n::text, 8, '0'), n::text, n || '.50', to_char(date '2019-01-01' + n, 'YYYYMMDD'), timestamp '2019-01-01' + n * interval '1 day' FROM generate_series(1, 2500) n;
INSERT INTO "USER" SELECT 'U' || n, '操作员' || n, md5(n::text), n % 3 FROM generate_series(1, 10) n;
INSERT INTO "TSJL" SELECT n, 'K' || lpad(n::text, 9, '0'), '包裹破损', date '2020-01-01' + n * 10 FROM generate_series(1, 200) n;
INSERT INTO "order" SELECT n, 'a', 'b', 'K' || lpad(n::text, 9, '0'), date '2020-01-01' FROM generate_series(1, 20) n;
INSERT INTO "DMB" SELECT 'ZT', lpad(n::text, 2, '0'), '状态' || n FROM generate_series(1, 9) n;
INSERT INTO "a_table_with_a_name_that_is_as_long_as_postgresql_allows_it_to_" SELECT 'K' || lpad(n::text, 9, '0'), '备注' FROM generate_series(1, 10) n;
