"""What a net looks at. The room is the verb too: `striate.explain(run, picture)` calls `explanation.explain`."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Room(ModuleType):
    """A package that can be called; Python binds its name in `striate` to the package, so no function can have it."""

    def __call__(self, run: Any, pictures: Any, **options: Any) -> Any:
        from striate.explain.explanation import explain

        return explain(run, pictures, **options)


sys.modules[__name__].__class__ = _Room
