"""Words in names of columns and tables that indicate personal data, in several languages.

The languages include English, Chinese and pinyin. Patterns are matched against the words of a name
in lower case, separated by spaces, with abbreviations replaced by full words: ``custFirstNm`` is
matched as ``customer first name``. Chinese words match anywhere in the name. Pinyin abbreviations
are included because they are common in Chinese administrative and hospital systems.
"""

from __future__ import annotations

import re

ABBREVIATIONS = {
    "nm": "name", "nme": "name", "nbr": "number", "num": "number", "no": "number", "nr": "number",
    "dt": "date", "addr": "address", "adr": "address", "cust": "customer", "emp": "employee",
    "empl": "employee", "acct": "account", "acc": "account", "phn": "phone", "fst": "first",
    "frst": "first", "lst": "last", "brth": "birth", "usr": "user", "pat": "patient",
    "pt": "patient", "cd": "code", "desc": "description", "ctry": "country", "cntry": "country",
    "prov": "province", "tel": "phone", "telephone": "phone", "mob": "mobile", "cell": "mobile",
    "cellphone": "mobile", "gndr": "gender", "natl": "national", "lic": "license",
    "licence": "license", "dl": "driver license", "amt": "amount", "qty": "quantity",
    "org": "organization", "organisation": "organization", "mgr": "manager", "sal": "salary",
    "pic": "picture", "stmt": "statement", "txn": "transaction", "trans": "transaction",
    "appt": "appointment", "dept": "department", "surname": "last name", "forename": "first name",
    "firstname": "first name", "lastname": "last name", "fullname": "full name",
    "fname": "first name", "lname": "last name", "mname": "middle name",
    "middlename": "middle name", "taxvat": "tax id", "username": "user name",
    "birthdate": "birth date", "birthday": "birth date", "dob": "birth date", "bday": "birth date",
    "postcode": "postal code", "zipcode": "zip code", "zip": "postal code", "plz": "postal code",
    "nickname": "nick name", "emailaddress": "email address", "phonenumber": "phone number",
    "employer": "employer", "ident": "identity", "nino": "national id", "tin": "tax id",
}  # fmt: skip

_NUMBER = r"(?: (?:number|id|code|card))?"

