"""What the server refuses, and how it says so: an error with a status, as JSON."""

from __future__ import annotations

import json
import math
from typing import Any

from starlette.responses import Response

from striate.errors import DataError, MissingExtra, StriateError, UsageError

#: Where the Open Inference Protocol rules: its errors are one sentence.
V2 = "/v2"
_CODES = {
    400: "bad-request",
    401: "unauthorised",
    404: "not-found",
    405: "method-not-allowed",
    408: "timeout",
    413: "too-large",
    415: "unsupported-media-type",
    421: "wrong-host",
    422: "unprocessable",
    429: "busy",
    500: "internal",
    501: "missing",
    503: "unavailable",
}


class Refused(StriateError):
    """A request that is not answered; `status` of HTTP, `retry_after` in seconds where asking again may help."""

    def __init__(
        self, status: int, what: str, cause: str = "", fix: str = "", *, code: str = "", retry_after: float = 0.0
    ) -> None:
        super().__init__(what, cause, fix)
        self.status = status
        self.code = code or _CODES.get(status, "error")
        self.retry_after = retry_after


class Busy(Refused):
    """There is no room for more at present."""

    def __init__(self, what: str, cause: str = "", *, retry_after: float = 1.0, status: int = 429) -> None:
        super().__init__(status, what, cause, "ask again later", retry_after=retry_after)


def as_refusal(error: StriateError) -> Refused:
    """Return the refusal that an error of the library amounts to."""
    if isinstance(error, Refused):
        return error
    status = 501 if isinstance(error, MissingExtra) else 422 if isinstance(error, (UsageError, DataError)) else 500
    return Refused(status, error.what, error.cause, error.fix)


def response_to(error: Refused, path: str) -> Response:
    """Return the response that tells a refusal, in the form that belongs to the path."""
    if path == V2 or path.startswith(V2 + "/"):
        told: Any = ": ".join(part for part in (error.what, error.cause) if part)
        if error.fix:
            told = f"{told}; {error.fix}"
    else:
        told = {"code": error.code, "what": error.what, "cause": error.cause, "fix": error.fix}
    headers = {"retry-after": str(max(1, math.ceil(error.retry_after)))} if error.retry_after else {}
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return json_response({"error": told}, error.status, headers)


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return plain values as a JSON response. Raises ValueError for numbers that are not finite."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # A lone surrogate, as JSON's \ud800 in a name gives one, has no UTF-8.
    return Response(text.encode("utf-8", "replace"), status, headers, "application/json")
