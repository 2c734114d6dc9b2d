-- A bank in the United States: camelCase, abbreviations, foreign keys for some tables only.
-- personal: Customer custId firstNm midInit lastNm ssn dtOfBirth emailAddr homePhn mobilePhn mothersMaidenNm annualIncomeAmt ficoScore openedDt statusCd
-- personal: CustAddr custId addrTypeCd addrLine1 addrLine2 cityNm stateCd zipCd
-- personal: Account custId acctNbr acctTypeCd currBalAmt
-- personal: DebitCard acctId cardNbr expMonth cvvHash nameOnCard
-- personal: LoanApplication custId requestedAmt employerNm jobTitle submittedDt
-- personal: OnlineUser custId userName pwdHash lastLoginIp lastLoginTs
-- personal: CustomerNote custId noteText authorEmpId
CREATE TABLE "Customer" (
    "custId" int PRIMARY KEY, "firstNm" text, "midInit" char(1), "lastNm" text, ssn text, "dtOfBirth" date,
    "emailAddr" text, "homePhn" text, "mobilePhn" text, "mothersMaidenNm" text, "annualIncomeAmt" numeric,
    "ficoScore" int, "openedDt" date, "statusCd" char(1), "branchId" int);
CREATE TABLE "CustAddr" (
    "addrId" int PRIMARY KEY, "custId" int REFERENCES "Customer", "addrTypeCd" char(1), "addrLine1" text,
    "addrLine2" text, "cityNm" text, "stateCd" char(2), "zipCd" text);
CREATE TABLE "Account" (
    "acctId" int PRIMARY KEY, "custId" int REFERENCES "Customer", "acctNbr" text, "acctTypeCd" text,
    "currBalAmt" numeric, "branchId" int);
CREATE TABLE "DebitCard" (
    "cardId" int PRIMARY KEY, "acctId" int REFERENCES "Account", "cardNbr" text, "expMonth" text,
    "cvvHash" text, "nameOnCard" text);
CREATE TABLE "Branch" (
    "branchId" int PRIMARY KEY, "branchNm" text, "addrLine1" text, "cityNm" text, "stateCd" char(2),
    "zipCd" text, "phoneNbr" text, "routingNbr" text);
CREATE TABLE "ProductType" ("productCd" text PRIMARY KEY, "productNm" text, "ratePct" numeric, "minAge" int);
CREATE TABLE "LoanApplication" (
    "appId" int PRIMARY KEY, "custId" int, "productCd" text, "requestedAmt" numeric, "employerNm" text,
    "jobTitle" text, "submittedDt" timestamptz);
CREATE TABLE "OnlineUser" (
    "custId" int PRIMARY KEY REFERENCES "Customer", "userName" text, "pwdHash" text, "lastLoginIp" inet,
    "lastLoginTs" timestamptz);
CREATE TABLE "CustomerNote" ("noteId" int PRIMARY KEY, "custId" int, "noteText" text, "authorEmpId" int);
CREATE TABLE "ExchangeRate" ("currencyCd" char(3), "asOfDt" date, "rate" numeric, PRIMARY KEY ("currencyCd", "asOfDt"));
CREATE TABLE "JobRun" ("runId" bigint PRIMARY KEY, "jobName" text, "startedTs" timestamptz, "hostName" text, "statusCd" text, "rowCount" bigint);
INSERT INTO "Customer" SELECT n, (ARRAY['James','Mary','Robert','Linda'])[n % 4 + 1], 'A',
    (ARRAY['Smith','Nguyen','Garcia'])[n % 3 + 1], '123-45-' || lpad(n::text, 4, '0'), date '1940-01-01' + n * 71,
    'user' || n || '@mail.example', '(415) 555-' || lpad(n::text, 4, '0'), '+1 415 556 ' || lpad(n::text, 4, '0'),
    'Jones', 50000 + n, 600 + n % 200, date '2019-01-01' + n, 'A', n % 3 FROM generate_series(1, 150) n;
INSERT INTO "CustAddr" SELECT n, n, 'H', n || ' Main St', NULL, 'Springfield', 'IL', '627' || lpad((n % 100)::text, 2, '0') FROM generate_series(1, 150) n;
INSERT INTO "Account" SELECT n, n, '00' || (10000000 + n), 'CHK', n * 10, n % 3 FROM generate_series(1, 150) n;
INSERT INTO "DebitCard" SELECT n, n, '4111111111111111', '12/29', md5(n::text), 'James Smith' FROM generate_series(1, 20) n;
INSERT INTO "Branch" SELECT n, 'Downtown ' || n, n || ' Market St', 'San Francisco', 'CA', '94105', '(415) 555-90' || n || '0', '12100024' || n FROM generate_series(0, 2) n;
INSERT INTO "JobRun" SELECT n, 'nightly load', now(), 'db-prod-1', 'OK', n * 1000 FROM generate_series(1, 50) n;