# The first match counts, so narrow categories come before wide categories.
COLUMN_WORDS: tuple[tuple[str, str, str], ...] = (
    ("user.government_id.passport_number", r"passport|reisepass|hzhm|huzhao", "护照"),
    ("user.government_id.drivers_license_number", r"driv\w* license|jsz|jszh", "驾驶证|驾照"),
    ("user.government_id.vehicle_registration",
     r"(?:license|number|vehicle) plate|plate number|cph|cphm|chepai(?:hao)?", "车牌"),
    ("user.health_and_medical.insurance_beneficiary_id",
     r"(?:insurance|insured|policy|medicare|medicaid|nhs|member) (?:number|id)|nhs|yb(?:kh|h)"
     r"|shbz(?:h|kh)|sbkh|sbh", "医保|社保|保险号"),
    ("user.health_and_medical.record_id",
     r"mrn|medical record|(?:chart|case) number|bl(?:h|hm)|bah|zyh|zyhm|mzh|jzkh|jzk",
     "病历号|住院号|门诊号|就诊卡|病案号"),
    ("user.government_id.national_identification_number",
     rf"ssn|sin|bsn|cpf|curp|dni|nif|pesel|social (?:security|insurance){_NUMBER}"
     rf"|national (?:id|identification|insurance|identity){_NUMBER}|id card(?: number)?|id number"
     r"|identity (?:card|number|document)\w*|identification number|citizen id|personnummer"
     r"|government id|gov id|tax (?:id|number|code)|steuer(?:nummer|id)|sozialversicherung\w*"
     r"|sfz|sfzh|sfzhm|sfzjh|shenfenzheng\w*|zjh|zjhm|zhengjian\w*", "身份证|证件号|公民身份"),
    ("user.criminal_history", r"criminal\w*|conviction\w*", "犯罪|前科"),
    ("user.demographic.date_of_birth",
     r"(?:date|year|month) of birth|birth(?: (?:date|year|month))?|born(?: on| at)?"
     r"|geburts(?:datum|tag|jahr)|date (?:de )?naissance|fecha (?:de )?nacimiento"
     r"|csrq|csny|csrqi|chusheng\w*|shengri", "出生|生日"),
    ("user.demographic.gender", r"gender|sex|geschlecht|sexe|xb|xingbie", "性别"),
    ("user.demographic.marital_status",
     r"marital\w*|married|civil status|familienstand|hyzk|hunyin\w*", "婚姻|婚否"),
    ("user.demographic.sexual_orientation", r"sexual (?:orientation|preference)", "性取向"),
    ("user.demographic.religious_belief",
     r"religio\w*|faith|church tax|konfession|zjxy|zongjiao\w*", "宗教|信仰"),
    ("user.demographic.political_opinion",
     r"politic\w*|party (?:member\w*|affiliation)|(?:trade )?union member\w*|zzmm", "政治面貌"
     "|党员"),
    ("user.demographic.race_ethnicity", r"ethnic\w*|race|mz|mzmc|minzu", "民族|种族"),
    ("user.demographic", r"nationality|citizenship|staatsangehoerigkeit|guoji|hukou|education"
     r"(?: level)?|xueli|whcd|jiguan", "国籍|学历|文化程度|籍贯"),
    ("user.demographic.age_range", r"age|nl|nianling|alter", "年龄"),
    ("user.health_and_medical",
     r"diagnos\w*|symptom\w*|allerg\w*|medication\w*|prescription\w*|blood (?:type|group)|disab\w*"
     r"|pregnan\w*|disease\w*|illness\w*|chronic \w+|health\w*|treatment\w*|vaccin\w*|bmi|sick"
     r"(?: (?:leave|days|note))?|medical \w+|chief complaint|zd|zdjg|zdmc|zhenduan|zs|zhusu|gms"
     r"|gms|gmys|jws|xuexing|bingqing|bingshi",
     "诊断|症状|过敏|血型|病史|既往|主诉|处方|残疾|用药|疾病|病情|健康"),
    ("user.contact.fax_number", r"fax|fax number|telefax|chuanzhen|cz(?:h|hm)", "传真"),
    ("user.contact.email",
     r"e ?mail|mail|email address|e ?mail (?:address|id)|mail address|yx|dzyx|youxiang|correo"
     r"|courriel", "邮箱|电子邮件|邮件地址"),
    ("user.contact.phone_number",
     r"phone|mobile|cell|telefon\w*|handy|msisdn|sj|sjh|sjhm|shouji\w*|dh|dhhm|lxdh|lxfs|dianhua"
     r"|yddh|jtdh|ph|(?:calling|called|caller|callee|a|b) number", "电话|手机|联系方式"),
    ("user.social", r"qq|qq ?number|wechat|weixin|wx|wxh|open ?id|union ?id|twitter|linkedin"
     r"|facebook|instagram|skype|whatsapp|telegram", "微信|抖音|微博"),
    ("user.financial.credit_card",
     r"(?:credit|debit|payment) card|card ?number|card (?:last(?: four)?|brand)|pan|cc number|cvv"
     r"|cvc|card (?:expiry|expiration)",
     "信用卡"),
    ("user.financial.bank_account",
     r"iban|bic|swift(?: code)?|account holder"
     r"|bank (?:account|card|details)|account number|routing number|sort code|yhk|yhkh|yhzh"
     r"|kahao|khh|khyh|zhanghao"
     r"|konto(?:nummer|inhaber)?|mandatsreferenz|mandate reference", "银行卡|银行账|开户行|银行帐"),
    ("user.financial",
     r"salar\w*|wage\w*|(?:annual |monthly |household )?income|compensation|bonus|net worth"
     r"|credit (?:score|limit|rating)|fico(?: score)?|pay (?:rate|grade|band)|hourly rate|gehalt"
     r"|gz|gongzi|xinzi|xinshui", "工资|薪|收入"),
    ("user.authorization.password",
     r"password\w*|passwd|pwd|pass(?:word)? hash|security (?:question|answer)|mima", "密码|口令"),
    ("user.account.username",
     r"user name|login(?: name| id)?|screen name|nick name|handle|yhm|dlm|yonghuming|nicheng",
     "用户名|登录名|昵称|账户名"),
    ("user.content.self_image",
     r"photo\w*|avatar\w*|portrait|picture|headshot|face(?: image)?|selfie|touxiang|zhaopian",
     "头像|照片|人脸|相片"),
    ("user.biometric", r"signature\w*|sign image|fingerprint\w*|iris|voice ?print|biometric\w*|qm"
     r"|qianming|zhiwen", "签名|指纹|签字|虹膜|声纹"),
    ("user.device.ip_address", r"ip|ip address|(?:client|remote|last|login) ip|remote address"
     r"|last login ip|ipv4|ipv6|(?:x )?forwarded for", "IP地址|登录IP"),
    ("user.device.device_id", r"device (?:id|number|token)|imei|imsi|idfa|mac address", "设备号"),
    ("user.device", r"user agent|browser agent", "用户代理"),
    ("user.device.cookie_id", r"cookie(?: id)?|session (?:id|cookie)", "会话标识"),
    ("user.location.precise", r"lat|latitude|lng|lon|long|longitude|gps\w*|geo ?location"
    r"|coordinates"
     r"|jd|wd|jingdu|weidu", "经度|纬度|坐标"),
    ("user.contact.address.postal_code", r"postal(?: code)?|post code|zip code|code postal|yb|yzbm"
     r"|youbian|youzhengbianma", "邮编|邮政编码"),
    ("user.contact.address.street",
     r"street\w*|address(?: ?line)?|strasse|straße|adresse|direccion|line ?1|line ?2"
     r"|residence|hausnummer|dz|zz|xzz|jtzz|jtdz|jzdz|txdz|hjdz|lxdz|xxdz|sjdz|dizhi|zhuzhi"
     r"|house number"
     r"|apartment|apt", "地址|住址|户籍|街道|居住地"),
    ("user.contact.address.city", r"city|town|ort|wohnort|ville|ciudad|chengshi|csmc",
     "城市|所在市|地市"),
    ("user.contact.address.state", r"state|province|region|county|bundesland|shengfen|sheng"
     r"|prefecture", "省份|省"),
    ("user.contact.address", r"district|division code|xzqh|xzqhdm|area code|neighbou?rhood|qx"
    r"|quxian",
     "区县|行政区划|区划"),
    ("user.contact.address.country", r"country|country code|land|pays|pais", "国家"),
    ("user.name.first", r"first name|given name|vorname|prenom|nombre|first", ""),
    ("user.name.last", r"last name|family name|nachname|familienname|apellidos?|maiden name|xing"
     r"|last", ""),
    ("user.name",
     r"middle (?:name|initial)|mid(?:dle)? init|name on \w+|full name|real name|legal name"
     r"|preferred name|name (?:cn|en|zh|prefix"
     r"|suffix)|initials|xm|xingming|mingzi|lxr|lxrxm|contact (?:name|person)|contact|cardholder"
     r"|holder name|(?:next of )?kin(?: name)?|maiden|salutation|honorific|beneficiary"
     r"(?: name)?|guardian|emergency contact", "姓名|联系人|收件人|寄件人|收货人|监护人"
     "|法人代表|户主"
     "|持卡人|申请人|经办人|名字|家属"),
    ("user.job_title", r"(?:job|contact) title|job(?: position)?|position|occupation"
    r"|profession|job role"
    r"|beruf|zhiwei"
     r"|zw|zc|zhicheng|zhiye|gangwei", "职务|职位|职称|职业|岗位"),
    ("user.contact.organization", r"employer(?: name)?|company(?: name)?|organization(?:"
    r" name)?|gzdw"
     r"|gongzuodanwei|danwei", "工作单位|单位|公司"),
    ("user.privacy_preferences", r"(?:marketing|newsletter|privacy|email|sms) (?:opt ?(?:in|out)"
     r"|subscribed|consent\w*|permission\w*|preferences?)|opt(?:ed)? (?:in|out)|subscribed|consent"
     r"(?:ed| given| purposes?| scope)?|gdpr consent|do not (?:call|mail|contact)", "同意"
     "|授权范围"),
    ("user.account.settings", r"preferences?|settings", "偏好"),
    ("user.content.private", r"cv|resume|curriculum vitae|cover letter|lebenslauf|jianli", "简历"),
)  # fmt: skip

