"""Small files that ask for much: memory, time, or a message without an end."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from building import NO_BUNDLE, Gadgets, Item, glob, number, plain, text, zipped
from corpus_tensors import tensor_of

__all__ = ["bombs"]

_READ = frozenset({"index", "model"})


def _put(index: int) -> bytes:
    return b"r" + struct.pack("<I", index)


def _get(index: int) -> bytes:
    return b"j" + struct.pack("<I", index)


def _pickles() -> Mapping[str, bytes]:
    """Return pickles of at most a few megabytes that would become gigabytes."""
    many = 300_000
    long_text = text("a" * 2_000_000) + _put(1)
    long_list = b"]" + _put(1) + b"(" + b"K\x01" * 200_000 + b"e"
    pairs = b"]" + _put(1) + b"(" + (b"K\x01K\x02\x86" * 50_000) + b"e"
    in_list = b"]" + _put(9)
    encode = glob("_codecs:encode") + _put(2) + text("latin1") + _put(3)
    tensor = tensor_of()
    return {
        "sets": in_list + b"(" + b"\x8f" * 3_000_000 + b"e",
        "dicts": in_list + b"(" + b"}" * 3_000_000 + b"e",
        "lists": in_list + b"(" + b"]" * 3_000_000 + b"e",
        "marks": b"(" * 3_000_000,
        "memos": b"N" + b"".join(_put(i) for i in range(800_000)),
        "copies of a set": long_list
        + glob("builtins:set")
        + _put(2)
        + b"("
        + (_get(2) + _get(1) + b"\x85R") * 2_000
        + b"t",
        "copies of a dict": pairs
        + glob("collections:OrderedDict")
        + _put(2)
        + b"("
        + (_get(2) + _get(1) + b"\x85R") * 2_000
        + b"t",
        "copies of a text": long_text
        + encode
        + b"("
        + (_get(2) + _get(1) + _get(3) + b"\x86R") * 3_000
        + b"t",
        "metadata again and again": glob("collections:OrderedDict")
        + b")R"
        + b"}"
        + text("_metadata")
        + b"}"
        + b"("
        + b"".join(text(str(i)) + b"}" for i in range(30_000))
        + b"us"
        + _put(1)
        + b"b"
        + (_get(1) + b"b") * 5_000,
        "wide and deep": b"]" * 98 + b"]" + b"(" + b"]" * 500_000 + b"e" + b"a" * 98,
        "long keys of many tensors": b"}"
        + text("k" * 1_000_000)
        + b"]("
        + tensor
        + _put(7)
        + _get(7) * 5_000
        + b"es",
        "one tensor many times": b"](" + tensor + _put(7) + _get(7) * 1_000_000 + b"e",
        "tensors of few bytes": b"]("
        + glob("torch._utils:_rebuild_tensor_v2")
        + _put(1)
        + _arguments()
        + _put(2)
        + b"R"
        + (_get(1) + _get(2) + b"R") * many
        + b"e",
        "numbers of 255 bytes": b"](" + number(2**2030) * 10_000 + b"e",
        "a deep path to what is refused": text("k" * 1_000_000)
        + _put(1)
        + b"}"
        + (_get(1) + b"}") * 3_000
        + _get(1)
        + glob("os:system"),
        "a name without an end": b"c" + b"m" * 2_000_000 + b"\n" + b"n" * 2_000_000 + b"\n",
        "an attribute without an end": glob("collections:OrderedDict")
        + b")R}"
        + text("itéms" * 400_000)
        + b"K\x01s"
        + text("items")
        + b"K\x01sb",
    }


def _arguments() -> bytes:
    """Return the arguments of a rebuilt tensor, as one tuple."""
    return tensor_of().removeprefix(glob("torch._utils:_rebuild_tensor_v2"))[:-1]


def bombs(gadgets: Gadgets) -> Iterator[Item]:
    """Yield a model.pt and an old file of each."""
    for title, stream in _pickles().items():
        data = zipped(b"}" + text("w") + stream + b"s", {"data/0": bytes(16)})
        yield Item(title, plain({"model.pt": data}), frozenset(), large=True)
        body = b"}" + text("model_state_dict") + b"}" + text("w") + tensor_of() + b"ss"
        body += text("config") + b"}" + text("x") + stream + b"ss"
        data = zipped(body, {"data/0": bytes(16)})
        yield Item(
            f"{title}, in an old config",
            plain({**NO_BUNDLE, "latest.pt": data}),
            frozenset(),
            large=True,
        )
    yield from _laughs()


def _laughs() -> Iterator[Item]:
    """Yield old files whose fields are short, and endless when they are written out."""
    weights = text("model_state_dict") + b"}" + text("w") + tensor_of() + b"ss"
    long_text = text("a" * 1_000_000) + _put(1)
    for field in ("config", "tokenizer", "notes"):
        listed = b"}" + text("x") + b"](" + long_text + _get(1) * 100_000 + b"es"
        data = zipped(b"}" + weights + text(field) + listed + b"s", {"data/0": bytes(16)})
        yield Item(
            f"a long text many times in {field}",
            plain({**NO_BUNDLE, "latest.pt": data}),
            frozenset(),
            large=True,
        )
    doubled = b"]q\x00" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(90))
    data = zipped(b"}" + weights + text("config") + b"}" + text("x") + doubled + b"ss")
    yield Item("laughs", plain({**NO_BUNDLE, "latest.pt": data}), frozenset({"open"}))
    endless = b"}q\x00" + text("a") + b"h\x00s"
    data = zipped(b"}" + weights + text("config") + endless + b"s")
    yield Item("a dict in itself", plain({**NO_BUNDLE, "latest.pt": data}), frozenset({"open"}))
