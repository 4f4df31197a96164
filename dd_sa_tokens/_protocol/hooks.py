"""The strict hooks of cattrs for the leaves of a document: strings, booleans, dates and scopes. Pure."""

from __future__ import annotations

from datetime import datetime
from sys import intern

from cattrs import ClassValidationError, Converter

from .documents import Json, describe_mismatch

_parse = datetime.fromisoformat


class _WrongValueError(ValueError):
    """A leaf of the JSON document is not what the API documents."""


def _expected(what: str, value: object) -> _WrongValueError:
    return _WrongValueError(describe_mismatch(what, value))


def _structure_str(value: object, _type: object) -> str:
    if type(value) is not str:
        raise _expected("a string", value)
    return value


def _structure_optional_str(value: object, _type: object) -> str | None:
    return None if value is None else _structure_str(value, str)


def _structure_optional_bool(value: object, _type: object) -> bool | None:
    if value is not None and type(value) is not bool:
        raise _expected("a boolean", value)
    return value


def structure_optional_datetime(value: object, _type: object = None) -> datetime | None:
    """Return a date and time with an offset; `None` for `None`. Any other value raises a `ValueError`."""
    if value is None:
        return None
    if type(value) is not str:
        raise _expected("an ISO 8601 date and time", value)
    try:
        moment = _parse(value)
        if moment.tzinfo is not None:
            return moment
    except ValueError:
        pass
    msg = "expected an ISO 8601 date and time with an offset, found another string"
    raise _WrongValueError(msg)


def structure_scopes(value: Json, _type: object = None) -> tuple[str, ...]:
    """Return an array of strings as a tuple; `()` for `None`. Any other value raises a `ValueError`."""
    if value is None:
        return ()
    if type(value) is not list:
        raise _expected("an array of strings", value)
    try:
        return tuple(map(intern, value))  # tokens share them, which saves a tenth of a kept token's memory
    except TypeError:  # from an item that is no str
        wrong = next(item for item in value if type(item) is not str)
    raise _expected("an array of strings, each item", wrong)


def parse_moment(value: object) -> datetime | None:
    """Return an ISO 8601 date and time with an offset as a datetime; `None` for any other value."""
    try:
        return structure_optional_datetime(value)
    except _WrongValueError:
        return None


def first_fault(group: ClassValidationError) -> tuple[str, str]:
    """Return the first attribute that is wrong, and the reason."""
    for error, note in group.group_exceptions()[0]:
        if isinstance(error, _WrongValueError):
            return note.name, str(error)
    raise group


def make_converter() -> Converter:
    """Return a converter that takes no leaf for another type."""
    made = Converter()
    made.register_structure_hook(str, _structure_str)
    made.register_structure_hook(str | None, _structure_optional_str)
    made.register_structure_hook(datetime | None, structure_optional_datetime)
    made.register_structure_hook_func(lambda cls: cls == tuple[str, ...], structure_scopes)
    made.register_structure_hook(bool | None, _structure_optional_bool)
    return made
