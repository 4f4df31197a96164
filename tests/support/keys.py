"""Keys that are canaries, and the search for pieces of them in what a caller, a log or a traceback can show."""

from __future__ import annotations

import copy
import pickle
import traceback
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import FrameType

from dd_sa_tokens import DatadogError

HERE = str(Path(__file__).parent.parent)

ACCOUNT = "3f1c0d5e-0000-4000-8000-00000000acc0"

API_KEY = "canary0apikey9f3b1c7d5e2a4068b1d"

APP_KEY = "canary1appkey7c2e9a4f6b8d0135e7a9c2b4d6f"

ACCESS_TOKEN = "ddsat_canary2token5B8dF2hJ6kL9nP3rT7vX1zC4"

CREATED_KEY = "ddsat_canary3created1QwErTyUiOpAsDf_GhJkLzXcVbNm2468"

KEYS = {"api_key": API_KEY, "app_key": APP_KEY}


def leaks(text: str, *more: str) -> list[str]:
    """Return the pieces of the keys, and of more secrets, 12 characters long, that are to be seen in a text."""
    blocks, pieces = _pieces(API_KEY, APP_KEY, ACCESS_TOKEN, CREATED_KEY, *more)
    return [piece for piece in pieces if piece in text] if any(block in text for block in blocks) else []


@cache
def _pieces(*keys: str) -> tuple[list[str], list[str]]:
    """Return the keys cut into blocks of 6 characters, one of which is in each piece of 12, and all those pieces."""
    blocks = [key[i : i + 6] for key in keys for i in range(0, len(key) - 5, 6)]
    return blocks, [key[i : i + 12] for key in keys for i in range(len(key) - 11)]


def remains(error: BaseException, seen: set[int] | None = None) -> Iterator[tuple[str, str]]:
    """Yield each text that an exception leaves behind, by where it was found; our tests' own frames aside."""
    seen = set() if seen is None else seen
    if id(error) in seen:
        return
    seen.add(id(error))
    name = type(error).__name__
    yield f"repr of {name}", repr(error)
    yield f"str of {name}", str(error)
    yield f"args of {name}", repr(error.args)
    yield f"attributes of {name}", repr(vars(error))
    yield f"notes of {name}", repr(getattr(error, "__notes__", []))
    yield f"log of {name}", "".join(traceback.format_exception(error))
    if isinstance(error, DatadogError):
        for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
            yield f"pickle of {name}", pickle.dumps(error, protocol).decode("latin-1")
        yield f"copy of {name}", repr(vars(copy.copy(error)))
    for frame, _ in traceback.walk_tb(error.__traceback__):
        yield from _locals_of(frame)
    related = [error.__cause__, error.__context__]
    related += error.exceptions if isinstance(error, BaseExceptionGroup) else []
    for other in related:
        if other is not None:
            yield from remains(other, seen)


def _locals_of(frame: FrameType) -> Iterator[tuple[str, str]]:
    if frame.f_code.co_filename.startswith(HERE):
        return
    for name, value in frame.f_locals.items():
        where = f"{name} in {frame.f_code.co_qualname} of {frame.f_code.co_filename}"
        yield where, repr(value)
        yield f"str of {where}", str(value)
