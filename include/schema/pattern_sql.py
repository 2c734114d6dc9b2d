"""SQL conditions that are true for values that look like personal data, such as a person's name.

Each condition reads two columns: ``v``, the value as text, and ``plain``, the value without spaces,
hyphens, dots and brackets. Both have the collation "C", because PostgreSQL refuses regular
expressions on a nondeterministic collation. The regular expressions list letters by code points,
because the collation "C" treats only ASCII letters as letters.
"""

from __future__ import annotations

# The most frequent surnames of China (Ministry of Public Security, name report of 2020 and before)
# and the common double surnames: more than 90% of the population.
SURNAMES = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林高罗郑梁谢宋唐许韩邓冯曹彭曾肖田董潘袁蔡蒋余于杜叶程魏"
    "苏吕丁任卢姚沈钟姜崔谭陆范汪廖石金韦贾夏付方邹熊白孟秦邱侯江尹薛闫段雷龙黎史陶贺毛郝顾龚邵"
    "万覃武钱戴严莫孔向汤常温康施文牛樊葛邢安齐易乔伍庞颜倪庄聂章鲁岳翟殷詹申欧耿关兰焦俞左柳甘"
    "祝包宁尚符舒阮柯纪梅童凌毕单季裴霍涂成苗谷曲盛冉翁蓝路游辛靳管柴蒙鲍华喻祁房蒲滕屈饶解牟艾"
    "尤时穆农司卓古吉"
)
DOUBLE_SURNAMES = "欧阳|上官|司马|诸葛|东方|皇甫|尉迟|公孙|慕容|令狐|司徒|夏侯|端木|百里"
# Frequent given names of Europe and the Americas, and some Asian names in Latin script.
_GIVEN_NAMES = (
    "james john robert michael william david richard joseph thomas charles christopher daniel "
    "matthew anthony mark donald steven paul andrew joshua kenneth kevin brian george edward "
    "ronald timothy jason jeffrey ryan jacob gary nicholas eric jonathan stephen larry justin "
    "scott brandon benjamin samuel frank gregory raymond patrick alexander jack dennis jerry "
    "tyler aaron jose henry adam douglas nathan peter zachary kyle walter harold carl arthur "
    "roger keith jeremy lawrence sean christian ethan austin joe albert jesse willie bryan "
    "billy bruce jordan ralph roy noah dylan eugene wayne alan juan louis russell gabriel "
    "randy philip harry vincent bobby johnny mary patricia jennifer linda elizabeth barbara "
    "susan jessica sarah karen lisa nancy betty margaret sandra ashley kimberly emily donna "
    "michelle carol amanda dorothy melissa deborah stephanie rebecca sharon laura cynthia "
    "kathleen amy angela shirley anna brenda pamela emma nicole helen samantha katherine "
    "christine debra rachel carolyn janet catherine maria heather diane ruth julie olivia "
    "joyce virginia victoria kelly lauren christina joan evelyn judith megan andrea cheryl "
    "hannah jacqueline martha gloria teresa ann sara madison frances kathryn janice jean "
    "abigail alice julia judy sophia grace denise amber doris marilyn danielle beverly "
    "isabella theresa diana natalie brittany charlotte marie kayla alexis lori jane steve "
    "luis carlos pedro miguel antonio manuel francisco javier alejandro fernando roberto hans "
    "jurgen klaus wolfgang stefan andreas markus martin lukas jan felix max leon finn jonas "
    "anja petra sabine monika ursula claudia katja lena mia leonie pierre michel philippe "
    "nathalie isabelle sophie camille marc luc lucas hugo giovanni giuseppe marco luca "
    "francesco paolo giulia chiara ana joao bjorn lars erik anders sven ingrid astrid kari "
    "mikael mika emil oscar elena irina olga natalia ivan dmitri sergei piotr pawel tomasz "
    "katarzyna agnieszka ahmed mohammed muhammad ali omar fatima aisha wei li ming mei priya "
    "raj amit sunita anil lucy ella chloe liam mason logan aiden "
)
GIVEN_NAMES = frozenset(_GIVEN_NAMES.split())


PLAIN = r"regexp_replace(x.v, '[-[:space:]\u00a0\u3000.()]', '', 'g')"
"""The SQL of a value without the separators that people write between digits."""

