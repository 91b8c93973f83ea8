"""What the readers of folders have in common: a bundle's texts, and the files that they name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from ckptstore.errors import CorruptionError, NotFoundError, UnsafeError
from ckptstore.formats.base import Files, Reader
from ckptstore.formats.bundle_texts import CONFIG, FILE, METRICS, TOKENIZER, TRAINING
from ckptstore.manifest import plain_name
from ckptstore.texts import parse_json, parse_json_lines
from ckptstore.tokenizers.files import carried_in

__all__ = ["NamingReader", "TextsReader"]

_MOST_METRICS = 64 * 2**20


class TextsReader(Reader):
    """A reader of a folder that has config.json, tokenizer.json and the like as a bundle has them.

    Args:
        files: of the folder; of one file that was named there are no texts.
    """

    def __init__(self, files: Files) -> None:
        self._files = files
        self._names = frozenset(files.names())
        self._carried: Mapping[str, bytes] = {}
        if files.named is None:
            self.config = self._json(CONFIG)
            self.tokenizer_state = self._json(TOKENIZER)
            self.training_state = self._json(TRAINING)
            self.step = self._step((self.training_state or {}).get("step"))
        if self.tokenizer_state is not None:
            self._carried = carried_in(files)

    def load_metrics_log(self) -> tuple[dict[str, Any], ...]:
        """Return what metrics.jsonl holds; nothing where there is none."""
        manifest = self._files.manifest
        if METRICS not in (self._names if manifest is None else manifest.files):
            return ()
        with self._files.open(METRICS) as file:
            data = file.read(_MOST_METRICS + 1)
        where = self._in(METRICS)
        if len(data) > _MOST_METRICS:
            raise CorruptionError(f"{where} is larger than {_MOST_METRICS // 2**20} MiB; not read")
        return parse_json_lines(data, where)

    def tokenizer_files(self) -> Mapping[str, bytes]:
        """Return the files beside tokenizer.json that have its name and another ending."""
        return self._carried

    def _listed(self, model: Iterable[str], others: Iterable[str]) -> tuple[str, ...]:
        """Return those files that are there, and those that the manifest has besides."""
        named = [*model, CONFIG, TOKENIZER, *self._carried, TRAINING, *others, METRICS]
        manifest = self._files.manifest
        listed = {*manifest.texts, *manifest.files} if manifest is not None else set()
        there = [name for name in named if name in self._names or name in listed]
        return tuple(dict.fromkeys([*there, *sorted(listed)]))

    def _for_inference(self, model: Iterable[str]) -> tuple[str, ...]:
        """Return model, config and tokenizer, with the files that it has."""
        named = (*model, CONFIG, TOKENIZER)
        return (*(name for name in named if name in self._names), *self._carried)

    def _json(self, name: str) -> dict[str, Any] | None:
        if name not in self._names:
            return None
        return parse_json(self._files.text(name), self._in(name))

    def _step(self, value: Any) -> int | None:
        if value is None or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        raise CorruptionError(
            f"{self._in(TRAINING)} has the step {value!r}, not a whole number; correct it"
        )

    def _in(self, name: str) -> str:
        """Return what to call a file in errors."""
        return f"{name} in {self._files.location}"


class NamingReader(TextsReader):
    """A reader of a folder that has a file for each part, named by training_state.json.

    Class attributes:
        ENDING: that these files have.
        MODEL, OPTIMIZER: the names that two of them always have when we write them.
    """

    ENDING: ClassVar[str]
    MODEL: ClassVar[str]
    OPTIMIZER: ClassVar[str]

    def __init__(self, files: Files) -> None:
        super().__init__(files)
        self._model = files.named or self.MODEL
        fields = self.training_state or {}
        self._optimizer: str | None = None
        if fields.get(f"optimizer{FILE}") is not None:
            self._optimizer = plain_name(fields[f"optimizer{FILE}"], self._in(TRAINING))
        self.has_optimizer = self._optimizer in self._names
        self._states: dict[str, str] = {
            name.removesuffix(FILE): value
            for name, value in fields.items()
            if name.endswith(FILE) and name != f"optimizer{FILE}" and self._is_state(value)
        }
        for name in (self._optimizer, *self._states.values()):
            if name is not None and name in self._names - {self.OPTIMIZER}:
                self._check_inside(name)

    def states(self) -> tuple[str, ...]:
        """Return the names of the further states."""
        return tuple(self._states)

    def files(self) -> tuple[str, ...]:
        """Return the files that are there, and those that the manifest has besides."""
        optimizer = () if self._optimizer is None else (self._optimizer,)
        return self._listed([self._model], [*optimizer, *self._states.values()])

    def for_inference(self) -> tuple[str, ...]:
        """Return model, config and tokenizer, with the files that it has."""
        return () if self._files.named is not None else self._for_inference([self._model])

    def _parts(self) -> dict[str, str]:
        """Return the file of each part; that of a state need not be there."""
        optimizer = {"optimizer": self._optimizer} if self.has_optimizer and self._optimizer else {}
        return {"model": self._model, **optimizer, **self._states}

    def _optimizer_file(self) -> str | None:
        if self._optimizer is not None and not self.has_optimizer:
            raise NotFoundError(
                f"no {self._optimizer} in {self._files.location}, though its {TRAINING} names it: "
                "an inference copy; copy that file too, or start with a fresh optimizer"
            )
        return self._optimizer

    def _state_file(self, name: str) -> str:
        if name not in self._states:
            named = (self.training_state or {}).get(name + FILE)
            if isinstance(named, str):
                plain_name(named, self._in(TRAINING))
            there = ", ".join(map(repr, self._states)) or "none"
            raise NotFoundError(f"no state {name!r} in {self._files.location}; it has {there}")
        file = self._states[name]
        if file not in self._names:
            raise NotFoundError(
                f"no {file} in {self._files.location}, though its {TRAINING} names it; "
                "copy that file too"
            )
        return file

    def _is_state(self, value: Any) -> bool:
        """Whether a field ``<name>_file`` names a file of ours, or is about something else."""
        try:
            file = plain_name(value, TRAINING)
        except UnsafeError:
            return False
        return file.endswith(self.ENDING) and file not in (self.MODEL, self.OPTIMIZER)

    def _check_inside(self, name: str) -> None:
        """Refuse a file that data chose, where it is a link to somewhere outside (G5)."""
        if self._files.leads_out(name):
            raise UnsafeError(
                f"{self._in(TRAINING)} names {name!r}, a link that leads out of "
                f"{self._files.location}; not followed, put the file itself in its place"
            )
