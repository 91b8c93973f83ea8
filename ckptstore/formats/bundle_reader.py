"""What the bundle makes of the files of one checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, BinaryIO

from ckptstore import ptfile
from ckptstore.errors import CorruptionError, NotFoundError, UnsafeError
from ckptstore.formats.base import Files, Reader
from ckptstore.formats.bundle_texts import (
    CONFIG,
    FILE,
    METRICS,
    MODEL,
    OPTIMIZER,
    TOKENIZER,
    TRAINING,
)
from ckptstore.later import Opened
from ckptstore.manifest import FileEntry, TensorInfo, plain_name
from ckptstore.structure import Structure
from ckptstore.texts import parse_json, parse_json_lines
from ckptstore.tokenizers.files import carried_in

__all__ = ["BundleReader"]

_MOST_METRICS = 64 * 2**20


class BundleReader(Reader):
    """Reads a bundle.

    Args:
        files: of the folder.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._known: dict[str, ptfile.PtFile] = {}
        self._opened_later = Opened()
        self._names = frozenset(files.names())
        self.config = self._json(CONFIG)
        self.tokenizer_state = self._json(TOKENIZER)
        self.training_state = self._json(TRAINING)
        fields = self.training_state or {}
        self.step = self._step(fields.get("step"))
        optimizer = fields.get("optimizer_file")
        if optimizer is not None:
            optimizer = plain_name(optimizer, self._where(TRAINING))
        self._optimizer: str | None = optimizer
        self._carried: Mapping[str, bytes] = (
            {} if self.tokenizer_state is None else carried_in(files)
        )
        self.has_optimizer = optimizer in self._names
        self._states = {
            name.removesuffix(FILE): value
            for name, value in fields.items()
            if name.endswith(FILE) and name != "optimizer_file" and self._is_state(value)
        }
        for chosen in {optimizer, *self._states.values()} & (self._names - {OPTIMIZER}):
            self._check_inside(chosen)

    def tensors(self) -> dict[str, TensorInfo]:
        """Return the model's tensors: from the manifest, or from the directory of model.pt."""
        self._require(MODEL)
        return dict(ptfile.repaired(self._index(MODEL)))

    def tensors_in(self, part: str) -> dict[str, TensorInfo]:
        """Return the tensors of the optimizer or of a state."""
        name = self._parts().get(part)
        return dict(self._index(name)) if name in self._names and name is not None else {}

    def _index(self, name: str) -> Mapping[str, TensorInfo]:
        entry = self._entry(name)
        if entry is not None and entry.tensors is not None:
            return entry.tensors
        return self._pt(name).tensors

    def _parts(self) -> dict[str, str]:
        """Return the file of each part that is there."""
        optimizer = {"optimizer": self._optimizer} if self.has_optimizer and self._optimizer else {}
        return {"model": MODEL, **optimizer, **self._states}

    def structure(self) -> dict[str, Structure]:
        """Return what the pickles say: from the manifest, or each from its own file."""
        parts = self._parts().items()
        found = {part: self._said(name) for part, name in parts if name in self._names}
        model = found.get("model")
        if model is not None:
            clean = ptfile.repaired_names(name for tie in model.ties for name in tie)
            ties = tuple(tuple(clean[name] for name in tie) for tie in model.ties)
            found["model"] = replace(model, ties=ties)
        return found

    def _said(self, name: str) -> Structure:
        entry = self._entry(name)
        if entry is not None and entry.structure is not None:
            return entry.structure
        return self._pt(name).structure()

    def _entry(self, name: str) -> FileEntry | None:
        manifest = self._files.manifest
        return manifest.files.get(name) if manifest is not None else None

    def _pt(self, name: str) -> ptfile.PtFile:
        """Return what a file says of itself, read once; a manifest that says it spares that."""
        if name not in self._known:
            with self._files.open(name) as file:
                self._known[name] = ptfile.read(file, self._where(name))
        return self._known[name]

    def load_model(
        self, names: Sequence[str] | None = None, map_location: Any = "cpu"
    ) -> dict[str, Any]:
        """Return the state dict, or the named tensors of it, without prefixes and wrapper."""
        return self._state(names, map_location=map_location)

    def map_model(
        self, names: Sequence[str] | None = None, *, prove: bool = True
    ) -> dict[str, Any]:
        """Return the state dict, or a part of it, as memory that looks into model.pt."""
        return self._state(names, mmap=True, prove=prove)

    def fill_model(self, into: Mapping[str, Any], *, atomic: bool = False) -> bool:
        """Overwrite the tensors of a model with those of model.pt."""
        from ckptstore import tensors

        self._require(MODEL)
        with self._opened(MODEL) as file:
            return tensors.fill(
                file,
                into,
                part=ptfile.repaired,
                proved=self._files.manifest is not None,
                atomic=atomic,
                where=self._where(MODEL),
            )

    def model_later(self) -> Mapping[str, Any] | None:
        """Return the state dict as tensors that are read when they are written."""
        self._require(MODEL)
        state = self._later(MODEL)
        return None if state is None else ptfile.repaired(self._checked(state))

    def load_optimizer(self, map_location: Any = "cpu") -> dict[str, Any] | None:
        """Return the optimizer's state dict, or None where none is named."""
        name = self._optimizer_file()
        if name is None:
            return None
        state: dict[str, Any] = self._load(name, map_location=map_location)
        return state

    def optimizer_later(self) -> dict[str, Any] | None:
        """Return the same as tensors that are read when they are written."""
        name = self._optimizer_file()
        state: dict[str, Any] | None = None if name is None else self._later(name)
        return state

    def _optimizer_file(self) -> str | None:
        if self._optimizer is not None and not self.has_optimizer:
            raise NotFoundError(
                f"no {self._optimizer} in {self._files.location}, though its {TRAINING} names it: "
                "an inference copy; copy that file too, or start with a fresh optimizer"
            )
        return self._optimizer

    def states(self) -> tuple[str, ...]:
        """Return the names of the further states."""
        return tuple(self._states)

    def load_state(self, name: str, map_location: Any = "cpu") -> Any:
        """Return a further state by name."""
        return self._load(self._state_file(name), map_location=map_location)

    def state_later(self, name: str) -> Any:
        """Return the same as tensors that are read when they are written."""
        file = self._state_file(name)
        state = self._later(file)
        return self._load(file) if state is None else state

    def _state_file(self, name: str) -> str:
        if name not in self._states:
            named = (self.training_state or {}).get(name + FILE)
            if isinstance(named, str):
                plain_name(named, self._where(TRAINING))
            there = ", ".join(map(repr, self._states)) or "none"
            raise NotFoundError(f"no state {name!r} in {self._files.location}; it has {there}")
        file: str = self._states[name]
        if file not in self._names:
            raise NotFoundError(
                f"no {file} in {self._files.location}, though its {TRAINING} names it; "
                "copy that file too"
            )
        return file

    def load_metrics_log(self) -> tuple[dict[str, Any], ...]:
        """Return what metrics.jsonl holds; nothing where there is none."""
        manifest = self._files.manifest
        if METRICS not in (self._names if manifest is None else manifest.files):
            return ()
        with self._opened(METRICS) as file:
            data = file.read(_MOST_METRICS + 1)
        where = self._where(METRICS)
        if len(data) > _MOST_METRICS:
            raise CorruptionError(f"{where} is larger than {_MOST_METRICS // 2**20} MiB; not read")
        return parse_json_lines(data, where)

    def tokenizer_files(self) -> Mapping[str, bytes]:
        """Return the files beside tokenizer.json that have its name and another ending."""
        return self._carried

    def files(self) -> tuple[str, ...]:
        """Return the files that are there, and those that the manifest has besides."""
        named = [MODEL, CONFIG, TOKENIZER, *self._carried, TRAINING]
        if self._optimizer is not None:
            named.append(self._optimizer)
        named += [*self._states.values(), METRICS]
        manifest = self._files.manifest
        listed = {*manifest.texts, *manifest.files} if manifest is not None else set()
        there = [name for name in named if name in self._names or name in listed]
        return tuple(dict.fromkeys([*there, *sorted(listed)]))

    def for_inference(self) -> tuple[str, ...]:
        """Return model, config and tokenizer, with the files that it has."""
        there = tuple(name for name in (MODEL, CONFIG, TOKENIZER) if name in self._names)
        return (*there, *self._carried)

    def _json(self, name: str) -> dict[str, Any] | None:
        if name not in self._names:
            return None
        return parse_json(self._files.text(name), self._where(name))

    def _step(self, value: Any) -> int | None:
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        raise CorruptionError(
            f"{self._where(TRAINING)} has the step {value!r}, not a whole number; correct it"
        )

    def _is_state(self, value: Any) -> bool:
        """Whether a field ``<name>_file`` names a file of ours, or is about something else."""
        try:
            file = plain_name(value, TRAINING)
        except UnsafeError:
            return False
        return file.endswith(".pt") and file not in (MODEL, OPTIMIZER)

    def _check_inside(self, name: str) -> None:
        """Refuse a file that data chose, where it is a link to somewhere outside (G5)."""
        if self._files.leads_out(name):
            raise UnsafeError(
                f"{self._where(TRAINING)} names {name!r}, a link that leads out of "
                f"{self._files.location}; not followed, put the file itself in its place"
            )

    def _state(self, names: Sequence[str] | None, **options: Any) -> dict[str, Any]:
        self._require(MODEL)
        state = self._checked(self._load(MODEL, names=names, **options))
        return state if names is not None else ptfile.repaired(state)  # type: ignore[return-value]

    def _checked(self, state: Any) -> Mapping[str, Any]:
        if not isinstance(state, Mapping):
            raise CorruptionError(
                f"{self._where(MODEL)} holds a {type(state).__name__}, not a state dict"
            )
        return state

    def _load(self, name: str, **options: Any) -> Any:
        from ckptstore import tensors

        with self._opened(name) as file:
            return tensors.load(
                file,
                proved=self._files.manifest is not None,
                where=self._where(name),
                **options,
            )

    def _later(self, name: str) -> Any:
        from ckptstore import tensors

        return tensors.later(
            partial(self._opened, name),
            proved=self._files.manifest is not None,
            opened=self._opened_later,
            where=self._where(name),
        )

    def _opened(self, name: str) -> BinaryIO:
        try:
            return self._files.open(name)
        except NotFoundError as error:
            if name == MODEL:  # The one file that a checkpoint is nothing without.
                raise CorruptionError(str(error)) from error
            raise

    def _require(self, name: str) -> None:
        if name not in self._names:
            raise CorruptionError(
                f"{self._files.location} has no {name}, which every bundle has; "
                "restore it from a good copy"
            )

    def _where(self, name: str) -> str:
        return f"{name} in {self._files.location}"
