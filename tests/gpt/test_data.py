"""Batches: what they hold, that their order is a state, and what text is too short."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from ckptstore import plugins
from ckptstore.tokenizers.char import CharTokenizer
from gpt.config import GPTConfig
from gpt.data import GPTDataLoader
from gpt.train import SAMPLE_TEXT


@pytest.fixture
def loader(make_config: Any, text: str) -> GPTDataLoader:
    loader = GPTDataLoader(make_config(), CharTokenizer.from_text(text), seed=5)
    loader.prepare_data(text)
    return loader


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_batch_holds_windows_of_the_text_and_what_follows(
    loader: GPTDataLoader, text: str, split: str
) -> None:
    x, y = loader.get_batch(split)
    tokenizer = CharTokenizer.from_text(text)
    part = text[: int(0.9 * len(text))] if split == "train" else text[int(0.9 * len(text)) :]

    assert x.shape == y.shape == (4, 16)
    assert x.dtype == torch.long
    assert torch.equal(x[:, 1:], y[:, :-1])
    assert all(tokenizer.decode([*row.tolist(), int(y[n, -1])]) in part for n, row in enumerate(x))


def test_the_order_goes_on_from_its_state(loader: GPTDataLoader) -> None:
    loader.get_batch("train")
    state = loader.state_dict()
    first = [loader.get_batch("train")[0] for _ in range(3)]

    loader.load_state_dict(state)

    again = [loader.get_batch("train")[0] for _ in range(3)]
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


def test_another_generator_leaves_the_order_alone(loader: GPTDataLoader) -> None:
    state = loader.state_dict()["generator"]

    loader.get_batch("train", generator=torch.Generator().manual_seed(1))

    assert torch.equal(loader.state_dict()["generator"], state)


def test_torchs_seed_decides_the_order(make_config: Any, text: str) -> None:
    batches = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        loader = GPTDataLoader(make_config(), CharTokenizer.from_text(text))
        loader.prepare_data(text)
        batches.append(loader.get_batch("train")[0])

    assert torch.equal(batches[0], batches[1])
    assert not torch.equal(batches[0], batches[2])


def test_another_text_on_resume_is_a_warning(loader: GPTDataLoader, text: str) -> None:
    state = loader.state_dict()
    loader.prepare_data(text[:-1])

    with pytest.warns(UserWarning, match="not the text that the run was trained on"):
        loader.load_state_dict(state)


def test_a_short_text_leaves_the_validation_one_window(make_config: Any) -> None:
    text = "ab" * 17
    loader = GPTDataLoader(make_config(), CharTokenizer("ab"))
    loader.prepare_data(text)

    assert loader.get_batch("train")[0].shape == (4, 16)
    assert loader.get_batch("val")[0].shape == (4, 16)


def test_a_text_that_is_too_short_says_how_long_it_is_and_what_is_needed(make_config: Any) -> None:
    loader = GPTDataLoader(make_config(), CharTokenizer("ab"))

    with pytest.raises(ValueError, match="it has 33 tokens, block_size 16 needs 34"):
        loader.prepare_data("ab" * 16 + "a")


def test_a_batch_before_there_is_data_says_so(make_config: Any) -> None:
    loader = GPTDataLoader(make_config(), CharTokenizer("ab"))

    with pytest.raises(ValueError, match="prepare_data was not called"):
        loader.get_batch("train")


def test_a_split_that_is_not_there_is_named(loader: GPTDataLoader) -> None:
    with pytest.raises(ValueError, match="there is no split 'test'; there are train, val"):
        loader.get_batch("test")


def test_the_shipped_text_is_enough_for_the_defaults_and_for_old_models(
    text: str, gpt2_files: Path
) -> None:
    shipped = SAMPLE_TEXT.read_text(encoding="utf-8")

    assert shipped.startswith(text)
    assert set(shipped) == set(text)
    for kind in ("char", "gpt2"):
        tokenizer = plugins.tokenizer_kind(kind).from_text(shipped)
        GPTDataLoader(GPTConfig(device="cpu"), tokenizer).prepare_data(shipped)
