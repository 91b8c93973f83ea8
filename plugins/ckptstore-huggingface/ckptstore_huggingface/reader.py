"""What the format makes of the files of one folder."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from ckptstore import CorruptionError, NotFoundError, TensorInfo, UnsafeError, ptfile
from ckptstore.formats.base import Files, Reader
from ckptstore.ptfile import PtFile
from ckptstore.structure import Structure
from ckptstore_huggingface.names import (
    BIN_INDEX,
    CONFIG,
    GENERATION,
    OPTIMIZER,
    OTHERS,
    STATES,
    TENSORS_INDEX,
    TRAINER,
)
from ckptstore_huggingface.texts import read_json
from ckptstore_huggingface.tokenizers import state_in
from ckptstore_huggingface.weights import weights_of

__all__ = ["HuggingFaceReader"]

log = logging.getLogger(__name__)


class HuggingFaceReader(Reader):
    """Reads a model folder, one that a Trainer left too.

    Args:
        files: of the folder.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._names = frozenset(files.names())
        self._weights = weights_of(files)
        self.config = self._json(CONFIG)
        self._json(GENERATION)  # It goes with the config, and is damaged where it is no JSON.
        self.tokenizer_state = state_in(files)
        self._log: list[dict[str, Any]] = []
        trainer = self._json(TRAINER)
        if trainer is not None:
            self._read_trainer(trainer)
        named = {"optimizer": OPTIMIZER, **STATES}
        looked = {part: self._looked_through(name) for part, name in named.items()}
        self._parts = {part: content for part, content in looked.items() if content is not None}
        self.has_optimizer = "optimizer" in self._parts

    def _read_trainer(self, said: Mapping[str, Any]) -> None:
        step = said.get("global_step")
        if step is not None and (not isinstance(step, int) or isinstance(step, bool) or step < 0):
            raise CorruptionError(
                f"{TRAINER} in {self._files.location} has the global_step {step!r}, not a count; "
                "correct it"
            )
        self.step = step
        fields = ("epoch", "best_metric", "best_global_step", "best_model_checkpoint")
        kept = {name: said.get(name) for name in fields}
        plain = {n: v for n, v in kept.items() if v is not None and not isinstance(v, dict)}
        self.training_state = {"step": step, **plain}
        rows = said.get("log_history")
        if isinstance(rows, list):
            self._log = [{**row} for row in rows if isinstance(row, dict)]

    # -- without reading weights --------------------------------------------------------

    def tensors(self) -> dict[str, TensorInfo]:
        """Return the model's tensors, by the names that they have in the files."""
        return self._weights.infos()

    def tensors_in(self, part: str) -> dict[str, TensorInfo]:
        """Return the tensors of the optimizer, the scheduler or the scaler."""
        content = self._parts.get(part)
        return {} if content is None else dict(content.tensors)

    def structure(self) -> dict[str, Structure]:
        """Return which tensors are one and the same, and what the pickles beside them say."""
        found = {"model": Structure(ties=self._weights.ties())}
        return found | {part: content.structure() for part, content in self._parts.items()}

    def states(self) -> tuple[str, ...]:
        """Return ``scheduler`` and ``scaler``, where a Trainer left them."""
        return tuple(part for part in self._parts if part != "optimizer")

    def files(self) -> tuple[str, ...]:
        """Return the files that are there, the weights first; no pickle that would run code."""
        named = [*self._weights.shards, TENSORS_INDEX, BIN_INDEX, CONFIG, GENERATION, *OTHERS]
        named += [TRAINER, *({"optimizer": OPTIMIZER, **STATES}[part] for part in self._parts)]
        manifest = self._files.manifest
        listed = {*manifest.texts, *manifest.files} if manifest is not None else set()
        there = [name for name in named if name in self._names or name in listed]
        return tuple(dict.fromkeys([*there, *sorted(listed)]))

    def for_inference(self) -> tuple[str, ...]:
        """Return weights, config and the tokenizer's files."""
        left = {TRAINER, OPTIMIZER, *STATES.values()}
        return tuple(name for name in self.files() if name in self._names and name not in left)

    # -- reading weights ----------------------------------------------------------------

    def load_model(
        self, names: Sequence[str] | None = None, map_location: Any = "cpu"
    ) -> dict[str, Any]:
        """Return the state dict, or the named tensors of it; no other bytes are read."""
        return self._weights.load(names, map_location)

    def map_model(
        self, names: Sequence[str] | None = None, *, prove: bool = True
    ) -> dict[str, Any]:
        """Return the state dict, or a part of it, as memory that looks into the files."""
        return self._weights.mapped(names, prove=prove)

    def fill_model(self, into: Mapping[str, Any], *, atomic: bool = False) -> bool:
        """Overwrite the tensors of a model, by reading straight into their memory."""
        return self._weights.fill(into, prove=atomic)

    def load_optimizer(self, map_location: Any = "cpu") -> dict[str, Any] | None:
        """Return what a Trainer left of its optimizer, or None."""
        if not self.has_optimizer:
            return None
        state: dict[str, Any] = self._load(OPTIMIZER, map_location)
        return state

    def load_state(self, name: str, map_location: Any = "cpu") -> Any:
        """Return a further state that a Trainer left."""
        if name not in self.states():
            there = ", ".join(map(repr, self.states())) or "none"
            raise NotFoundError(f"no state {name!r} in {self._files.location}; it has {there}")
        return self._load(STATES[name], map_location)

    def load_metrics_log(self) -> tuple[dict[str, Any], ...]:
        """Return the Trainer's log_history; what is no finite number there is None."""
        return tuple(
            {name: None if isinstance(value, dict) else value for name, value in row.items()}
            for row in self._log
        )

    # -- inside -------------------------------------------------------------------------

    def _looked_through(self, name: str) -> PtFile | None:
        """Return what a `.pt` says of itself; None where it is absent, or loads only by running."""
        if name not in self._names:
            return None
        with self._files.open(name) as file:
            try:
                return ptfile.read(file, self._where(name))
            except UnsafeError as error:
                log.warning("%s is left out: %s", name, error)
                return None

    def _load(self, name: str, map_location: Any) -> Any:
        from ckptstore import tensors

        with self._files.open(name) as file:
            return tensors.load(
                file,
                map_location=map_location,
                proved=self._files.manifest is not None,
                where=self._where(name),
            )

    def _json(self, name: str) -> dict[str, Any] | None:
        if name not in self._names:
            return None
        return read_json(self._files.text(name), self._where(name))

    def _where(self, name: str) -> str:
        return f"{name} in {self._files.location}"
