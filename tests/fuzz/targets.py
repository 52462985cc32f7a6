"""All fuzz targets, by name."""

from __future__ import annotations

from tests.fuzz.target import Target
from tests.fuzz.targets_archives import ARCHIVES
from tests.fuzz.targets_documents import DOCUMENTS
from tests.fuzz.targets_mail import MAIL

TARGETS: dict[str, Target] = {target.name: target for target in (*MAIL, *ARCHIVES, *DOCUMENTS)}
