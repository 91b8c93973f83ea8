"""Inputs to start from: one of everything that torch and ckptstore write, as small as it gets."""

from __future__ import annotations

import functools
import io
import json
import pickle
import warnings
from collections import Counter, OrderedDict
from typing import Any

from benchmarks.fuzz.folders import packed
from benchmarks.fuzz.zipped import Member, members_of, put_together

__all__ = ["folders", "manifests", "pickles", "pt_files"]


# What torch writes besides, and does not need.
_SPARED = (b".format_version", b".storage_alignment", b"serialization_id")


@functools.cache
def pt_files() -> list[bytes]:
    """Return a `.pt` of each sort of thing that may be in one."""
    import torch

    files = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for value in _values():
            buffer = io.BytesIO()
            torch.save(value, buffer)
            # Without torch's 64 bytes of padding and its extra records an input is much smaller.
            members = members_of(buffer.getvalue()) or []
            kept = [m for m in members if not m.name.endswith(_SPARED)]
            files.append(put_together([Member(m.name, m.data) for m in kept]))
        files.append(buffer.getvalue())
    return files


@functools.cache
def pickles() -> list[bytes]:
    """Return the pickles in `pt_files`, and some that stand alone."""
    found = []
    for data in pt_files():
        found += [m.data for m in members_of(data) or [] if m.name.endswith(b"data.pkl")]
    plain = {"itos": {0: "a", 1: "é"}, "more": [b"x", {1, 2}, frozenset("a"), 2**80, bytearray(3)]}
    return found + [pickle.dumps(plain, protocol) for protocol in (3, 4, 5)]


@functools.cache
def folders() -> list[bytes]:
    """Return whole folders: a checkpoint, a history, plain files, legacy files."""
    import torch

    weights = {"w": torch.arange(4.0), "module.b": torch.ones(2, dtype=torch.bfloat16)}
    chars = {"token_kind": "char", "chars": ["a", "b", "ä"]}
    moments = {"state": {0: {"step": torch.tensor(1.0), "m": torch.ones(2)}}, "param_groups": []}
    found = []
    single = _saved(
        model=weights,
        config={"n_layer": 1, "bias": False, "nested": {"a": [1, None, 0.5]}},
        tokenizer=chars,
        optimizer=moments,
        step=7,
        state={"rng": {"cpu": torch.zeros(3, dtype=torch.uint8)}},
        metrics={"loss": 0.5},
    )
    view = {name: data for name, data in single.items() if "/" not in name}
    found += [single, view, {n: d for n, d in view.items() if n != "manifest.json"}]
    found.append({name: view[name] for name in ("model.pt",)})
    found.append({f"step-00000007/{name}": data for name, data in view.items()})
    steps = _history(weights)
    found.append(steps)
    legacy = {
        "model_state_dict": {"w": torch.ones(2), "blocks.0.sa.heads.0.tril": torch.ones(2, 2)},
        "config": {"n_embd": 2, "device": "cuda", "betas": (0.9, 0.95)},
        "tokenizer": {"token_kind": "gpt2", "chars": None},
        "step": 3,
        "optimizer_state_dict": moments,
        "extra": {"a": torch.ones(1)},
        "note": "text",
    }
    buffer = io.BytesIO()
    torch.save(legacy, buffer)
    found.append({"latest.pt": buffer.getvalue()})
    found.append({"final.pt": buffer.getvalue(), "config.json": b"{}"})
    return [packed(files) for files in found]


@functools.cache
def manifests() -> list[bytes]:
    """Return manifests of a generation and of a step, and the smallest that there can be."""
    from benchmarks.fuzz.folders import unpacked

    found = [
        data
        for folder in folders()
        for name, data in unpacked(folder).items()
        if name.endswith("manifest.json")
    ]
    least = {
        **{"ckptstore": 1, "format": "bundle", "write_id": "a", "generation": 1, "step": None},
        **{"created": "2026-01-01T00:00:00+00:00", "writer": "w", "fingerprint": None},
        **{"texts": {}, "files": {}, "earlier": {"a": ["0"]}, "metrics": {"a": 1}},
        "shown": {"a": "b"},
    }
    return [*dict.fromkeys(found), json.dumps(least).encode()]


