"""Pydantic bases for words from outside, and the one translation of their complaints.

Null means absent, as in Kubernetes. A Strict shape is a section of our own: an unknown key there is a typing error, and
is answered with the nearest name. Messages never quote a value, because it may be a secret.
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from replicator.errors import ConfigError

_PLAIN_WORDS = {
    "bool_parsing": "must be true or false",
    "dict_type": "must be a mapping",
    "float_parsing": "must be a number",
    "int_parsing": "must be an integer",
    "missing": "is missing",
    "model_type": "must be a mapping",
    "string_type": "must be a text, in quotes if it looks like a number",
    "tuple_type": "must be a list",
}
"""For what pydantic says in words of Python, by its own names of errors."""


class Shape(BaseModel):
    """A frozen mapping; keys that we do not know pass, because they belong to others."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, given: Any) -> Any:
        if isinstance(given, dict):
            return {key: value for key, value in given.items() if value is not None}
        return given

    @classmethod
    def of(cls, given: object, *, where: str, fix: str) -> Self:
        """The shape of `given`, or a ConfigError that names the first fault's field beneath `where`."""
        try:
            return cls.model_validate(given, context=where)
        except ValidationError as exc:
            field, problem = explain(exc)
            raise ConfigError(where=f"{where}: {field}" if field else where, problem=problem, fix=fix) from None


class Strict(Shape):
    """A frozen mapping that is ours: every key must be known."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, given: Any) -> Any:
        if isinstance(given, dict):
            known = [field.alias or name for name, field in cls.model_fields.items()]
            for key in given:
                if key not in known:
                    raise ValueError(f"unknown key {key!r}{did_you_mean(str(key), known)}")
        return given


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """', did you mean X?' with the nearest of the known words, or all of them when there are few; else ''."""
    known = list(known)
    nearest = difflib.get_close_matches(word, known, n=1)
    if nearest:
        return f" (did you mean {nearest[0]}?)"
    return f" (known: {', '.join(known)})" if len(known) <= 8 else ""


def explain(error: ValidationError) -> tuple[str, str]:
    """(path of the field, problem) of the first fault; the problem tells which other fields are wrong too."""
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    first, *others = faults
    said = first["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    problem = _PLAIN_WORDS.get(first["type"], said)
    problem = problem[:1].lower() + problem[1:]
    if others:
        problem += f" ({len(others)} more wrong: {', '.join(field_path(fault['loc']) for fault in others[:5])})"
    return field_path(first["loc"]), problem


def field_path(location: Sequence[int | str]) -> str:
    """A location in dotted form: spec.data.egress[0].source."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in location).removeprefix(".")
