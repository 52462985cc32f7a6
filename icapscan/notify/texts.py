"""What the mails say, in English and Japanese, for people who know nothing of gateways."""

from __future__ import annotations

from msgspec import Struct


class Texts(Struct, frozen=True):
    """All words of one language. In braces stand values."""

    language: str
    title: str
    """Name of the language, above its text where there are several."""
    headings: dict[str, str]
    """By verdict."""
    subject: str
    things: dict[str, str]
    """What it is about, by ``administrator.DIRECTION``, ``sender``, ``recipient``."""
    what: dict[str, str]
    """What happened, by verdict."""
    reasons: dict[str, str]
    done: dict[str, str]
    """What was done, by decision."""
    kept: str
    not_kept: str
    held: str
    ask: str
    administrator: str
    """Whom to ask where no contact is configured."""
    footer: str
    labels: dict[str, str]


ENGLISH = Texts(
    language="en",
    title="English",
    headings={
        "infected": "A virus was found",
        "suspicious": "Suspicious content",
        "unscanned": "Content that could not be checked",
        "clean": "Notice of a rule",
    },
    subject="[icapscan] {heading} ({reference})",
    things={
        "administrator.mail": "a mail",
        "administrator.download": "a download",
        "administrator.upload": "an upload",
        "sender": "a mail that you sent",
        "recipient": "a mail for you",
    },
    what={
        "infected": "The virus scanner found a virus in {thing}.",
        "suspicious": "The virus scanner found signs of a harmful program in {thing}.",
        "unscanned": "The virus scanner could not check all of {thing}: {reason}.",
        "clean": "A rule asks for this notice about {thing}. No virus was found.",
    },
    reasons={
        "over-limit": "it is too large, or packed too many times over",
        "encrypted": "it is protected by a password",
        "malformed": "it is damaged or not in the form that it claims to have",
        "unsupported": "it is in a form that cannot be read",
        "engine-failed": "a part of the scanner failed",
        "timeout": "it took too long",
    },
    done={
        "allow": "It was passed on.",
        "block": "It was blocked and not passed on.",
        "sanitize": "What can do harm was taken out of it, and the rest was passed on.",
        "defer": "It was not passed on for the time being; it may be sent again later.",
        "error": "The scanner could not decide about it; what happens to it is decided by whoever asked the scanner.",
    },
    kept="The original is kept in the quarantine.",
    not_kept="The original was to be kept in the quarantine, and could not be.",
    held="Since the last notice {held} more for you were held back, because there were too many. The log has them.",
    ask="If you have questions, or if you think that this is a mistake, please contact {contact} and give the "
    "reference above.",
    administrator="your administrator",
    footer="This message was written by a program. Please do not answer it.",
    labels={
        "threats": "Found", "names": "File name", "subject": "Subject", "sender": "From", "recipients": "To",
        "message_id": "Message-ID", "url": "Address", "client": "Client", "user": "User", "service": "Service",
        "media_type": "Type", "size": "Bytes", "rule": "Rule", "rules": "Notice by", "detail": "Note",
        "quarantine": "Quarantine", "reference": "Reference", "date": "Date", "host": "Scanner",
    },
)  # fmt: skip

JAPANESE = Texts(
    language="ja",
    title="日本語",
    headings={
        "infected": "ウイルスが見つかりました",
        "suspicious": "不審な内容が見つかりました",
        "unscanned": "検査できない内容がありました",
        "clean": "規則による通知",
    },
    subject="[icapscan] {heading} ({reference})",
    things={
        "administrator.mail": "メール",
        "administrator.download": "ダウンロード",
        "administrator.upload": "アップロード",
        "sender": "あなたが送信したメール",
        "recipient": "あなた宛てのメール",
    },
    what={
        "infected": "ウイルス検査サーバーが{thing}の中にウイルスを見つけました。",
        "suspicious": "ウイルス検査サーバーが{thing}の中に、有害なプログラムに似た特徴を見つけました。",
        "unscanned": "ウイルス検査サーバーは{thing}を最後まで検査できませんでした(理由:{reason})。",
        "clean": "規則により、{thing}についてお知らせします。ウイルスは見つかっていません。",
    },
    reasons={
        "over-limit": "サイズが大きすぎるか、圧縮が何重にも重なっている",
        "encrypted": "パスワードで保護されている",
        "malformed": "壊れているか、本来の形式と異なる",
        "unsupported": "読み取れない形式である",
        "engine-failed": "検査サーバーの一部に障害が起きた",
        "timeout": "時間がかかりすぎた",
    },
    done={
        "allow": "通信はそのまま通しました。",
        "block": "途中で止めたため、届いていません。",
        "sanitize": "有害なおそれのある部分を取り除き、残りを届けました。",
        "defer": "いまは届けていません。あとで再送される可能性があります。",
        "error": "検査サーバーでは判断できませんでした。扱いは、検査を依頼したサーバーが決めます。",
    },
    kept="元の内容は隔離されています。",
    not_kept="元の内容を隔離しようとしましたが、できませんでした。",
    held="通知が多すぎたため、前回の通知のあと、あなた宛ての通知をほかに{held}件見合わせました。内容はログに残っています。",
    ask="ご質問がある場合、または誤検出と思われる場合は、上の受付番号を添えて、{contact}までお問い合わせください。",
    administrator="管理者",
    footer="このメールはプログラムが自動的に送信しています。返信しないでください。",
    labels={
        "threats": "検出名", "names": "ファイル名", "subject": "件名", "sender": "差出人", "recipients": "宛先",
        "message_id": "Message-ID", "url": "アドレス", "client": "クライアント", "user": "ユーザー",
        "service": "サービス", "media_type": "種類", "size": "バイト数", "rule": "規則", "rules": "通知の規則",
        "detail": "備考", "quarantine": "隔離番号", "reference": "受付番号", "date": "日時", "host": "検査サーバー",
    },
)  # fmt: skip

LANGUAGES = {"en": ENGLISH, "ja": JAPANESE}
