"""What a complete answer means for a message: the judgement of all mail adapters, for ``icapscan-qmail-queue``."""

from __future__ import annotations

from icapscan.adapters.judgement import Judgement, judgement_of
from icapscan.clients.answer import Answer
from icapscan.clients.result import Asked, Mode, judge
from icapscan.wire.icap_events import HttpHeads


def judged(answer: Answer, url: str, heads: HttpHeads) -> Judgement:
    """The judgement on a whole message that was sent by REQMOD with ``Allow: 204``. Raises as `judge`."""
    result = judge(answer, Asked(Mode.REQMOD, url, True, False, heads.req_hdr))
    judgement = judgement_of(result)
    if judgement.adapted is None:
        result.close()
    return judgement
