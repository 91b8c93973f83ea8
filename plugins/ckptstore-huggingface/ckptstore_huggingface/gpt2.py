"""The models that `GPT2LMHeadModel` of transformers can be, exactly, and what they are made of.

Rule: a model is written only where transformers computes with it what its own code computes. What
is no such model, or nearly one, is refused, and the message says why.

nanoGPT (https://github.com/karpathy/nanoGPT, model.py) has the names of GPT-2 and linear layers
where OpenAI's code, and transformers after it, has matrices with rows for columns. ckptstore's own
`gpt` has the projections of each head apart, a ReLU, and a bias on the logits.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ckptstore import UnsupportedError, ptfile
from ckptstore_huggingface.made import Made, State, joined, kept, turned, zeros

if TYPE_CHECKING:
    import torch

__all__ = ["Written", "written"]

_NANOGPT = "transformer.h.0.attn.c_attn.weight"
_OWN = "blocks.0.sa.heads.0.key.weight"
_MASKS = re.compile(r"transformer\.h\.\d+\.attn\.(masked_)?bias|blocks\.\d+\.sa\.heads\.\d+\.tril")
_FAMILIES = (
    "nanoGPT's models, ckptstore's own gpt, and GPT-2 as transformers has it (with its config.json)"
)
_HEAD, _EMBEDDING = "lm_head.weight", "transformer.wte.weight"
_LAST_OF_GPT2 = 50256
_EPSILON = 1e-5
_TRANSLATED = {
    *("n_layer", "n_head", "n_embd", "block_size", "bias", "vocab_size", "dropout"),
    "activation_function",
}
_EXTRA = "ckptstore"
"""Under this name config.json keeps those fields of a config that GPT-2's has no word for."""

Model = Mapping[str, Any]


