"""Tokenizer kinds with a fault each, for which a test of the kit is there; and one without.

Run by `tests/plugins/test_kits.py` in a folder of its own, as a test module.
"""

from __future__ import annotations

import json
import random
import threading
import time
import unicodedata

import pytest
from planted_plugin import registered

from ckptstore import CorruptionError
from ckptstore.testing import TokenizerTests
from ckptstore.tokenizers.base import Tokenizer


class Honest(Tokenizer):
    """A vocabulary of characters."""

    kind = "planted"

    def __init__(self, chars):
        self.chars = list(chars)
        self.ids = {char: number for number, char in enumerate(self.chars)}

    @classmethod
    def from_state(cls, state):
        chars = state.get("chars")
        if (
            state.get("token_kind") != "planted"
            or not isinstance(chars, list)
            or not all(isinstance(char, str) and len(char) == 1 for char in chars)
            or len(set(chars)) != len(chars)
        ):
            raise CorruptionError("this is no state of the kind 'planted'")
        return cls(chars)

    @classmethod
    def from_text(cls, text):
        return cls(sorted(set(text)))

    n_vocab = property(lambda self: len(self.chars))

    def encode(self, text):
        for char in text:
            if char not in self.ids:
                raise ValueError(f"the text holds {char!r} (U+{ord(char):04X})")
        return [self.ids[char] for char in text]

    def decode(self, ids):
        for number in ids:
            if not 0 <= number < self.n_vocab:
                raise ValueError(f"id {number} is not in this vocabulary")
        return "".join(self.chars[number] for number in ids)

    def state(self):
        return {"token_kind": "planted", "chars": list(self.chars)}


class Ascii(Honest):
    def encode(self, text):
        return super().encode(text.encode("ascii", "ignore").decode())


class Normal(Honest):
    def decode(self, ids):
        return unicodedata.normalize("NFKC", super().decode(ids))


class Starts(Honest):
    """Begins each text with id 0."""

    def encode(self, text):
        return [0, *super().encode(text)]

    def decode(self, ids):
        return super().decode(ids)[1:]


class Gaps(Honest):
    n_vocab = property(lambda self: 2 * len(self.chars))

    def encode(self, text):
        return [2 * number for number in super().encode(text)]

    def decode(self, ids):
        if any(number % 2 for number in ids):
            raise ValueError("an odd id")
        return super().decode([number // 2 for number in ids])


class Floats(Honest):
    def encode(self, text):
        return [float(number) for number in super().encode(text)]


class Wraps(Honest):
    def decode(self, ids):
        return super().decode([number % self.n_vocab for number in ids])


class Halves(Honest):
    """Has an id for a byte that is no character."""

    n_vocab = property(lambda self: len(self.chars) + 1)

    def decode(self, ids):
        last = len(self.chars)
        return "".join("\udc80" if n == last else super(Halves, self).decode([n]) for n in ids)


class Drops(Honest):
    def encode(self, text):
        return super().encode("".join(char for char in text if char in self.ids))


class Utf8(Honest):
    def encode(self, text):
        return super().encode(text.encode().decode())


class NoJson(Honest):
    def state(self):
        return {"token_kind": "planted", "chars": tuple(self.chars)}


class Shares(Honest):
    def __init__(self, chars):
        super().__init__(chars)
        self._state = super().state()

    def state(self):
        return self._state


class Trusting(Honest):
    @classmethod
    def from_state(cls, state):
        return cls(state["chars"])


class Forgets(Honest):
    @classmethod
    def from_state(cls, state):
        return cls(sorted(super().from_state(state).chars, reverse=True))


class Shuffles(Honest):
    @classmethod
    def from_text(cls, text):
        return cls(random.sample(sorted(set(text)), len(set(text))))


class Unordered(Honest):
    """Takes the order of a set, which each process has its own of."""

    @classmethod
    def from_text(cls, text):
        return cls(set(text))


class Unsaid(Honest):
    """Has a default that is not what it is when it is spelt out."""

    @classmethod
    def from_text(cls, text, *, least: float = 1):
        return super().from_text(text + ("" if isinstance(least, int) else "\u2603"))


class Alike(Honest):
    fingerprint_of = classmethod(lambda cls, state: "sha256:1")


class Other(Honest):
    def fingerprint(self):
        return "sha256:2"


class Chatty(Honest):
    describe = classmethod(lambda cls, state: "characters\nand more of them")


class Unkept(Honest):
    """Names a file that it does not have."""

    file_names_of = classmethod(lambda cls, state: ("tokenizer.chars",))


class Beside(Honest):
    """Has its characters in a file, too, and takes any that it is given."""

    @classmethod
    def file_names_of(cls, state):
        return ("tokenizer.chars",)

    @classmethod
    def files_of(cls, state):
        return {"tokenizer.chars": json.dumps(state["chars"]).encode()}

    @classmethod
    def from_files(cls, state, files):
        chars = files.get("tokenizer.chars")
        return cls.from_state(state) if chars is None else cls(json.loads(chars))


class Hollow(Beside):
    """Is nothing without its file."""

    @classmethod
    def from_files(cls, state, files):
        return cls(json.loads(files["tokenizer.chars"]))


class Grows(Honest):
    def encode(self, text):
        for char in text:
            if char not in self.ids:
                self.ids[char] = len(self.chars)
                self.chars.append(char)
        return super().encode(text)


class Locked(Honest):
    """Cannot be pickled, which nobody needs."""

    def __init__(self, chars):
        super().__init__(chars)
        self._lock = threading.Lock()

    def encode(self, text):
        with self._lock:
            return super().encode(text)


class Busy(Honest):
    """Keeps what it is about in itself, where another thread finds it."""

    def encode(self, text):
        self._text = text
        time.sleep(0.0001)
        return super().encode(self._text)


def kit(cls, *, found=True):
    @pytest.fixture
    def tokenizer_class(self):
        with registered(tokenizers=[cls] if found else []):
            yield cls

    return type(f"Test{cls.__name__}", (TokenizerTests,), {"tokenizer_class": tokenizer_class})


for planted in (Honest, *Honest.__subclasses__(), *Beside.__subclasses__()):
    globals()[f"Test{planted.__name__}"] = kit(planted)
TestUnknown = kit(Honest, found=False)


class TestNothing(TokenizerTests):
    pass
