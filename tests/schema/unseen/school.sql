-- A school authority in China: Chinese names throughout, a library with initials and comments.
-- personal: 学生信息 学号 姓名 性别 出生日期 身份证号 民族 家庭住址 班级编号 入学时间 照片
-- personal: 家长 家长编号 学号 家长姓名 与学生关系 手机号 工作单位
-- personal: 教师 工号 姓名 职称 联系电话 邮箱
-- personal: 成绩 学号 分数 考试日期
-- personal: jy_jl dzbh jysj ghsj
-- personal: dz_xx dzbh a01 a02 a03 blrq
CREATE TABLE "学生信息" ("学号" varchar(20) PRIMARY KEY, "姓名" varchar(20), "性别" varchar(2), "出生日期" date, "身份证号" varchar(18),
    "民族" varchar(10), "家庭住址" text, "班级编号" int, "入学时间" date, "照片" bytea);
CREATE TABLE "家长" ("家长编号" int PRIMARY KEY, "学号" varchar(20) REFERENCES "学生信息", "家长姓名" varchar(20), "与学生关系" varchar(10), "手机号" varchar(20), "工作单位" varchar(50));
CREATE TABLE "教师" ("工号" varchar(10) PRIMARY KEY, "姓名" varchar(20), "职称" varchar(10), "联系电话" varchar(20), "邮箱" varchar(50));
CREATE TABLE "班级" ("班级编号" int PRIMARY KEY, "班级名称" varchar(20), "年级" int, "教室" varchar(20));
CREATE TABLE "课程" ("课程编号" int PRIMARY KEY, "课程名称" varchar(50), "学分" int, "简介" text);
CREATE TABLE "成绩" (id bigserial PRIMARY KEY, "学号" varchar(20) REFERENCES "学生信息", "课程编号" int REFERENCES "课程", "分数" numeric, "考试日期" date);
CREATE TABLE dz_xx (dzbh int PRIMARY KEY, a01 varchar(20), a02 varchar(20), a03 varchar(18), blrq date);
COMMENT ON TABLE dz_xx IS '读者信息'; COMMENT ON COLUMN dz_xx.a01 IS '姓名'; COMMENT ON COLUMN dz_xx.a02 IS '手机'; COMMENT ON COLUMN dz_xx.a03 IS '证件号';
CREATE TABLE ts_xx (tsbh int PRIMARY KEY, tsmc varchar(100), zz varchar(50), cbs varchar(50), dj numeric);
COMMENT ON TABLE ts_xx IS '图书信息'; COMMENT ON COLUMN ts_xx.zz IS '作者';
CREATE TABLE jy_jl (jyid bigint PRIMARY KEY, dzbh int REFERENCES dz_xx, tsbh int REFERENCES ts_xx, jysj timestamp, ghsj timestamp);
COMMENT ON TABLE jy_jl IS '借阅记录';
INSERT INTO "学生信息" SELECT 'S' || n, (ARRAY['王小明','李建华','张丽'])[n % 3 + 1], '男', date '2008-01-01' + n, NULL, '汉', '人民路' || n || '号', n % 5, date '2020-09-01', NULL FROM generate_series(1, 60) n;
INSERT INTO ts_xx SELECT n, '红楼梦', '曹雪芹', '人民文学出版社', 30 FROM generate_series(1, 40) n;
INSERT INTO dz_xx SELECT n, (ARRAY['王小明','李建华','张丽','赵敏','孙强'])[n % 5 + 1], '1380000' || lpad(n::text, 4, '0'), NULL, date '2020-01-01' FROM generate_series(1, 40) n;
