"""What the block page says, in English and Japanese, for people who know nothing of viruses or gateways.

A page is shown for downloads and for uploads alike, so the texts speak of "content" and of "passed on".
"""

from __future__ import annotations

import enum

from msgspec import Struct

from icapscan.findings import Reason


class Kind(enum.Enum):
    """Why a page is shown."""

    INFECTED = "infected"
    SUSPICIOUS = "suspicious"
    UNSCANNED = "unscanned"
    RULE = "rule"
    DEFERRED = "deferred"


class Said(Struct, frozen=True):
    """The words for one kind of page."""

    heading: str
    what: str
    """What happened."""
    todo: str
    """What the reader can do."""


class Texts(Struct, frozen=True):
    """All words of one language."""

    language: str
    title: str
    labels: dict[str, str]
    """Of the details: threat, reason, address, reference."""
    mistake: str
    """With ``{contact}``."""
    administrator: str
    """Whom to ask where no contact is configured."""
    footer: str
    infected: Said
    suspicious: Said
    unscanned: dict[Reason, Said]
    rule: Said
    """A rule of the organisation forbids it."""
    deferred: Said


ENGLISH = Texts(
    language="en",
    title="Content blocked",
    labels={"threat": "Threat", "reason": "Reason", "address": "Address", "reference": "Reference number"},
    mistake="If you think this is a mistake, please contact {contact} and give the reference number below.",
    administrator="your network administrator",
    footer="This page was made by the virus scanner of your network, not by the site itself.",
    infected=Said(
        "A virus was found",
        "This content holds a program that can do harm. It was stopped by the virus scanner of your network and was "
        "not passed on.",
        "If it was on its way to you, you do not have to do anything; you may let its sender or the owner of the site "
        "know. If you were sending it, please have your computer checked for viruses.",
    ),
    suspicious=Said(
        "This content looks suspicious",
        "This content has signs of a program that can do harm. To be safe, it was stopped by the virus scanner of "
        "your network and was not passed on.",
        "If you were expecting this content, ask its sender or the owner of the site about it.",
    ),
    unscanned={
        Reason.OVER_LIMIT: Said(
            "This content is too large to be checked",
            "This content is so large, or packed so many times over, that it could not be checked for viruses as a "
            "whole. To be safe, it was not passed on.",
            "If you need it, ask its sender for smaller files or for a copy that is not packed.",
        ),
        Reason.ENCRYPTED: Said(
            "This content is protected by a password",
            "This content is encrypted, so it could not be checked for viruses. To be safe, it was not passed on.",
            "If you need it, ask its sender for a copy without a password.",
        ),
        Reason.MALFORMED: Said(
            "This content is damaged",
            "This content is damaged or not in the form that it claims to have, so it could not be checked for "
            "viruses as a whole. To be safe, it was not passed on.",
            "Please try once more. If it happens again, let the sender or the owner of the site know.",
        ),
        Reason.UNSUPPORTED: Said(
            "This content could not be checked",
            "This content is in a form that the virus scanner cannot read. To be safe, it was not passed on.",
            "If you need it, ask its sender for a copy in a more common form.",
        ),
        Reason.ENGINE_FAILED: Said(
            "This content could not be checked just now",
            "The virus scanner of your network has a problem and could not check this content. To be safe, it was "
            "not passed on.",
            "Please try again in a few minutes.",
        ),
        Reason.TIMEOUT: Said(
            "This content could not be checked in time",
            "Checking this content for viruses took too long and was given up. To be safe, it was not passed on.",
            "Please try again in a few minutes.",
        ),
    },
    rule=Said(
        "This content is not allowed here",
        "A rule of your organisation does not allow content of this kind. It was stopped on its way and was not passed "
        "on. This does not mean that a virus was found.",
        "If you need it, ask your network administrator for another way to get it or to send it.",
    ),
    deferred=Said(
        "This content cannot be passed on just now",
        "A rule of your organisation holds this content back for the time being. It was not passed on.",
        "Please try again later.",
    ),
)

