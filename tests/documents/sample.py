"""Sample documents: a complete report to an authority, and a document with malicious texts."""

from __future__ import annotations

from datetime import UTC, date, datetime

from include.documents.model import Document, Entry, Form, Section
from include.messages import Message, verbatim
from include.reports.model import Column, Paragraph, Steps, Table

ZONE = "Asia/Shanghai"
AWARE = datetime(2026, 11, 23, 19, 12, tzinfo=UTC)
REFERENCE = "INC-2026-0007/CAC/1"
HOSTILE = (
    "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&lt;{{ 7*7 }}]]></w:t>"
    "\u202eevil\u2066\x00\x01\x1f\ud800\ufffe 😀\t第一行\r\n第二行\r第三行"
)


def bilingual(english: str, chinese: str) -> Message:
    return Message(text=english, translations={"zh-CN": chinese})


DRILL = bilingual("DRILL - not a real incident", "演练 - 并非真实事件")


def entry(english: str, chinese: str, value: object, **more: object) -> Entry:
    return Entry.model_validate({"label": bilingual(english, chinese), "value": value, **more})


def report(warning: Message | None = DRILL) -> Document:
    """Return a complete first report on leaked credentials, which has two pages.

    Args:
        warning: warning on every page; None for no warning.
    """
    return Document(
        title=bilingual(
            "Report on a Personal Information Security Incident", "个人信息安全事件报告"
        ),
        subtitle=bilingual("First report", "首次报告"),
        dated=datetime(2026, 11, 23, 21, 40, 12, tzinfo=UTC),
        reference=REFERENCE,
        sender=bilingual("Example Express Co., Ltd.", "示例速递有限公司"),
        sender_address=bilingual("2 Sample Street, Hangzhou", "杭州市示例街2号"),
        addressee=bilingual(
            "To the Cyberspace Administration of Zhejiang", "浙江省互联网信息办公室"
        ),
        sections=(_incident(), _impact(), _measures(), _clocks()),
        signature=(
            entry("Unit (seal)", "单位（盖章）", None),
            entry("Responsible person", "负责人", None),
            entry("Day", "日期", date(2026, 11, 24)),
        ),
        footer=bilingual(
            "Generated from the incident register; the compliance office keeps the sealed copy for "
            "five years after the incident is closed.",
            "本文件由事件登记簿生成；封存件由合规部保存至事件关闭后五年。",
        ),
        warning=warning,
    )


def _incident() -> Section:
    return Section(
        heading=bilingual("The incident", "事件基本情况"),
        blocks=(
            Form(
                entries=(
                    entry("System", "涉事系统", bilingual("Order service", "订单服务系统")),
                    entry("Became aware", "发现时间", AWARE),
                    entry("Type", "事件类型", bilingual("Leaked credentials", "账号凭据泄露")),
                    entry("Grade", "事件等级", bilingual("Larger", "较大")),
                    entry("Data subjects affected", "受影响个人数量", 1_204_331, unit="people"),
                    entry(
                        "Categories of information",
                        "涉及的个人信息种类",
                        [
                            bilingual("Names of recipients", "收件人姓名"),
                            bilingual("Telephone numbers", "电话号码"),
                            bilingual("Delivery addresses", "收件地址"),
                        ],
                    ),
                    entry("Trend", "发展态势", None, required=False),
                )
            ),
        ),
    )


def _impact() -> Section:
    cause = (
        "一名外包人员的账号密码在公开论坛出现，攻击者自境外地址登录订单服务系统，"
        "并分批导出收件信息。\n账号已停用，导出接口已关闭。"
    )
    return Section(
        heading=bilingual("Cause and possible harm", "原因与可能造成的危害"),
        blocks=(
            Paragraph(
                text=bilingual(
                    "This first report states what is known so far; what is marked as not stated "
                    "follows in the next report (National Incident Reporting Measures "
                    "(2025-11-01), article 7).",
                    "本报告为首次报告，仅载明目前已掌握的情况；标注“未填写”的事项将在后续报告中补充"
                    "（《国家网络安全事件报告管理办法》（2025-11-01）第七条）。",
                )
            ),
            Form(
                entries=(
                    entry("Preliminary cause", "初步原因", verbatim(cause)),
                    entry(
                        "Possible harm",
                        "可能造成的危害",
                        bilingual(
                            "Fraudulent calls and parcels that pretend to come from the company.",
                            "可能出现冒充本公司的诈骗电话及虚假包裹。",
                        ),
                    ),
                )
            ),
        ),
    )


def _measures() -> Section:
    items = [
        ("The account was locked and its sessions were ended.", "锁定涉事账号并终止其全部会话。"),
        ("Export was switched off in the order service.", "关闭订单服务系统的导出功能。"),
        ("Access logs of the last 90 days were sealed.", "封存最近九十日的访问日志。"),
    ]
    return Section(
        heading=bilingual("Measures taken", "已采取的措施"),
        blocks=(Steps(items=[bilingual(*item) for item in items]),),
    )


def _clocks() -> Section:
    rows: list[list[object]] = [
        [bilingual("Courier database", "速递业务库"), 1_204_331, 3_870_022, "2026-11-20"],
        [bilingual("Complaints database", "投诉库"), 0, 0, None],
    ]
    return Section(
        heading=bilingual("Records affected", "受影响的记录"),
        blocks=(
            Table.model_validate(
                {
                    "caption": bilingual("Counts by database", "各数据库统计"),
                    "columns": [
                        Column(label=bilingual("Database", "数据库")),
                        Column(label=bilingual("People", "人数"), kind="number"),
                        Column(label=bilingual("Records", "记录数"), kind="number"),
                        Column(label=bilingual("First seen", "最早时间")),
                    ],
                    "rows": rows,
                }
            ),
        ),
    )


def hostile(long: int = 100_000) -> Document:
    """Return a document whose texts contain markup and control characters. Some lists are empty.

    Args:
        long: length in bytes of two very long texts, one of which is a single word.
    """
    bad = verbatim(HOSTILE)
    column = Column(label=bad)
    blocks = (
        Form(
            entries=(
                Entry(label=bad, value=bad),
                Entry(label=bad, value=HOSTILE),
                Entry(label=bad, value=(bad, bad)),
                Entry(label=bad, value=verbatim("W" * (long // 2) + "长" * (long // 6))),
                Entry(label=bad, value=()),
            )
        ),
        Form(entries=()),
        Paragraph(text=verbatim("word and 词 " * (long // 13))),
        Steps(items=[]),
        Steps(items=[bad]),
        Table(caption=bad, columns=[column, column], rows=[[bad, HOSTILE]]),
        Table(caption=bad, columns=[column], rows=[]),
    )
    return Document(
        title=bad,
        subtitle=bad,
        dated=AWARE,
        reference=HOSTILE,
        sender=bad,
        sender_address=bad,
        addressee=bad,
        sections=(Section(heading=bad, blocks=blocks), Section(heading=bad, blocks=())),
        signature=(Entry(label=bad, value=bad), Entry(label=bad)),
        footer=bad,
        warning=bad,
    )
