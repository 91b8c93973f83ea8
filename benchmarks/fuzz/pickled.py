"""Changes pickles opcode by opcode, so that what comes out is still a program."""

from __future__ import annotations

import contextlib
import pickletools
import random
import struct
from collections.abc import Callable, Sequence

__all__ = ["mutated_pickle", "opcodes"]

Bytes = Callable[[bytes], bytes]

_GLOBALS = (
    "torch._utils _rebuild_tensor",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_tensor_v3",
    "torch._utils _rebuild_parameter",
    "torch._utils _rebuild_parameter_with_state",
    "torch._utils _rebuild_qtensor",
    "torch._utils _rebuild_sparse_tensor",
    "torch._utils _rebuild_nested_tensor",
    "torch._utils _rebuild_meta_tensor_no_storage",
    "torch._utils _rebuild_device_tensor_from_cpu_tensor",
    "torch._utils _rebuild_wrapper_subclass",
    "torch._tensor _rebuild_from_type_v2",
    "torch.serialization _get_layout",
    "torch.nn.parameter Parameter",
    "torch.storage UntypedStorage",
    "torch Tensor",
    "torch Size",
    "torch device",
    "torch float32",
    "torch bfloat16",
    "torch float8_e4m3fn",
    "torch float4_e2m1fn_x2",
    "torch uint3",
    "torch bits2x4",
    "torch complex32",
    "torch quint4x2",
    "torch quint2x4",
    "torch qint32",
    "torch per_tensor_affine",
    "torch per_channel_affine",
    "torch per_channel_affine_float_qparams",
    "torch FloatStorage",
    "torch LongStorage",
    "torch ByteStorage",
    "torch BoolStorage",
    "torch QUInt4x2Storage",
    "torch QInt8Storage",
    "torch ComplexDoubleStorage",
    "torch.cuda HalfStorage",
    "torch FloatTensor",
    "torch.sparse FloatTensor",
    "collections OrderedDict",
    "collections Counter",
    "collections defaultdict",
    "_codecs encode",
    "builtins bytearray",
    "__builtin__ bytearray",
    "builtins complex",
    "builtins set",
    "builtins eval",
    "builtins getattr",
    "os system",
    "torch load",
    "torch.storage _load_from_bytes",
    "numpy._core.multiarray scalar",
)
_NUMBERS = (0, 1, 2, 3, 4, 7, 8, 16, 63, 64, 65, 255, 256, 2**15, 2**31 - 1, -1, -2, -(2**31))
_LONGS = (2**31, 2**32, 2**40, 2**61, 2**62, 2**63 - 1, 2**63, 2**64, 2**70, -(2**63), 2**200)
_TEXTS = (
    *("storage", "0", "1", "2", "../0", "cpu", "cuda", "cuda:0", "meta", "xla", "privateuse1", ""),
    *("torch.sparse_coo", "torch.sparse_csr", "torch.strided", "torch._mkldnn", "latin1", "utf-8"),
    *("state_dict", "_metadata", "module.weight", "_orig_mod.a", "step", "a.b", "\x1b[2J", "é"),
    *("__class__", "__setitem__", "__dict__", "items", "_backward_hooks", "\ud800"),
)
_PLAIN = (
    *(b"N", b"\x88", b"\x89", b")", b"]", b"}", b"(", b"t", b"\x85", b"\x86", b"\x87", b"a", b"e"),
    *(b"s", b"u", b"R", b"b", b"Q", b"\x8f", b"0", b"1", b"2", b"l", b"d", b"\x90", b"\x91", b"."),
    *(
        b"\x81",
        b"\x92",
        b"\x94",
        b"o",
        b"\x82\x01",
        b"\x95\x00\x00\x00\x00\x00\x00\x00\x00",
        b"P0\n",
    ),
)
# Whole values and calls, which single opcodes would seldom come to.
_PHRASES = (
    b"ccollections\nOrderedDict\n)R",
    b"ccollections\nOrderedDict\n]\x85R",
    b"ccollections\nCounter\n}\x85R",
    b"c__builtin__\nset\n]\x85R",
    b"c_codecs\nencode\nX\x01\x00\x00\x00aX\x06\x00\x00\x00latin1\x86R",
    b"c__builtin__\ncomplex\nG\x7f\xf0\x00\x00\x00\x00\x00\x00K\x01\x86R",
    b"ctorch\nSize\n(K\x02K\x03t\x85R",
    b"ctorch\ndevice\nX\x03\x00\x00\x00cpu\x85R",
    b"ctorch\ndevice\nX\x04\x00\x00\x00cudaK\x00\x86R",
    b"ctorch.serialization\n_get_layout\nX\x10\x00\x00\x00torch.sparse_coo\x85R",
    b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQ",
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x04tQK\x00K\x04\x85K\x01\x85\x89"
    b"ccollections\nOrderedDict\n)RtR",
    b"ctorch._utils\n_rebuild_wrapper_subclass\n(ctorch\nTensor\nctorch\nfloat32\nK\x02\x85K\x01\x85"
    b"K\x00ctorch.serialization\n_get_layout\nX\x0d\x00\x00\x00torch.strided\x85R"
    b"ctorch\ndevice\nX\x03\x00\x00\x00cpu\x85R\x89tR",
    b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n(ctorch\nfloat32\nK\x02\x85K\x01\x85\x89tR",
    b"}X\x09\x00\x00\x00_metadata}X\x00\x00\x00\x00}X\x07\x00\x00\x00versionK\x01ssssb",
)
_MOST = 4000


def opcodes(data: bytes) -> list[bytes]:
    """Return a pickle as its opcodes with their arguments; what is no opcode is the last part."""
    starts: list[int] = []
    with contextlib.suppress(ValueError, struct.error, EOFError, IndexError, OverflowError):
        for _, _, at in pickletools.genops(data):
            starts.append(at or 0)
            if len(starts) > _MOST:
                break
    if not starts:
        return [data]
    limits = [*starts[1:], len(data)]
    return [data[start:limit] for start, limit in zip(starts, limits, strict=True)]


def mutated_pickle(
    data: bytes, rng: random.Random, plain: Bytes, donors: Sequence[bytes] = ()
) -> bytes:
    """Return a pickle with one to a few opcodes changed, added, taken out or moved.

    Args:
        data: a pickle.
        rng: what decides.
        plain: changes bytes as such.
        donors: other pickles, parts of which may be put in.
    """
    parts = opcodes(data)
    if not parts or rng.random() < 0.03:
        return plain(data)
    if rng.random() < 0.5:
        return b"".join(_gently(parts, rng))
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        at = rng.randrange(len(parts) + 1)
        choice = rng.random()
        if choice < 0.35:
            at = rng.randrange(len(parts))
            parts[at] = _changed(parts[at], rng, plain)
        elif choice < 0.5:
            parts.insert(at, _new(rng))
        elif choice < 0.62:
            del parts[at : at + rng.choice((1, 1, 2, 5))]
        elif choice < 0.72:
            parts[at:at] = parts[max(0, at - rng.choice((1, 2, 4, 9, 20))) : at]
        elif choice < 0.82:
            parts.insert(at, rng.choice(_PHRASES))
        elif choice < 0.9 and len(parts) > 1:
            other = rng.randrange(len(parts))
            at = min(at, len(parts) - 1)
            parts[at], parts[other] = parts[other], parts[at]
        elif donors:
            donor = opcodes(rng.choice(donors))
            start = rng.randrange(len(donor))
            parts[at:at] = donor[start : start + rng.choice((1, 3, 8, 20, 60))]
        if not parts:
            return data
    if parts[-1] != b"." and rng.random() < 0.9:
        parts.append(b".")
    if parts[0][:1] != b"\x80" and rng.random() < 0.9:
        parts.insert(0, b"\x80\x02")
    return b"".join(parts)


def _gently(parts: list[bytes], rng: random.Random) -> list[bytes]:
    """Put values in the place of others of their kind, so that the program still ends well."""
    places = [at for at, part in enumerate(parts) if part[:1] in b"cXKMJ\x8aN\x88\x89"]
    texts = [part for part in parts if part[:1] == b"X"]
    for _ in range(rng.choice((1, 1, 2, 3, 5)) if places else 0):
        at = rng.choice(places)
        code = parts[at][:1]
        if code == b"c":
            parts[at] = _kindred(parts[at], rng)
        elif code == b"X":
            parts[at] = rng.choice(texts) if rng.random() < 0.5 else _text(rng.choice(_TEXTS))
        elif code in b"N\x88\x89":
            parts[at] = rng.choice((b"N", b"\x88", b"\x89", b"}", b")", b"K\x01"))
        elif rng.random() < 0.7:
            parts[at] = b"K" + bytes([rng.choice((0, 1, 2, 3, 4, 6, 8, 24))])
        else:
            parts[at] = _number(rng)
    return parts


def _kindred(part: bytes, rng: random.Random) -> bytes:
    """Return another global of the same sort: a storage for a storage, a dtype for a dtype."""
    name = part[1:].replace(b"\n", b" ").strip().decode("utf-8", "replace")
    for sort in (" _rebuild", "Storage", "Tensor", " per_", "collections ", " "):
        if sort in name:
            return _as_global(rng.choice([other for other in _GLOBALS if sort in other]))
    return _global(rng)


def _new(rng: random.Random) -> bytes:
    kind = rng.randrange(6)
    if kind == 0:
        return _global(rng)
    if kind == 1:
        return _number(rng)
    if kind == 2:
        return _text(rng.choice(_TEXTS))
    if kind == 3:
        return rng.choice((b"h", b"q")) + bytes([rng.randrange(40)])
    return rng.choice(_PLAIN)


def _changed(part: bytes, rng: random.Random, plain: Bytes) -> bytes:
    code = part[:1]
    if code == b"c":
        return _global(rng)
    if code in b"KMJ\x8a":
        return _number(rng)
    if code == b"X":
        return _text(rng.choice(_TEXTS)) if rng.random() < 0.6 else _raw_text(plain(part[5:]))
    if code == b"G":
        return b"G" + rng.choice((b"\x7f\xf0" + bytes(6), b"\x7f\xf8" + bytes(6), plain(part[1:])))[
            :8
        ].ljust(8, b"\0")
    if code in b"hqjr":
        return code + plain(part[1:])[: len(part) - 1].ljust(len(part) - 1, b"\0")
    return _new(rng) if rng.random() < 0.7 else rng.choice(_PLAIN)


def _global(rng: random.Random) -> bytes:
    return _as_global(rng.choice(_GLOBALS))


def _as_global(name: str) -> bytes:
    return b"c" + name.replace(" ", "\n").encode() + b"\n"


def _number(rng: random.Random) -> bytes:
    if rng.random() < 0.25:
        value = rng.choice(_LONGS)
        raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8a" + bytes([len(raw)]) + raw
    value = rng.choice(_NUMBERS) if rng.random() < 0.7 else rng.randrange(70)
    return b"K" + bytes([value]) if 0 <= value < 256 else b"J" + struct.pack("<i", value)


def _text(text: str) -> bytes:
    return _raw_text(text.encode("utf-8", "surrogatepass"))


def _raw_text(raw: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(raw)) + raw
