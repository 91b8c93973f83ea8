"""nanoGPT's one file, ``ckpt.pt``.

It holds ``{"model", "optimizer", "model_args", "iter_num", "best_val_loss", "config"}``. What
nanoGPT's ``train.py`` puts there (commit 3adf61e) and what real files add:

1. The names of a compiled model begin with ``_orig_mod.``: that comes off.
2. ``best_val_loss`` is a tensor without dimensions, or the float 1e9 before the first evaluation.
3. Files of models that ran without torch's own attention hold a mask in each block,
   ``transformer.h.N.attn.bias`` of shape ``(1, 1, block, block)``: no parameter, left out.
4. ``lm_head.weight`` and ``transformer.wte.weight`` are one tensor, and stay so.
5. ``model_args`` is the architecture, and ``config`` all the settings of the training: here they
   are `Reader.config`, and ``training_config``, a field of the training state or a state.
6. What a fork adds under a key of its own is kept, as such a field or state.

Everything but the weights comes out of the pickle without torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO, ClassVar
from weakref import WeakKeyDictionary

from ckptstore import (
    CkptstoreError,
    CorruptionError,
    NotFoundError,
    StorageError,
    ptfile,
)
from ckptstore.formats.base import Contents, Files, Format, NewFiles, Reader
from ckptstore.manifest import TensorInfo
from ckptstore.structure import Structure
from ckptstore_nanogpt.meta import GPT2_SIZES, META, read_meta, tokenizer_of
from ckptstore_nanogpt.writing import (
    ARGS,
    BEST,
    CONFIG,
    FILE,
    MODEL,
    OPTIMIZER,
    OWN,
    SETTINGS,
    STEP,
    TOKENIZER,
    is_tokenizer,
    root_of,
)

__all__ = ["NanogptFormat"]

_MASK = re.compile(r"(?:.*\.)?attn\.(?:masked_)?bias")


class NanogptFormat(Format):
    """Reads and writes the single file of karpathy/nanoGPT, for resuming and for sampling."""

    name: ClassVar[str] = "nanogpt"
    writable: ClassVar[bool] = True
    one_file: ClassVar[str | None] = FILE
    yields_to: ClassVar[tuple[str, ...]] = ("bundle",)

    def matches(self, files: Files) -> bool:
        """Whether ckpt.pt, or the file that the location names, holds nanoGPT's keys."""
        name = files.named or FILE
        if name not in files.names():
            return False
        try:
            return _is_nanogpt(_read(files, name).root)
        except CkptstoreError:
            # Whoever opens the folder is told what is wrong; of a named file, by ``legacy``.
            return files.named is None

    def read(self, files: Files) -> Reader:
        """Return the checkpoint in a file, and the vocabulary in the meta.pkl beside it.

        Raises:
            NotFoundError: there is no ckpt.pt.
            CorruptionError: the file is damaged, or is none of nanoGPT's; or the vocabulary beside
                it is another model's.
            UnsafeError: it holds more than tensors, numbers, text and containers of these.
        """
        name = files.named or FILE
        if name not in files.names():
            raise NotFoundError(f"{files.location} has no {FILE}")
        return _NanogptReader(files, name)

    def write(self, contents: Contents, files: NewFiles) -> None:
        """Write the file that ``init_from='resume'`` and ``sample.py`` read.

        Raises:
            UnsupportedError: a field or a state has the name of a key of nanoGPT's own, or the
                config is more than JSON.
            UnsafeError: a value could only be read back by running code.
        """
        root = root_of(contents)
        from ckptstore import tensors

        part = tensors.checked(root, "the checkpoint")
        with files.create(FILE, expected_size=part.size) as sink:
            part.save(sink)


