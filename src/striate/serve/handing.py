"""Models on their way from the process that made them to those that serve them: bytes without code in them."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict

from striate.serve.models import Prepared


def pack(models: Sequence[Prepared]) -> bytes:
    """Return models as bytes."""
    return json.dumps([{**asdict(one), "content": base64.b64encode(one.content).decode()} for one in models]).encode()


def unpack(content: bytes) -> list[Prepared]:
    """Return the models that `pack` made bytes of."""
    return [Prepared(**{**one, "content": base64.b64decode(one["content"])}) for one in json.loads(content)]
