"""What random numbers go on from: Python's, NumPy's and torch's own generators."""

from __future__ import annotations

import importlib
import logging
import random
import sys
from collections.abc import Mapping
from typing import Any

import torch

from ckptstore.errors import UnsupportedError

__all__ = ["RandomStates"]

log = logging.getLogger(__name__)

_NUMPY = "numpy.random"
_ALGORITHM, _WORDS = "MT19937", 624


class RandomStates:
    """The global random states of this process, as an object with a state dict.

    Pass it among the states of a save and of `Checkpoint.restore`, and what is random goes on
    where it was: ``state={"rng": ckptstore.RandomStates()}``. It covers Python's `random`, NumPy's
    ``numpy.random`` where it is in use, torch on the CPU, and torch on every CUDA device. It holds
    nothing itself; a generator of your own (`torch.Generator`) is a state of its own.

    Guarantee: with the rest of the state, resuming is exact (G8).
    """

    def state_dict(self) -> dict[str, Any]:
        """Return the states: plain numbers, tuples and tensors, which load safely (G5).

        Raises:
            UnsupportedError: somebody replaced the algorithm behind ``numpy.random``.
        """
        state: dict[str, Any] = {
            "python": random.getstate(),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if _uses_cuda() else [],
        }
        numpy = sys.modules.get(_NUMPY)  # Where nobody imported it, nobody drew a number.
        if numpy is not None:
            found = numpy.get_state(legacy=False)
            if found["bit_generator"] != _ALGORITHM:
                raise UnsupportedError(
                    f"numpy.random draws from {found['bit_generator']}, whose state this does not "
                    f"know, not from {_ALGORITHM}; save it under a name of its own"
                )
            inner = found["state"]
            state["numpy"] = {
                "key": torch.tensor(inner["key"].tolist(), dtype=torch.int64),
                "pos": int(inner["pos"]),
                "has_gauss": int(found["has_gauss"]),
                "gauss": float(found["gauss"]),
            }
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from saved states; all are tried before one is set.

        Where the number of CUDA devices is another one, theirs are left as they are, and a warning
        is logged.

        Raises:
            UnsupportedError: they are no random states.
        """
        self.check(state)
        random.setstate(state["python"])
        torch.set_rng_state(state["torch"])
        if "numpy" in state:
            importlib.import_module(_NUMPY).set_state(_for_numpy(state["numpy"]))
        cuda = state["cuda"]
        here = torch.cuda.device_count()
        if cuda and len(cuda) == here:
            torch.cuda.set_rng_state_all(cuda)
        elif cuda or _uses_cuda():
            log.warning(
                "random states of %d CUDA devices were saved, and there are %d: what is drawn on "
                "them does not go on where it was",
                len(cuda),
                here,
            )

    def check(self, state: Any, where: str = "the state") -> None:
        """Try states on generators that nobody uses.

        Args:
            state: what `state_dict` returned.
            where: what to call it in errors.

        Raises:
            UnsupportedError: they are no random states; nothing was changed.
        """
        try:
            random.Random().setstate(state["python"])  # noqa: S311  (it draws nothing)
            torch.Generator().set_state(state["torch"])
            if not all(isinstance(one, torch.Tensor) for one in state["cuda"]):
                raise TypeError("the state of a CUDA device is no tensor")
            if "numpy" in state:
                numpy = importlib.import_module(_NUMPY)
                numpy.RandomState().set_state(_for_numpy(state["numpy"]))
        except ModuleNotFoundError as error:
            raise UnsupportedError(
                f"{where} has a random state of NumPy, which is not installed here; install numpy"
            ) from error
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            raise UnsupportedError(
                f"{where} holds no random states: {type(error).__name__}: "
                f"{(str(error).splitlines() or [''])[0]}; save them with ckptstore.RandomStates()"
            ) from error


def _uses_cuda() -> bool:
    """Whether this process has drawn anything on a CUDA device, or may have."""
    used: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return used


def _for_numpy(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return NumPy's own form; NumPy takes a list of numbers for an array, and any place in it."""
    if not 0 <= state["pos"] <= _WORDS:
        raise ValueError(f"NumPy's place is {state['pos']!r}, of {_WORDS}")
    inner = {"key": state["key"].tolist(), "pos": state["pos"]}
    rest = {"has_gauss": state["has_gauss"], "gauss": state["gauss"]}
    return {"bit_generator": _ALGORITHM, "state": inner, **rest}
