"""The errors striate raises: what happened, the cause, and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


class StriateError(Exception):
    """Something that a person can mend, told in up to three lines.

    `what` names the file, layer or option; `cause` says why; `fix` gives the exact command or number. `detail` holds
    lines to be shown before these, such as the layers up to the one that failed.
    `exit_code` is what the command ends with (DESIGN: 1 failed, 2 usage, 3 data or model file, 4 missing extra,
    5 verification failed).
    """

    exit_code = 1
    detail: Sequence[str] = ()
    told = False  # by another process of the same training

    def __init__(self, what: str, cause: str = "", fix: str = "") -> None:
        super().__init__(what, cause, fix)
        self.what = what
        self.cause = cause
        self.fix = fix

    def __str__(self) -> str:
        lines = [self.what]
        if self.cause:
            lines.append(f"cause: {self.cause}")
        if self.fix:
            lines.append(f"fix: {self.fix}")
        return "\n".join([*lines, *self.detail])


class UsageError(StriateError):
    """A wrong name, flag, value or combination of them."""

    exit_code = 2


class DataError(StriateError):
    """A data or model file that is missing, broken or not what it should be."""

    exit_code = 3


class MissingExtra(StriateError):
    """A part of striate that was not installed."""

    exit_code = 4


class VerificationError(StriateError):
    """Two things that had to be equal are not; `record` holds all that was compared."""

    exit_code = 5
    record: Mapping[str, Any] = {}


class NonFiniteLoss(StriateError):
    """The loss became infinite or not a number; `rows` (step, epoch, lr, loss) are those before it, not yet logged."""

    rows: Sequence[tuple[int, int, float, float]] = ()


class WriteFailed(StriateError):
    """The system refused a write: a full disk, a quota, a read-only place, a broken disk."""


class LockHeld(StriateError):
    """Another process is working in the same folder."""


class PeerLost(StriateError):
    """Another process of the same training is gone, or does not answer."""


class Interrupted(StriateError):
    """A signal stopped the work, after the state was saved."""

    def __init__(self, what: str, cause: str = "", fix: str = "", exit_code: int = 130) -> None:
        super().__init__(what, cause, fix)
        self.exit_code = exit_code


def near_names(name: str, known: Iterable[str], most: int = 3) -> list[str]:
    """Return the known names most like `name`, nearest first."""
    by_folded = {candidate.lower().replace("_", "-"): candidate for candidate in known}
    folded = name.lower().replace("_", "-")
    near = difflib.get_close_matches(folded, list(by_folded), n=most, cutoff=0.55)
    starts = [candidate for candidate in by_folded if folded and candidate.startswith(folded) and candidate not in near]
    return [by_folded[candidate] for candidate in (near + starts)[:most]]


def unknown_name(kind: str, name: str, known: Iterable[str], fix: str = "") -> UsageError:
    """Build the error for a name that is not known, with the near ones or, if there are none, all of them."""
    known = list(known)
    near = near_names(name, known)
    if near:
        cause = "did you mean " + " or ".join(near) + "?"
    else:
        cause = "known: " + ", ".join(sorted(known)) if known else "none is known"
    return UsageError(f"unknown {kind} {name!r}", cause, fix)