NEEDS_PERSON = frozenset({
    "user.demographic.age_range", "user.content.self_image", "user.location.precise",
    "user.contact.address.postal_code", "user.contact.address.street", "user.contact.address.city",
    "user.contact.address.state", "user.contact.address", "user.contact.address.country",
    "user.contact.organization", "user.job_title", "user.account.settings",
    "user.demographic.race_ethnicity", "user.demographic.political_opinion", "user.biometric",
    "user.contact.phone_number", "user.contact.fax_number", "user.contact.email", "user.financial",
    "user.financial.bank_account", "user.demographic", "user.device", "user.device.cookie_id",
    "user.device.ip_address", "user.health_and_medical", "user.name.first", "user.name.last",
    "user.social", "user.health_and_medical.insurance_beneficiary_id", "user.content.private",
})  # fmt: skip
"""Categories that are personal only next to a person, since shops and machines have them too."""

# Last words that turn a name into metadata about it: phone_type, email_verified, address_count.
ABOUT = frozenset({
    "type", "kind", "status", "verified", "confirmed", "count", "format", "template", "sent",
    "flag", "valid", "required", "enabled", "category", "class", "lx", "zt", "length",
    "provider", "domain",
})  # fmt: skip
ROLES = (
    "sender|receiver|recipient|consignee|consignor|shipper|addressee|contact|billing|bill|shipping"
    "|ship|delivery|guardian|parent|mother|father|spouse|emergency|patient|customer|client|user"
    "|member|employee|owner|holder|applicant|buyer|passenger|guest|student|driver|doctor|physician"
    "|manager|agent|tenant|kin|beneficiary|representative|person|visitor|home|personal|private"
    "|staff"
    "|author by|borrower|insured|candidate|teacher|nurse|courier|subscriber|attendee|reporter"
    "|caller"
)
ROLE = re.compile(rf"\b(?:{ROLES})\b")
"""Words before ``name``, ``phone``, ``address`` that name the person."""
KEY_WORDS = frozenset({"id", "number", "code", "key", "uuid", "guid", "sk", "fk", "bh", "h", "ref"})
ACTORS = (
    r"(?:created|entered|updated|modified|changed|handled|reviewed|approved|requested|assigned"
    r"|registered|verified|signed|checked|submitted|recorded|owned|closed|reported|deleted|inserted"
    r"|uploaded|performed|authorized|prepared) by|assigned to|reports to"
    r"|(?:create|write|update|insert) uid"
    r"|(?:requester|approver"
    r"|reviewer|assignee|supervisor|creator|operator|manager|owner|czr|cjr|jbr"
    r"|czy|czyh|lrr|shr)(?: (?:id|number|code|key))?"
)
"""Names of columns that identify who performed an action."""
PUBLIC_FIGURES = frozenset({
    "artist", "composer", "author", "singer", "band", "director", "actor", "publisher", "brand",
    "album", "title", "lyricist", "performer", "label", "studio",
})  # fmt: skip
"""Creators of works. Their names are published with their works and count as not personal."""
FREE_TEXT = re.compile(
    r"\b(?:descriptions?|remarks?|notes?|comments?|message|content|body|feedback|reason|memo"
    r"|text|bz"
    r"|beizhu|complaint|narrative|transcript)$|备注|说明|留言|内容|描述"
)
ROW_KEEPING = re.compile(
    r"\b(?:created|updated|modified|inserted|deleted|changed|imported|synced|loaded|reviewed"
    r"|approved|processed)(?: (?:at|on|date|time|ts|by))?$|\b(?:row|record|data) (?:class|version"
    r"|status|source|hash)|\b(?:etl|batch|checksum|version|rowguid|tenant id)\b"
    r"|\b(?:create date|cjsj|gxsj|xgsj"
    r"|lrsj|create time|update time|modify time)$|创建时间|更新时间|修改时间"
)
ROW_KEEPING_OF_A_PERSON = re.compile(
    r"\b(?:created|updated|modified|deleted|create|update)\b|cjsj|gxsj"
)
"""The date when an account was opened or changed is personal data of its owner."""
TECHNICAL_CLOCK = re.compile(
    r"(?:row |record )?last (?:update|updated|modified|change|changed)(?: (?:at|on|date|time|ts))?"
    r"|(?:write|modify|modified) (?:date|time|at)|letzte (?:änderung|aenderung)"
)
"""Timestamps that a trigger or framework sets at each change of a row: they describe the row."""
OF_MACHINES = re.compile(
    r"\b(?:gateway|subnet|net(?:mask|work|z|zwerk)?|dns|router|broadcast|server|listen|bind|range)\b"
)
"""Words of network addresses that belong to machines."""
NUMBER_OF_A_PARCEL = re.compile(
    r"(?:(?:waybill|tracking|order|parcel|shipment|package|consignment|delivery) )?number"
    r"|(?:waybill|tracking) code|ydh|yundanhao|运单号|订单号|快递单号"
)