_UPPER = r"A-Z\u00c0-\u00de\u0100-\u024f"  # Latin Extended mixes upper and lower case
_LETTER = r"A-Za-z\u00c0-\u024f"
_HAN = r"[\u4e00-\u9fff]"
_MOBILE = r"^(\+?86|0086)?1[3-9][0-9]{9}$"
_CHINESE_ADDRESS = (
    r"(省|市|区|县|镇|乡|村|街道).*(路|街|巷|道|号|栋|幢|楼|室|弄|组)|(路|街|巷|道|胡同"
    r"|弄).{0,6}[0-9]+.{0,2}号"
    r"|[0-9]+号.*(楼|单元|室|栋)"
)
_LATIN_ADDRESS = (
    rf"^[0-9]+[a-z]?,? +[{_LETTER}0-9.'' -]+ (st|street|ave|avenue|rd|road|blvd|lane|ln|drive"
    r"|dr|way|"
    r"court|ct|place|pl|square|sq|terrace|pkwy|circle|hwy|nw|sw|ne|se)\M|(stra(\u00df|ss)e|str\."
    r"|weg|platz|"
    r"gasse|allee|plein|laan|straat|gade|vej) *[0-9]+|^(rua|av\.?|avenida|rue|via|calle|ul\.?|"
    r"[0-9]+,? rue) .*[0-9]|p\.? ?o\.? box"
)
_IS_LATIN_ADDRESS = f"length(v) > 4 AND strpos(v, ' ') > 0 AND v ~* '{_LATIN_ADDRESS}'"
_LATIN_NAME = (
    rf"^[{_UPPER}][{_LETTER}''\u2019-]+( [{_UPPER}]\.?)?( (de|da|van|von|der|del|la))*"
    rf"( [{_UPPER}][{_LETTER}''\u2019.-]+){{1,2}}$"
)
# Weights and check characters of GB 11643-1999 (ISO 7064 MOD 11-2).
_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_ID_CHECK = "+".join(f"substr(v,{n},1)::int*{weight}" for n, weight in enumerate(_WEIGHTS, 1))
# ISO 13616-1: the first four characters go to the end, a letter counts as 10 to 35, modulo 97 is 1.
_IBAN_CHECK = (
    "(SELECT string_agg(CASE WHEN c ~ '[A-Z]' THEN (ascii(c) - 55)::text ELSE c END, '' ORDER BY n)"
    "::numeric % 97 = 1 FROM (SELECT n, substr(substr(upper(plain), 5) || left(upper(plain), 4), n,"
    " 1) AS c FROM generate_series(1, length(plain)) n) characters)"
)
_LUHN = (
    "(SELECT sum(CASE WHEN (length(plain) - n) % 2 = 1 THEN d * 2 - CASE WHEN d > 4 THEN 9 ELSE 0"
    " END ELSE d END) % 10 = 0 FROM (SELECT n, substr(plain, n, 1)::int AS d"
    " FROM generate_series(1, length(plain)) n) digits)"
)
_GIVEN = ", ".join(f"'{name}'" for name in sorted(GIVEN_NAMES))

# Length or a single character is compared first, since regular expressions are slow.
_TEXT_TESTS = {
    "mobile": f"length(plain) BETWEEN 11 AND 15 AND plain ~ '{_MOBILE}'",
    "phone": r"length(plain) BETWEEN 7 AND 16 AND plain ~ '^\+?[0-9]{7,15}$'"
    r" AND v ~ '^\+|[0-9)][ .-]+[0-9]'"
    r" AND v !~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}' AND v !~ '^[0-9]+\.[0-9]+$'"
    r" AND v !~ '^[0-9]{3}-[0-9]{2}-[0-9]{4}$' AND v !~ '^([0-9]{4}[ -]){3}'"
    r" AND v !~ '^([0-9]{1,3}\.){3}[0-9]{1,3}$'",
    "digits": r"length(plain) BETWEEN 7 AND 16 AND plain ~ '^\+?[0-9]{7,15}$'",
    "resident_id": "CASE WHEN length(v) = 18 AND v ~ '^[1-9][0-9]{5}(18|19|20)[0-9]{9}[0-9Xx]$' "
    f"THEN substr('10X98765432', ({_ID_CHECK}) % 11 + 1, 1) = upper(substr(v, 18, 1)) "
    "ELSE false END",
    "email": r"strpos(v, '@') > 0 AND v ~ "
    r"'^[^@[:space:]\u3000]+@[^@[:space:]\u3000]+\.[A-Za-z\u0080-\U0010ffff]{2,}$'",
    "ssn": "length(v) = 11 AND v ~ '^[0-9]{3}-[0-9]{2}-[0-9]{4}$'",
    "card": "CASE WHEN length(plain) BETWEEN 13 AND 19 AND plain ~ '^[2-6][0-9]+$' "
    f"THEN {_LUHN} ELSE false END",
    "iban": "CASE WHEN length(plain) BETWEEN 15 AND 34 AND plain ~* '^[A-Z]{2}[0-9]{2}[A-Z0-9]+$' "
    f"THEN {_IBAN_CHECK} ELSE false END",
    "ip": r"v ~ '^([0-9]{1,3}\.){3}[0-9]{1,3}(/32)?$'"
    r" OR strpos(v, ':') > 0 AND v ~* "
    r"'^(?=.*::|([0-9a-f]*:){7})[0-9a-f]{0,4}(:[0-9a-f.]{0,15}){2,8}(/128)?$'",
    "chinese_name": "length(v) < 5 AND v ~ "
    f"'^([{SURNAMES}]{_HAN}{{1,2}}|({DOUBLE_SURNAMES}){_HAN}{{1,2}})$'",
    "latin_name": f"strpos(v, ' ') > 0 AND v ~ '{_LATIN_NAME}'",
    "given_name": f"split_part(lower(v), ' ', 1) IN ({_GIVEN})",
    "address": f"octet_length(v) > length(v) AND v ~ '{_CHINESE_ADDRESS}' OR {_IS_LATIN_ADDRESS}",
    "birth_date": r"v ~ '^(19|20)[0-9]{2}[-/.]?[01][0-9][-/.]?[0-3][0-9]'",
}
_DATE_TESTS = {"birth_date": "v BETWEEN '1900-01-01' AND current_date - 3650"}


def tests(form: str, *, has_unicode: bool) -> dict[str, str]:
    """Return an SQL condition for each pattern, which tests whether a value matches the pattern.

    Args:
        form: type of the values: ``text`` or ``date``.
        has_unicode: whether the database's encoding is UTF8. In other encodings, statements cannot
            contain Chinese characters, so the Chinese patterns are omitted.

    Returns:
        Name of the pattern -> SQL condition.
    """
    if form == "date":
        return _DATE_TESTS
    if has_unicode:
        return _TEXT_TESTS
    latin = _TEXT_TESTS | {"address": _IS_LATIN_ADDRESS}
    return {name: test for name, test in latin.items() if test.isascii()}
