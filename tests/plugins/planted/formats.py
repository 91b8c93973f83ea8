"""Formats with a fault each, for which a test of the kit is there; and one without.

Run by `tests/plugins/test_kits.py` in a folder of its own, as a test module.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import uuid

import pytest
import torch
from ckptstore_json import FILE, JsonFormat, JsonReader
from planted_plugin import registered

from ckptstore import CorruptionError, StorageError
from ckptstore.formats.base import Contents
from ckptstore.later import Later
from ckptstore.testing import FormatTests


class Honest(JsonFormat):
    """The format of the documentation."""


class Stepless(JsonFormat):
    """Has no room for the step, and says so."""

    def stored(self, contents):
        return dataclasses.replace(contents, step=None)

    def write(self, contents, files):
        super().write(self.stored(contents), files)


class Dropping(JsonFormat):
    """Has room for what inference needs, and says so."""

    def stored(self, contents):
        names = [name for name, tensor in contents.model.items() if tensor.dtype == torch.float32]
        return Contents(
            model={name: contents.model[name] for name in names},
            config=contents.config,
            tokenizer_state=contents.tokenizer_state,
        )

    def write(self, contents, files):
        super().write(self.stored(contents), files)


class Unsafe(JsonFormat):
    def read(self, files):
        with contextlib.suppress(Exception):
            torch.load(files.open(FILE), weights_only=False)
        return super().read(files)


class Restless(JsonFormat):
    def write(self, contents, files):
        super().write(contents, files)
        files.write_text("id.json", uuid.uuid4().hex)


class Greedy(JsonFormat):
    def matches(self, files):
        return True


class Claiming(JsonFormat):
    def matches(self, files):
        return any(name.endswith((".pt", ".json")) for name in files.names())


class Shy(JsonFormat):
    def matches(self, files):
        return False


class Peeks(JsonFormat):
    def matches(self, files):
        return FILE in files.names() and "model" in json.loads(files.text(FILE))


class Careless(JsonFormat):
    def read(self, files):
        json.loads(files.text(FILE))["model"]
        return super().read(files)


class Hungry(JsonFormat):
    def read(self, files):
        files.open(FILE).read()
        return super().read(files)


class Hides(JsonFormat):
    """Takes a network that fails for damage."""

    def read(self, files):
        try:
            return super().read(files)
        except StorageError as error:
            raise CorruptionError(f"it is damaged: {error}") from error


class Follows(JsonFormat):
    """Goes wherever its index says."""

    def write(self, contents, files):
        super().write(contents, files)
        files.write_text("index.json", '{"file": "weights.json"}')

    def read(self, files):
        files.text(json.loads(files.text("index.json"))["file"])
        reader = super().read(files)
        reader.files = lambda: (FILE, "index.json")
        return reader


class Lossy(JsonFormat):
    def write(self, contents, files):
        model = {name: value.float() for name, value in contents.model.items()}
        super().write(dataclasses.replace(contents, model=model), files)


class Quiet(JsonFormat):
    """Leaves out what it has no room for."""

    def write(self, contents, files):
        model = {n: v for n, v in contents.model.items() if v.dtype == torch.float32}
        super().write(Contents(model=model, config=contents.config), files)


class Needs(JsonFormat):
    def write(self, contents, files):
        super().write(dataclasses.replace(contents, step=contents.step + 0), files)


class Swallows(JsonFormat):
    def write(self, contents, files):
        with contextlib.suppress(OSError):
            super().write(contents, files)


class Remembers(JsonFormat):
    """Keeps the last step in the process, where every other checkpoint finds it."""

    def write(self, contents, files):
        super().write(contents, files)
        type(self).step = contents.step

    def read(self, files):
        reader = super().read(files)
        reader.step = self.step
        return reader


class Talkative(JsonFormat):
    one_file = FILE

    def write(self, contents, files):
        super().write(contents, files)
        files.write_text("about.json", "{}")


class Fixed(JsonFormat):
    one_file = FILE


class ReadOnly(JsonFormat):
    writable = False


class Unable(JsonFormat):
    """Promises to take what it knows nothing of."""

    takes_later = True


class _Reading(JsonFormat):
    """Reads with a reader of its own."""

    Reader: type[JsonReader]

    def read(self, files):
        return self.Reader(files)


class Untyped(_Reading):
    """Takes any step for a number, and any config for an object."""

    class Reader(JsonReader):
        def _field(self, name, kind):
            return self._saved.get(name)


class Mislists(_Reading):
    class Reader(JsonReader):
        def tensors(self):
            return {
                name: dataclasses.replace(info, dtype="float16")
                for name, info in super().tensors().items()
            }


class Wholesale(_Reading):
    class Reader(JsonReader):
        def load_model(self, names=None, map_location="cpu"):
            return super().load_model()


class Invents(_Reading):
    """Makes up a tensor for a name that it does not have."""

    class Reader(JsonReader):
        def _load(self, name):
            return super()._load(name) if name in self.tensors() else torch.zeros(1)

        def load_metrics_log(self):
            return ({"loss": 1.0},)

        def tokenizer_files(self):
            return {"tokenizer.words": b"a\nthe\n"}


class Belated(_Reading):
    """Gives other bytes to whoever reads later."""

    class Reader(JsonReader):
        def model_later(self):
            return {
                name: Later(info.dtype, info.shape, info.nbytes, lambda info=info: zeros(info))
                for name, info in self.tensors().items()
            }


def zeros(info):
    yield memoryview(bytes(info.nbytes))


class Boasts(_Reading):
    class Reader(JsonReader):
        has_optimizer = True


class Twice(_Reading):
    class Reader(JsonReader):
        def files(self):
            return (FILE, FILE)


class Elsewhere(_Reading):
    class Reader(JsonReader):
        def files(self):
            return (FILE, "more.json")

        def for_inference(self):
            return ("model.json",)


def kit(cls, *, found=True):
    class Kit(FormatTests):
        @pytest.fixture
        def format_class(self):
            with registered(formats=[cls] if found else []):
                yield cls

        @pytest.fixture
        def contents(self):
            model = {"w": torch.arange(6, dtype=torch.float32).reshape(2, 3), "n": torch.tensor(7)}
            state = {"token_kind": "char", "chars": ["a", "b"]}
            return Contents(model=model, config={"n": 1}, tokenizer_state=state, step=5)

        @pytest.fixture
        def large_contents(self, contents):
            large = {"large": torch.arange(2**12, dtype=torch.float32)}
            return dataclasses.replace(contents, model={**contents.model, **large})

    return type(f"Test{cls.__name__}", (Kit,), {})


for planted in (*JsonFormat.__subclasses__(), *_Reading.__subclasses__()):
    if planted is not _Reading:
        globals()[f"Test{planted.__name__}"] = kit(planted)
TestUnknown = kit(Honest, found=False)


class TestNothing(FormatTests):
    pass