@dataclass(frozen=True)
class Written:
    """A model as it is written.

    Attributes:
        model: the state dict, tied logits too.
        config: what config.json holds.
        ties: the name of a tensor that is not written to that of the one which it is.
    """

    model: State
    config: dict[str, Any]
    ties: Mapping[str, str] = field(default_factory=dict)

    @property
    def forms(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Dtype and shape of each tensor that is written."""
        return {n: form for n, form in self.model.forms.items() if n not in self.ties}


def written(model: Model, config: Mapping[str, Any] | None) -> Written:
    """Return a model as `GPT2LMHeadModel` has it.

    Args:
        model: a state dict of one of the families.
        config: nanoGPT's ``model_args``, the config of ckptstore's gpt, or that of transformers.
            ``activation_function`` in it, as transformers calls it, is taken before what the
            family has: ``gelu`` for nanoGPT, ``relu`` for ckptstore's own.

    Raises:
        UnsupportedError: it is of no family, is not whole, or is not exactly such a model.
    """
    model, config = ptfile.repaired(model), dict(config or {})
    if config.get("model_type") == "gpt2":
        return _as_it_is(model, config)
    if _OWN in model:
        return _own(_Source(model, config, "ckptstore's gpt"))
    if _NANOGPT in model and not config.get("model_type") and not _is_turned(model[_NANOGPT]):
        return _nanogpt(_Source(model, config, "nanoGPT"))
    some = ", ".join(map(str, [*model][:3])) or "none"
    kind = config.get("model_type")
    said = f"its config says model_type {kind!r}" if kind else f"its first tensors are {some}"
    if not kind and _is_turned(model.get(_NANOGPT, model.get(_NANOGPT.partition(".")[2]))):
        said = "it is transformers' GPT-2 without its config; pass its config.json in config="
    raise UnsupportedError(
        f"the format 'huggingface' writes {_FAMILIES}, and this is none of them: {said}; save it "
        "in 'safetensors' or 'bundle'"
    )


def _is_turned(weight: Any) -> bool:
    """Whether a weight of the attention has rows for columns, as OpenAI's code has it."""
    rows, columns = weight.shape if getattr(weight, "ndim", 0) == 2 else (0, 1)
    return bool(columns == 3 * rows)


class _Source:
    """A state dict whose tensors are asked for by name and shape, and counted.

    Args:
        model: the state dict.
        config: its config.
        family: what to call it in errors.
    """

    def __init__(self, model: Model, config: Mapping[str, Any], family: str) -> None:
        self.model = {name: t for name, t in model.items() if not _MASKS.fullmatch(str(name))}
        self.config = config
        self.family = family
        self._asked: set[str] = set()

    def get(self, name: str, *shape: int | None) -> torch.Tensor:
        """Return a tensor; None in the shape is any size."""
        found = self.find(name, *shape)
        if found is None:
            raise UnsupportedError(
                f"this model of {self.family} has no {name!r}, so it is not whole; save all of it"
            )
        return found

    def find(self, name: str, *shape: int | None) -> torch.Tensor | None:
        """Return a tensor, or None where there is none of that name."""
        import torch

        self._asked.add(name)
        found: torch.Tensor | None = self.model.get(name)
        if found is None:
            return None
        dense = isinstance(found, torch.Tensor) and found.layout is torch.strided
        held = list(found.shape) if dense else f"a {type(found).__name__}"
        fits = dense and not found.is_meta and len(shape) == found.dim()
        if not fits or any(n not in (None, m) for n, m in zip(shape, found.shape, strict=True)):
            expected = ["any" if n is None else n for n in shape]
            raise UnsupportedError(
                f"{name!r} of this model of {self.family} is {held}, and would have to be a dense "
                f"tensor of {expected}, by its other tensors and its config"
            )
        return found

    def check_all_asked(self) -> None:
        """Refuse tensors that nobody asked for: they would be lost without a word."""
        left = [name for name in self.model if name not in self._asked]
        if left:
            some = ", ".join(map(repr, left[:3])) + (", …" if len(left) > 3 else "")
            raise UnsupportedError(
                f"this model of {self.family} holds {some}, which GPT2LMHeadModel has no room for; "
                "save it in 'safetensors' or 'bundle'"
            )

    def count(self, field: str, found: int | None = None) -> int:
        """Return a number of the config, which is also what the tensors say."""
        said = self.config.get(field, found)
        if not isinstance(said, int) or isinstance(said, bool) or said < 1:
            raise UnsupportedError(
                f"the config of this model of {self.family} has {said!r} as its {field!r}, and it "
                "cannot be told from the tensors; pass it in config="
            )
        if found is not None and said != found:
            raise UnsupportedError(
                f"the config of this model of {self.family} says {field} {said}, its tensors "
                f"{found}; correct the config"
            )
        return said

    def layers(self, pattern: str) -> int:
        """Return how many blocks there are; ``pattern`` is a tensor that each of them has."""
        count = 0
        while pattern.format(count) in self.model:
            count += 1
        return self.count("n_layer", count)


def _nanogpt(source: _Source) -> Written:
    """Return a model of nanoGPT."""
    wte = source.get(_EMBEDDING, None, None)
    vocabulary, width = wte.shape
    source.count("vocab_size", vocabulary)
    source.count("n_embd", width)
    wpe = source.get("transformer.wpe.weight", None, width)
    source.count("block_size", len(wpe))
    layers, inner = source.layers("transformer.h.{}.attn.c_attn.weight"), 4 * width
    made = {_EMBEDDING: kept(wte), "transformer.wpe.weight": kept(wpe)}

    def linear(name: str, rows: int, columns: int) -> None:
        weight = source.get(f"{name}.weight", rows, columns)
        made[f"{name}.weight"] = turned(weight)
        made[f"{name}.bias"] = _bias(source, f"{name}.bias", weight, rows)

    def norm(name: str) -> None:
        weight = source.get(f"{name}.weight", width)
        made[f"{name}.weight"] = kept(weight)
        made[f"{name}.bias"] = _bias(source, f"{name}.bias", weight, width)

    for number in range(layers):
        block = f"transformer.h.{number}"
        norm(f"{block}.ln_1")
        linear(f"{block}.attn.c_attn", 3 * width, width)
        linear(f"{block}.attn.c_proj", width, width)
        norm(f"{block}.ln_2")
        linear(f"{block}.mlp.c_fc", inner, width)
        linear(f"{block}.mlp.c_proj", width, inner)
    norm("transformer.ln_f")
    head = source.find(_HEAD, vocabulary, width)
    tied = head is None or _are_one(head, wte)
    if head is not None:
        made[_HEAD] = kept(wte if tied else head)
    return _finished(source, made, (vocabulary, len(wpe), width, layers), tied, "gelu")


def _own(source: _Source) -> Written:
    """Return a model of ckptstore's own gpt."""
    tokens = source.get("token_embedding_table.weight", None, None)
    vocabulary, width = tokens.shape
    places = source.get("position_embedding_table.weight", None, width)
    source.count("vocab_size", vocabulary)
    source.count("n_embd", width)
    source.count("block_size", len(places))
    layers, heads = source.layers("blocks.{}.sa.proj.weight"), source.count("n_head")
    made = {_EMBEDDING: kept(tokens), "transformer.wpe.weight": kept(places)}

    def copied(name: str, theirs: str, *shape: int, turn: bool = False) -> None:
        weight = source.get(f"{theirs}.weight", *shape)
        made[f"{name}.weight"] = turned(weight) if turn else kept(weight)
        made[f"{name}.bias"] = kept(source.get(f"{theirs}.bias", shape[0]))

    for number in range(layers):
        block, theirs = f"transformer.h.{number}", f"blocks.{number}"
        copied(f"{block}.ln_1", f"{theirs}.ln1", width)
        _join_heads(source, made, number, heads, width)
        copied(f"{block}.attn.c_proj", f"{theirs}.sa.proj", width, width, turn=True)
        copied(f"{block}.ln_2", f"{theirs}.ln2", width)
        copied(f"{block}.mlp.c_fc", f"{theirs}.fwd.net.0", 4 * width, width, turn=True)
        copied(f"{block}.mlp.c_proj", f"{theirs}.fwd.net.2", width, 4 * width, turn=True)
    copied("transformer.ln_f", "ln_f", width)
    head = source.get(_HEAD, vocabulary, width)
    tied = _are_one(head, tokens)
    made[_HEAD] = kept(tokens if tied else head)
    bias = source.find("lm_head.bias", vocabulary)
    if bias is not None and bool(bias.count_nonzero()):
        raise UnsupportedError(
            "'lm_head.bias' of this model of ckptstore's gpt is not zero, and GPT2LMHeadModel has "
            "no bias on its logits, so that transformers would compute others; save it in "
            "'safetensors' or 'bundle', or set lm_head.bias to zero where that is near enough"
        )
    return _finished(source, made, (vocabulary, len(places), width, layers), tied, "relu")


def _join_heads(
    source: _Source, made: dict[str, Made], number: int, heads: int, width: int
) -> None:
    """Add the one product for queries, keys and values of all heads, in this order."""
    if width % heads:
        raise UnsupportedError(f"{heads} heads cannot share {width} values; correct n_head")
    size = width // heads
    parts = [
        f"blocks.{number}.sa.heads.{head}.{kind}"
        for kind in ("query", "key", "value")
        for head in range(heads)
    ]
    name = f"transformer.h.{number}.attn.c_attn"
    weights = [source.get(f"{part}.weight", size, width) for part in parts]
    made[f"{name}.weight"] = joined(weights, turn=True)
    biases = [source.find(f"{part}.bias", size) for part in parts]
    there = [bias for bias in biases if bias is not None]
    if there and len(there) < len(biases):
        raise UnsupportedError(f"only some heads of blocks.{number} have a bias; save all of them")
    made[f"{name}.bias"] = joined(there) if there else zeros(weights[0], 3 * width)


def _as_it_is(model: Model, config: dict[str, Any]) -> Written:
    """Return a model of transformers' own GPT-2, as its files have it."""
    prefix = "transformer." if any(str(n).startswith("transformer.") for n in model) else ""
    source = _Source(model, config, "transformers' GPT-2")
    wte = source.get(f"{prefix}wte.weight", None, None)
    width = wte.shape[1]
    for number in range(source.layers(f"{prefix}h.{{}}.attn.c_attn.weight")):
        # That of a linear layer has rows for columns, and would be read as something else.
        source.get(f"{prefix}h.{number}.attn.c_attn.weight", width, 3 * width)
    for name in model:
        source.find(name, *([None] * getattr(model[name], "ndim", 0)))
    made = {name: kept(tensor) for name, tensor in model.items()}
    tied = config.get("tie_word_embeddings", True) and _HEAD in model
    if tied and _are_one(model[_HEAD], wte):
        return Written(State(made), config, {_HEAD: f"{prefix}wte.weight"})
    return Written(State(made), config)


def _bias(source: _Source, name: str, weight: torch.Tensor, size: int) -> Made:
    """Return a bias, or the zeros that are as good as none."""
    found = source.find(name, size)
    return zeros(weight, size) if found is None else kept(found)


def _are_one(head: Any, wte: Any) -> bool:
    """Whether the logits' weights are those of the embedding."""
    import torch

    if head.dtype != wte.dtype or head.shape != wte.shape:
        return False
    same: Callable[[Any, Any], bool] = torch.equal
    return (head.data_ptr(), head.stride()) == (wte.data_ptr(), wte.stride()) or same(head, wte)


def _finished(
    source: _Source,
    made: dict[str, Made],
    sizes: tuple[int, int, int, int],
    tied: bool,
    activation: str,
) -> Written:
    """Return the model with its config, once every tensor of it has been asked for."""
    source.check_all_asked()
    vocabulary, positions, width, layers = sizes
    heads = source.count("n_head")
    if width % heads:
        raise UnsupportedError(f"{heads} heads cannot share {width} values; correct n_head")
    config, model = source.config, State(made)
    dropout = config.get("dropout", 0.0)
    if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout <= 1:
        raise UnsupportedError(f"the config says dropout {dropout!r}, not a share; correct it")
    chosen = config.get("activation_function", activation)
    if not isinstance(chosen, str) or not chosen:
        raise UnsupportedError(
            f"the config says activation_function {chosen!r}, not what transformers calls one, "
            "such as 'gelu' or 'gelu_new'; correct it"
        )
    end = _LAST_OF_GPT2 if vocabulary > _LAST_OF_GPT2 else None
    extra = {name: value for name, value in config.items() if name not in _TRANSLATED}
    said = {
        "activation_function": chosen,
        "architectures": ["GPT2LMHeadModel"],
        "attn_pdrop": dropout,
        "bos_token_id": end,
        "dtype": model.dtype,
        "embd_pdrop": dropout,
        "eos_token_id": end,
        "layer_norm_epsilon": _EPSILON,
        "model_type": "gpt2",
        "n_embd": width,
        "n_head": heads,
        "n_inner": None,
        "n_layer": layers,
        "n_positions": positions,
        "resid_pdrop": dropout,
        "scale_attn_weights": True,
        "tie_word_embeddings": tied,
        "vocab_size": vocabulary,
    }
    ties = {_HEAD: _EMBEDDING} if tied and _HEAD in made else {}
    return Written(model, said | ({_EXTRA: extra} if extra else {}), ties)
