-- A clinic in China: pinyin initials, comments on few columns, no foreign keys, as hospital systems are.
-- personal: t_hzjbxx hzid xm xb csrq sfzh sjhm jtzz mz hyzk gzdw lxrxm lxrdh gmys ybkh cjsj
-- personal: t_ghjl hzid ghsj ysgh zd zs
-- personal: t_cfmx hzid yl
-- personal: t_ysxx gh xm sjhm zc ksdm
-- personal: t_sfjl hzid je sfsj
-- personal: 随访记录 患者编号 联系电话 随访内容
CREATE TABLE t_hzjbxx (
    hzid bigint PRIMARY KEY, xm varchar(20), xb char(1), csrq date, sfzh varchar(18),
    sjhm varchar(20), jtzz varchar(100), mz varchar(10), hyzk char(1), gzdw varchar(50),
    lxrxm varchar(20), lxrdh varchar(20), gmys text, ybkh varchar(30), cjsj timestamp);
CREATE TABLE t_ghjl (
    ghid bigint PRIMARY KEY, hzid bigint, ksdm varchar(10), ysgh varchar(10), ghsj timestamp,
    zd varchar(200), zs text);
CREATE TABLE t_cfmx (cfid bigint, xh int, hzid bigint, ypdm varchar(20), yl varchar(20),
    PRIMARY KEY (cfid, xh));
CREATE TABLE t_ypzd (ypdm varchar(20) PRIMARY KEY, ypmc varchar(50), gg varchar(30), sccj varchar(50), dj numeric(10,2));
CREATE TABLE t_ksxx (ksdm varchar(10) PRIMARY KEY, ksmc varchar(30), wz varchar(30), lxdh varchar(20));
CREATE TABLE t_ysxx (gh varchar(10) PRIMARY KEY, xm varchar(20), ksdm varchar(10), zc varchar(20), sjhm varchar(20));
CREATE TABLE t_sfjl (sfid bigint PRIMARY KEY, hzid bigint, je numeric(10,2), sfsj timestamp, zffs varchar(10));
CREATE TABLE "随访记录" ("编号" bigint PRIMARY KEY, "患者编号" bigint, "联系电话" varchar(20), "随访内容" text, "创建时间" timestamp);
CREATE TABLE sys_dict (lb varchar(20), dm varchar(20), mc varchar(50), PRIMARY KEY (lb, dm));
INSERT INTO t_hzjbxx SELECT n, (ARRAY['王小明','李建华','张丽','欧阳晨','陈志强'])[n % 5 + 1], n % 2,
    date '1950-01-01' + n * 97, '11010119900101' || lpad((n % 1000)::text, 3, '0') || 'X',
    CASE n % 3 WHEN 0 THEN '+86 138' || lpad(n::text, 8, '0') ELSE '139-' || lpad(n::text, 4, '0') || '-0000' END,
    '海淀区中关村大街' || n || '号3号楼201室', '汉族', n % 3, '某某公司', '王大力', '1370000' || lpad(n::text, 4, '0'),
    '青霉素', 'YB' || n, now() FROM generate_series(1, 120) n;
INSERT INTO t_ysxx SELECT 'D' || n, (ARRAY['赵敏','孙强','周杰伦','吴丽'])[n % 4 + 1], 'K' || n % 5, '主任医师', '1360000' || lpad(n::text, 4, '0') FROM generate_series(1, 20) n;
INSERT INTO t_ksxx SELECT 'K' || n, '内科' || n, '三楼', '010-8888' || lpad(n::text, 4, '0') FROM generate_series(0, 4) n;
INSERT INTO t_ypzd SELECT 'Y' || n, '阿莫西林胶囊', '0.25g*24', '华北制药', 12.5 FROM generate_series(1, 30) n;
INSERT INTO t_ghjl SELECT n, n % 120 + 1, 'K' || n % 5, 'D' || n % 20, now(), '上呼吸道感染', '咳嗽三天' FROM generate_series(1, 200) n;
INSERT INTO "随访记录" SELECT n, n % 120 + 1, '1350000' || lpad(n::text, 4, '0'), '患者恢复良好', now() FROM generate_series(1, 60) n;