class _NanogptReader(Reader):
    def __init__(self, files: Files, name: str) -> None:
        self._files = files
        self._name = name
        self._where = f"{name} in {files.location}"
        self._pt = _read(files, name)
        root = self._pt.root
        if not _is_nanogpt(root):
            held = ", ".join(map(repr, list(root)[:8])) if isinstance(root, Mapping) else "no dict"
            raise CorruptionError(
                f"{self._where} is no checkpoint of nanoGPT, which has at least {MODEL!r} and "
                f"{ARGS!r}; it holds {held or 'nothing'}"
            )
        self.config = self._object(ARGS)
        self.step = self._whole(STEP)
        self.has_optimizer = root.get(OPTIMIZER) is not None
        self.tokenizer_state = self._tokenizer()
        self.training_state, self._states = self._parted()

    def tensors(self) -> dict[str, TensorInfo]:
        """Return the model's tensors, from the file's directory and pickle."""
        return ptfile.infos(self._stubs(), self._pt.records)

    def tensors_in(self, part: str) -> dict[str, TensorInfo]:
        """Return the tensors of the optimizer or of a further key."""
        key = OPTIMIZER if part == "optimizer" else self._states.get(part)
        inner = self._pt.root.get(key) if key is not None else None
        if inner is None:
            return {}
        return ptfile.infos(ptfile.flattened(inner, self._where), self._pt.records)

    def structure(self) -> dict[str, Structure]:
        """Return what the pickle says of the model and of the optimizer."""
        named = self._pt.named
        found = {"model": ptfile.structure(self._stubs(), named, None)}
        if self.has_optimizer:
            found["optimizer"] = ptfile.structure({}, named, self._pt.root[OPTIMIZER])
        return found

    def load_model(
        self, names: Sequence[str] | None = None, map_location: Any = "cpu"
    ) -> dict[str, Any]:
        """Return the state dict, or the named tensors of it, without masks and prefixes."""
        state: dict[str, Any] = self._load(_weights_in, names=names, map_location=map_location)
        return state

    def map_model(
        self, names: Sequence[str] | None = None, *, prove: bool = True
    ) -> dict[str, Any]:
        """Return the state dict, or a part of it, as memory that looks into the file."""
        state: dict[str, Any] = self._load(_weights_in, names=names, mmap=True, prove=prove)
        return state

    def fill_model(self, into: Mapping[str, Any], *, atomic: bool = False) -> bool:
        """Overwrite the tensors of a model with those of the file."""
        from ckptstore import tensors

        with self._files.open(self._name) as file:
            return tensors.fill(
                file,
                into,
                part=_weights_in,
                proved=self._files.manifest is not None,
                atomic=atomic,
                where=self._where,
            )

    def load_optimizer(self, map_location: Any = "cpu") -> dict[str, Any] | None:
        """Return the optimizer's state dict with its groups, or None where there is none."""
        if not self.has_optimizer:
            return None
        state: dict[str, Any] = self._load(lambda root: root[OPTIMIZER], map_location=map_location)
        return state

    def states(self) -> tuple[str, ...]:
        """Return the names of further keys that are too large for JSON, or hold tensors."""
        return tuple(self._states)

    def load_state(self, name: str, map_location: Any = "cpu") -> Any:
        """Return what stands under a further key."""
        if name not in self._states:
            there = ", ".join(map(repr, self._states)) or "none"
            raise NotFoundError(f"no state {name!r} in {self._where}; it has {there}")
        return self._load(lambda root: root[self._states[name]], map_location=map_location)

    def files(self) -> tuple[str, ...]:
        """Return the one file, and in a folder the vocabulary beside it."""
        beside = META in self._files.names() and self._files.named is None
        return (self._name, META) if beside else (self._name,)

    def _stubs(self) -> dict[str, ptfile.TensorStub]:
        model = _weights_in(self._pt.root)
        return {n: stub for n, stub in model.items() if isinstance(stub, ptfile.TensorStub)}

    def _object(self, key: str) -> dict[str, Any] | None:
        value = self._pt.root.get(key)
        plain = ptfile.as_json(value)
        if value is not None and not isinstance(plain, dict):
            raise CorruptionError(
                f"{self._where} has a {key!r} that is no JSON object but a {type(value).__name__}"
            )
        return plain  # type: ignore[no-any-return]

    def _whole(self, key: str) -> int | None:
        value = self._number(key)
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        raise CorruptionError(f"{self._where} has the {key} {value!r}, not a whole number")

    def _number(self, key: str) -> Any:
        """Return a value, and the number in it where it is a tensor of one element."""
        value = self._pt.root.get(key)
        if not isinstance(value, ptfile.TensorStub):
            return value
        with self._files.open(self._name) as file:
            number = self._pt.number(file, value)
        return value if number is None else number

    def _parted(self) -> tuple[dict[str, Any] | None, dict[str, str]]:
        """Return the fields of the training state, and the key of each further state."""
        root = self._pt.root
        best = self._number(BEST)
        values = {BEST: float(best) if type(best) is int else best}
        settings = CONFIG if SETTINGS in root else SETTINGS
        values |= {key: value for key, value in root.items() if key not in OWN}
        if CONFIG in root:
            values[settings] = root[CONFIG]
        known = [TOKENIZER] if is_tokenizer(root.get(TOKENIZER)) else []
        step = {} if self.step is None else {"step": self.step}
        fields, states = ptfile.parted(values, known, step)
        if CONFIG in root and settings in states.values():
            states = {name: CONFIG if key == settings else key for name, key in states.items()}
        return fields or None, states

    def _tokenizer(self) -> dict[str, Any] | None:
        size = (self.config or {}).get("vocab_size")
        own = self._pt.root.get(TOKENIZER)
        if is_tokenizer(own):
            return self._object(TOKENIZER)
        found = self._vocabulary(size)
        if found is None:
            return {"token_kind": "gpt2"} if size in GPT2_SIZES else None
        meta = tokenizer_of(found[0])
        if meta is not None and isinstance(size, int) and len(meta["chars"]) > size:
            raise CorruptionError(
                f"{META} beside {self._where} has {len(meta['chars'])} characters, and the model "
                f"has a vocabulary of {size}: it is another data set's; put the {META} of the "
                "model's own there, or move this one away"
            )
        return meta

    def _vocabulary(self, size: Any) -> tuple[Any] | None:
        """Return what the meta.pkl holds that lies in the same folder, where one does."""
        if self._files.named is None:
            file = self._files.open(META) if META in self._files.names() else None
        else:
            file = self._beside(size)
        if file is None:
            return None
        with file:
            return (read_meta(file, f"{META} in {self._files.location}"),)

    def _beside(self, size: Any) -> BinaryIO | None:
        try:
            return self._files.beside(META)
        except StorageError:
            # Who may read one object and list none is told "denied" of whatever is absent; and
            # what is in GPT-2's tokens has no meta.pkl.
            if size in GPT2_SIZES:
                return None
            raise

    def _load(self, part: Callable[[Any], Any], **options: Any) -> Any:
        from ckptstore import tensors

        with self._files.open(self._name) as file:
            return tensors.load(
                file,
                part=part,
                proved=self._files.manifest is not None,
                where=self._where,
                **options,
            )


_KNOWN_FILES: WeakKeyDictionary[Files, dict[str, ptfile.PtFile]] = WeakKeyDictionary()


def _read(files: Files, name: str) -> ptfile.PtFile:
    """Return what a file holds; to find out whether it is of this format is to read it."""
    known = _KNOWN_FILES.setdefault(files, {})
    if name not in known:
        with files.open(name) as file:
            known[name] = ptfile.read(file, f"{name} in {files.location}")
    return known[name]


def _is_nanogpt(root: Any) -> bool:
    """Whether an object has the keys that nanoGPT's files have had from the first."""
    return (
        isinstance(root, Mapping)
        and isinstance(root.get(MODEL), Mapping)
        and ARGS in root
        and "model_state_dict" not in root  # What the format ``legacy`` goes by.
    )


def _weights_in(root: Any) -> dict[str, Any]:
    """Return the state dict as nanoGPT's model has it; of stubs and of tensors alike."""
    found = ptfile.repaired(root[MODEL])
    for name in list(found):
        mask = isinstance(name, str) and _MASK.fullmatch(name)
        if mask and len(getattr(found[name], "shape", ())) == 4:
            del found[name]
    return found