JAPANESE = Texts(
    language="ja",
    title="コンテンツをブロックしました",
    labels={"threat": "検出名", "reason": "理由", "address": "アドレス", "reference": "受付番号"},
    mistake="誤ってブロックされたと思われる場合は、下の受付番号を添えて、{contact}までお問い合わせください。",
    administrator="ネットワークの管理者",
    footer="このページは、接続先のサイトではなく、お使いのネットワークのウイルススキャナーが表示しています。",
    infected=Said(
        "ウイルスが見つかりました",
        "このコンテンツには、害を及ぼすおそれのあるプログラムが含まれています。ネットワークのウイルススキャナーが"
        "途中で止めました。",
        "受信の場合、特に操作は必要ありません。必要に応じて、送信者またはサイトの管理者にお知らせください。"
        "送信の場合は、お使いのコンピューターのウイルス検査をしてください。",
    ),
    suspicious=Said(
        "不審なコンテンツです",
        "このコンテンツには、害を及ぼすプログラムに似た特徴があります。安全のため、ネットワークのウイルススキャナーが"
        "途中で止めました。",
        "お心当たりのあるコンテンツの場合は、送信者またはサイトの管理者にご確認ください。",
    ),
    unscanned={
        Reason.OVER_LIMIT: Said(
            "大きすぎるため検査できませんでした",
            "このコンテンツは、サイズが大きすぎるか、圧縮が何重にも重なっているため、ウイルス検査を最後まで"
            "行えませんでした。安全のため、通信を止めました。",
            "必要な場合は、送信者に、小さく分けたファイルや圧縮していないファイルを依頼してください。",
        ),
        Reason.ENCRYPTED: Said(
            "パスワードで保護されているため検査できませんでした",
            "このコンテンツは暗号化されているため、ウイルス検査を行えませんでした。安全のため、通信を止めました。",
            "必要な場合は、送信者に、パスワードのかかっていないファイルを依頼してください。",
        ),
        Reason.MALFORMED: Said(
            "壊れているため検査できませんでした",
            "このコンテンツは、壊れているか、本来の形式と異なるため、ウイルス検査を最後まで行えませんでした。"
            "安全のため、通信を止めました。",
            "もう一度お試しください。繰り返し表示される場合は、送信者またはサイトの管理者にお知らせください。",
        ),
        Reason.UNSUPPORTED: Said(
            "検査できない形式です",
            "このコンテンツは、ウイルススキャナーが読み取れない形式です。安全のため、通信を止めました。",
            "必要な場合は、送信者に、一般的な形式のファイルを依頼してください。",
        ),
        Reason.ENGINE_FAILED: Said(
            "ただいま検査を行えません",
            "ネットワークのウイルススキャナーに問題が起きているため、このコンテンツを検査できませんでした。"
            "安全のため、通信を止めました。",
            "数分後にもう一度お試しください。",
        ),
        Reason.TIMEOUT: Said(
            "時間内に検査が終わりませんでした",
            "このコンテンツのウイルス検査に時間がかかりすぎたため、検査を中止しました。安全のため、通信を止めました。",
            "数分後にもう一度お試しください。",
        ),
    },
    rule=Said(
        "許可されていないコンテンツです",
        "所属する組織の規則により、この種類のコンテンツは許可されていません。途中で止めたため、届いていません。"
        "ウイルスが見つかったという意味ではありません。",
        "必要な場合は、別の受け渡し方法をネットワークの管理者にご相談ください。",
    ),
    deferred=Said(
        "ただいまお届けできません",
        "所属する組織の規則により、このコンテンツを一時的に保留しています。通信を止めました。",
        "しばらくしてからもう一度お試しください。",
    ),
)

LANGUAGES = {"en": ENGLISH, "ja": JAPANESE}
