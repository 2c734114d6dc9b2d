"""Names of people by which columns of names are known, whatever they are called."""

from __future__ import annotations

# The most frequent surnames of China (Ministry of Public Security, name report of 2020 and before)
# and the usual double ones: more than nine people in ten.
SURNAMES = (
    "王李张刘陈杨黄赵吴周徐孙马朱胡郭何林高罗郑梁谢宋唐许韩邓冯曹彭曾肖田董潘袁蔡蒋余于杜叶程魏"
    "苏吕丁任卢姚沈钟姜崔谭陆范汪廖石金韦贾夏付方邹熊白孟秦邱侯江尹薛闫段雷龙黎史陶贺毛郝顾龚邵"
    "万覃武钱戴严莫孔向汤常温康施文牛樊葛邢安齐易乔伍庞颜倪庄聂章鲁岳翟殷詹申欧耿关兰焦俞左柳甘"
    "祝包宁尚符舒阮柯纪梅童凌毕单季裴霍涂成苗谷曲盛冉翁蓝路游辛靳管柴蒙鲍华喻祁房蒲滕屈饶解牟艾"
    "尤时穆农司卓古吉"
)
DOUBLE_SURNAMES = "欧阳|上官|司马|诸葛|东方|皇甫|尉迟|公孙|慕容|令狐|司徒|夏侯|端木|百里"
# Given names that are frequent in Europe and the Americas, and some of Asia's in Latin script.
_GIVEN = (
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
GIVEN_NAMES = frozenset(_GIVEN.split())