def _saved(**contents: Any) -> dict[str, bytes]:
    import ckptstore

    location = "memory://fuzz-seeds/single"
    ckptstore.save(location, **contents)
    return _taken("/fuzz-seeds/single/")


def _history(weights: dict[str, Any]) -> dict[str, bytes]:
    import ckptstore

    with ckptstore.Store("memory://fuzz-seeds/history", keep=ckptstore.Keep(last=2)) as store:
        for step in (1, 2):
            store.save(model=weights, config={"a": step}, step=step)
    return _taken("/fuzz-seeds/history/")


def _taken(folder: str) -> dict[str, bytes]:
    from fsspec.implementations.memory import MemoryFileSystem

    store = MemoryFileSystem.store
    names = [name for name in store if name.startswith(folder)]
    return {name[len(folder) :]: store.pop(name).getvalue() for name in names}


def _values() -> list[Any]:
    import torch

    base = torch.arange(6.0)
    tied = torch.ones(2)
    parameter = torch.nn.Parameter(torch.ones(2, 2))
    linear = torch.nn.Linear(2, 1)
    adam = torch.optim.AdamW(linear.parameters())
    linear(torch.ones(1, 2)).sum().backward()
    adam.step()
    tagged = torch.ones(2)
    tagged.note = "text"
    indices, offsets = torch.tensor([[0, 1], [1, 0]]), torch.tensor([0, 1, 2])
    quantized = torch.quantize_per_tensor(base, 0.1, 0, torch.quint8)
    channels = torch.quantize_per_channel(
        base.reshape(2, 3), torch.ones(2).double(), torch.zeros(2).long(), 0, torch.qint8
    )
    state = linear.state_dict()
    return [
        {},
        state,
        {"state_dict": state, "model_dtype": "float32"},
        OrderedDict({"_orig_mod.a": base, "module.b": base[1:5:2], "c": base.reshape(2, 3).t()}),
        {"tied": tied, "again": tied, "view": tied[:1]},
        {"p": parameter, "g": torch.ones(1, requires_grad=True), "tagged": tagged},
        adam.state_dict(),
        {name: torch.ones(2).to(getattr(torch, name)) for name in ("bfloat16", "float16", "int8")},
        {"f8": torch.ones(2).to(torch.float8_e4m3fn), "c": torch.ones(1, dtype=torch.complex64)},
        {"u": torch.ones(2, dtype=torch.uint16), "b": torch.ones(2, dtype=torch.bool)},
        {
            "n": [
                1,
                (2.5, None, True),
                {3},
                b"bytes",
                2**70,
                1j,
                bytearray(b"x"),
                "é",
                Counter("ab"),
            ]
        },
        {"t": [torch.Size([2]), torch.float32, torch.device("cuda:0"), torch.strided]},
        {"s": torch.sparse_coo_tensor(indices, torch.ones(2), (2, 2))},
        {"s": torch.sparse_csr_tensor(offsets, torch.tensor([0, 1]), torch.ones(2), (2, 2))},
        {"q": quantized, "c": channels},
        {
            "m": torch.empty(2, 2, device="meta"),
            "e": torch.ones(1).expand(3),
            "z": torch.ones(0, 3),
        },
        {"j": torch.nested.nested_tensor([torch.ones(1), torch.ones(2)])},
        {"zero": torch.tensor(1.0), "conj": torch.ones(1, dtype=torch.complex64).conj()},
        base,
        [1, "a", base],
        {"a": {"b": {"c": [base, {"d": (tied, 0)}]}}, 1: {2: tied}},
    ]
