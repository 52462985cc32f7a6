"""``icapscan-qmail-queue``, for ``$QMAILQUEUE``: takes a message, has it scanned, and becomes the real qmail-queue.

After the scan this process *is* the real qmail-queue (execve): its exit code is the caller's, its descriptor 6 too, and
a kill at any moment means what it means to qmail-queue. Before that nothing is queued. docs/decisions/qmail-queue.md.

Imports are where they are used, or where there is time for them: this program starts for each message.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from icapscan.wire.qmail_queue import EnvelopeError, EnvelopeReader, Exit, refusal_text

if TYPE_CHECKING:
    from icapscan.adapters.judgement import Judgement
    from icapscan.adapters.qmail_queue_scan import Asked
    from icapscan.adapters.qmail_queue_settings import QueueSettings
    from icapscan.store import PartStore
    from icapscan.wire.qmail_queue import Envelope

_MESSAGE, _ENVELOPE, _LOG, _TEXT = 0, 1, 2, 6
_READ = 256 * 1024
_DEATH = 86400
"""Seconds after which a caller that sends nothing more is given up, as in qmail-queue.c."""
_GRACE = 10
"""Seconds beyond the time for a scan after which even a hanging name server ends with this process."""
_PROGRAM = b"icapscan-qmail-queue: "


class _Ended(Exception):
    """Stop with this exit code; the sentence is for the log."""

    def __init__(self, exit: Exit, sentence: str) -> None:
        super().__init__(sentence)
        self.exit = exit


def main() -> int:
    """The whole run; returns an exit code of qmail-queue(8), or never because qmail-queue has taken over."""
    can_tell = _is_open(_TEXT)  # before anything of ours could get that number
    for descriptor in (_MESSAGE, _ENVELOPE):
        if not _is_open(descriptor):
            return Exit.READ_ERROR
    if not _is_open(_LOG):
        os.dup2(os.open(os.devnull, os.O_WRONLY), _LOG)
    try:
        return _run(can_tell)
    except _Ended as ended:
        _log(str(ended))
        return ended.exit
    except EnvelopeError as error:
        _log(str(error))
        return error.exit
    except MemoryError:
        return Exit.OUT_OF_MEMORY
    except Exception as error:
        _log(f"internal error: {type(error).__name__}: {error}")
        return Exit.INTERNAL_BUG


def _run(can_tell: bool) -> int:
    import signal

    from icapscan.adapters.qmail_queue_settings import load_settings
    from icapscan.errors import ConfigError

    signal.signal(signal.SIGALRM, lambda *_: os._exit(Exit.TIMEOUT))
    signal.alarm(_DEATH)
    try:
        settings = load_settings(os.environ)
        _check_queue(settings.queue)
    except ConfigError as error:
        raise _Ended(Exit.CONFIGURATION, str(error)) from error
    import icapscan.adapters.qmail_queue_scan  # noqa: F401  (now, while the message is on its way)

    message = _read_message(settings)
    envelope = _read_envelope()
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends even what waits inside the C library
    signal.alarm(int(settings.timeout) + _GRACE)
    asked = _scan(settings, message, envelope)
    signal.alarm(0)
    return _act(settings, asked, message, envelope, can_tell)


def _act(settings: QueueSettings, asked: Asked, message: PartStore, envelope: Envelope, can_tell: bool) -> int:
    from icapscan.adapters.judgement import Action

    judgement = asked.judgement
    action = judgement.action
    if settings.log == "all" or (settings.log == "found" and action is not Action.PASS):
        _log(_line(asked, envelope))
    if action is Action.PASS:
        _become_queue(settings.queue, message, envelope)
    if action is Action.REPLACE and judgement.adapted is not None:
        _become_queue(settings.queue, judgement.adapted, envelope)
    if action is Action.REFUSE:
        return _refuse(judgement, settings.custom_error and can_tell)
    return Exit.TIMEOUT if asked.timed_out else Exit.TRY_LATER


def _refuse(judgement: Judgement, can_tell: bool) -> int:
    if not can_tell:
        return Exit.REFUSED
    reference = f" (reference {judgement.reference})" if judgement.reference else ""
    text = refusal_text(f"this message was refused: {judgement.threat or 'policy'}{reference}", permanent=True)
    try:
        written = os.write(_TEXT, text)
    except OSError:
        written = 0
    return Exit.TOLD if written == len(text) else Exit.REFUSED


# In


def _read_message(settings: QueueSettings) -> PartStore:
    from icapscan.errors import StoreFull
    from icapscan.limits import Limits
    from icapscan.store import PartStore, Purse

    limits = Limits()
    store = PartStore(Purse(2 * limits.part_in_memory, settings.most), limits, settings.spool)
    try:
        while data := os.read(_MESSAGE, _READ):
            if store.size + len(data) > settings.most:
                raise _Ended(Exit.WRITE_ERROR, f"the message is longer than {settings.most} bytes")
            _append(store, data)
    except StoreFull as error:
        raise _Ended(Exit.WRITE_ERROR, str(error)) from error
    except OSError as error:
        raise _Ended(Exit.READ_ERROR, f"the message cannot be read: {error}") from error
    return store


def _append(store: PartStore, data: bytes) -> None:
    try:
        store.append(data)
    except OSError as error:
        raise _Ended(Exit.WRITE_ERROR, f"the message cannot be kept: {error}") from error


def _read_envelope() -> Envelope:
    reader = EnvelopeReader()
    try:
        while data := os.read(_ENVELOPE, _READ):
            if (envelope := reader.feed(data)) is not None:
                return envelope
    except OSError as error:
        raise _Ended(Exit.READ_ERROR, f"the envelope cannot be read: {error}") from error
    raise reader.finish()


# The scan


def _scan(settings: QueueSettings, message: PartStore, envelope: Envelope) -> Asked:
    from icapscan.adapters.qmail_queue_scan import Asked, Message, Patience, ask
    from icapscan.adapters.told import told_address, told_ip, told_recipients, told_user
    from icapscan.clients.errors import InvalidArgument
    from icapscan.clients.source import source_of

    user = next((os.environb[name.encode()] for name in settings.user_from if os.environ.get(name)), b"")
    question = Message(
        source_of(message),
        told_address(envelope.sender),
        told_recipients(envelope.recipients),
        told_ip(os.environ.get("TCPREMOTEIP", "")),
        told_user(user),
    )
    patience = Patience(settings.timeout, settings.connect_timeout, settings.ca)
    try:
        return ask(settings.icap, question, patience)
    except InvalidArgument as error:
        raise _Ended(Exit.CONFIGURATION, str(error)) from error
    except MemoryError:
        raise
    except Exception as error:
        from icapscan.adapters.judgement import judgement_of_error

        return Asked(judgement_of_error(error))


def _line(asked: Asked, envelope: Envelope) -> str:
    judgement = asked.judgement
    words = [judgement.action.value]
    for name, value in (
        ("threat", judgement.threat),
        ("reference", judgement.reference),
        ("client", os.environ.get("TCPREMOTEIP", "")),
        ("from", f"<{envelope.sender.decode('latin-1')}>"),
        ("recipients", str(len(envelope.recipients))),
        ("server", asked.server),
    ):
        if value:
            words.append(f"{name}={value}")
    return f"{' '.join(words)}: {judgement.detail}"


# Out


def _check_queue(path: str) -> None:
    """Raises `ConfigError` for a queue program that is ourselves: it would go round for ever."""
    from icapscan.errors import ConfigError

    if os.path.realpath(path) == os.path.realpath(sys.argv[0]):
        raise ConfigError(f"ICAPSCAN_QUEUE is this program itself: {path}.")


def _become_queue(path: str, message: PartStore, envelope: Envelope) -> None:
    """Message and envelope on the descriptors that the real qmail-queue reads; then it runs in this process's place."""
    import signal

    try:
        inner = message.fileno()
        os.lseek(inner, 0, os.SEEK_SET)
        outer = _whole(envelope.wire)
    except OSError as error:
        raise _Ended(Exit.WRITE_ERROR, f"the message cannot be handed on: {error}") from error
    try:
        os.dup2(inner, _MESSAGE)
        os.dup2(outer, _ENVELOPE)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
            signal.signal(number, signal.SIG_DFL)
        os.execv(path, [path])
    except OSError as error:
        raise _Ended(Exit.CONFIGURATION, f"{path} cannot be run: {error.strerror}") from error


def _whole(data: bytes) -> int:
    """A descriptor from which ``data`` can be read."""
    descriptor = os.memfd_create("envelope", os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _log(sentence: str) -> None:
    """One line on descriptor 2, which tcpserver and multilog keep; qmail-queue itself writes nothing there."""
    line = "".join(character if " " <= character <= "~" else "?" for character in sentence)
    try:
        os.write(_LOG, _PROGRAM + line[:1000].encode("ascii") + b"\n")
    except OSError:
        pass  # the exit code says it all the same
