"""The training options of a tokenizer kind: what its `from_text` takes beside the text.

Rules of this file:

1. An option is a keyword-only parameter of `from_text` that is annotated with `int`, `float`,
   `str` or `bool`, or not at all, and has a default of that type. Any other parameter is for
   callers in Python, and no option.
2. Annotations are compared and never evaluated, so that a plugin may import for its type checker
   alone what it annotates with.
"""

from __future__ import annotations

import difflib
import inspect
import math
import reprlib
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ckptstore.tokenizers.base import Tokenizer

__all__ = ["TokenizerOption", "options_of", "parsed"]

_TYPES: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool}
_EXPECTED = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    bool: "true or false",
}
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True)
class TokenizerOption:
    """Something that a tokenizer kind can be told when it is trained.

    Attributes:
        name: of the keyword-only parameter of `from_text`.
        type: `int`, `float`, `str` or `bool`.
        default: what holds where it is not given; a value of that type.
    """

    name: str
    type: type
    default: Any

    def value(self, given: object) -> Any:
        """Return what was given as a value of the option's type.

        Args:
            given: a value, or its text, such as ``8192``, ``0.5`` or ``true``.

        Raises:
            ValueError: it is none; the message says what is expected.
        """
        try:
            found = _PARSERS[self.type](given)
        except (KeyError, TypeError, ValueError, OverflowError):
            raise ValueError(
                f"the tokenizer option {self.name!r} is {reprlib.repr(given)}, "
                f"not {_EXPECTED[self.type]}"
            ) from None
        return found


def options_of(cls: type[Tokenizer]) -> dict[str, TokenizerOption]:
    """Return the training options of a class by name, in the order of its parameters."""
    options = {}
    for name, parameter in _parameters(cls.from_text).items():
        if parameter.kind is not parameter.KEYWORD_ONLY or parameter.default is parameter.empty:
            continue
        default = parameter.default
        kind = _type_of(parameter)
        if kind is float and type(default) is int:
            default = float(default)
        if kind is None or type(default) is not kind:
            continue
        if not isinstance(default, float) or math.isfinite(default):
            options[name] = TokenizerOption(name, kind, default)
    return options


def parsed(cls: type[Tokenizer], given: Mapping[str, object]) -> dict[str, Any]:
    """Return options as values of their types.

    Raises:
        ValueError: the kind has no such option, or a value is not of its type.
    """
    options = options_of(cls)
    for name in given:
        if name not in options:
            raise ValueError(_unknown(cls.kind, name, options))
    return {name: options[name].value(value) for name, value in given.items()}


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    more: dict[str, Any] = {}
    if sys.version_info >= (3, 14):
        import annotationlib

        # There annotations are code that runs when they are asked for; as text they do not.
        more["annotation_format"] = annotationlib.Format.STRING
    try:
        return inspect.signature(function, **more).parameters
    except (TypeError, ValueError):  # written in another language
        return {}


def _type_of(parameter: inspect.Parameter) -> type | None:
    annotation = parameter.annotation
    if annotation is parameter.empty:
        annotation = type(parameter.default)
    name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    kind = _TYPES.get(name)
    return kind if kind is annotation or isinstance(annotation, str) else None


def _unknown(kind: str, name: str, options: Mapping[str, TokenizerOption]) -> str:
    if not options:
        return f"the tokenizer kind {kind!r} has no training options; leave out {name!r}"
    listed = ", ".join(
        f"{option.name!r} ({option.type.__name__}, default {option.default!r})"
        for option in options.values()
    )
    near = difflib.get_close_matches(name, options, n=1)
    return f"the tokenizer kind {kind!r} has no training option {name!r}; it has {listed}" + (
        f"; did you mean {near[0]!r}?" if near else ""
    )


def _int(given: object) -> int:
    if isinstance(given, str) or type(given) is int:
        return int(given)
    raise TypeError


def _float(given: object) -> float:
    if not isinstance(given, str) and type(given) not in (int, float):
        raise TypeError
    number = float(given)  # type: ignore[arg-type]
    if not math.isfinite(number):
        raise ValueError
    return number


def _str(given: object) -> str:
    if isinstance(given, str):
        return given
    raise TypeError


def _bool(given: object) -> bool:
    if isinstance(given, str):
        return _BOOLEANS[given.strip().lower()]
    if isinstance(given, bool):
        return given
    raise TypeError


_PARSERS: dict[type, Callable[[object], Any]] = {int: _int, float: _float, str: _str, bool: _bool}
