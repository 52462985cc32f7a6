"""What the page says that a person sees while a download is being checked, in English and Japanese."""

from __future__ import annotations

from msgspec import Struct


class ProgressTexts(Struct, frozen=True):
    """All words of one language."""

    title: str
    heading: str
    what: str
    arriving: str
    """While bytes arrive, with ``{received}``."""
    arriving_of: str
    """The same with ``{received}`` and ``{total}``."""
    checking: str
    """All is there and is being scanned."""
    ready: str
    """The heading then."""
    done: str
    """It may be had."""
    link: str
    expires: str
    file: str
    address: str
    footer: str


PROGRESS = {
    "en": ProgressTexts(
        title="Checking a download",
        heading="Your download is being checked",
        what="The virus scanner of your network looks at this file before it is passed on to you. Please leave this "
        "window open.",
        arriving="{received} have arrived",
        arriving_of="{received} of {total} have arrived",
        checking="The file is here and is being checked for viruses.",
        ready="Your download is ready",
        done="The file was checked, and no virus was found.",
        link="Save the file",
        expires="The download starts by itself. If it does not, use the button. The file is kept for a short time.",
        file="File",
        address="Address",
        footer="This page was made by the virus scanner of your network, not by the site itself.",
    ),
    "ja": ProgressTexts(
        title="ダウンロードを検査しています",
        heading="ダウンロードを検査しています",
        what="お使いのネットワークのウイルススキャナーが、お渡しする前にこのファイルを検査しています。"
        "このウィンドウを開いたままお待ちください。",
        arriving="{received} を受信しました",
        arriving_of="{total} のうち {received} を受信しました",
        checking="受信が終わりました。ウイルスを検査しています。",
        ready="ダウンロードの準備ができました",
        done="検査が終わりました。ウイルスは見つかりませんでした。",
        link="ファイルを保存",
        expires="ダウンロードは自動的に始まります。始まらない場合はボタンを押してください。"
        "ファイルの保管は短い時間に限られます。",
        file="ファイル",
        address="アドレス",
        footer="このページは、接続先のサイトではなく、お使いのネットワークのウイルススキャナーが表示しています。",
    ),
}
