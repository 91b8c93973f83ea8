"""Batches: what they hold, their order as a state, where ids are kept, what text is too short."""

from __future__ import annotations

import errno
import hashlib
from array import array
from pathlib import Path
from typing import Any

import pytest
import torch

from ckptstore import plugins
from ckptstore.tokenizers.char import CharTokenizer
from gpt.config import GPTConfig
from gpt.data import GPTDataLoader
from gpt.model import GPT
from gpt.train import SAMPLE_TEXT

LONG = "abcacb" * (2**20 // 6 + 1)


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


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "gpt"


class CountingTokenizer(CharTokenizer):
    """Counts how often it encodes."""

    calls = 0

    def encode(self, text: str) -> list[int]:
        self.calls += 1
        return super().encode(text)


@pytest.fixture
def tokenizer() -> CountingTokenizer:
    return CountingTokenizer("abc")


def _loader(tokenizer: Any, make_config: Any, text: str = LONG, **more: Any) -> GPTDataLoader:
    loader = GPTDataLoader(make_config(), tokenizer, seed=5, **more)
    loader.prepare_data(text)
    return loader


def _batches(loader: GPTDataLoader) -> torch.Tensor:
    return torch.stack([torch.stack(loader.get_batch(split)) for split in ("train", "val") * 3])


def test_a_long_text_is_tokenised_once_and_mapped(
    tokenizer: CountingTokenizer, make_config: Any, cache: Path
) -> None:
    first = _loader(tokenizer, make_config)
    (file,) = cache.iterdir()
    again = _loader(tokenizer, make_config)

    assert tokenizer.calls == 1
    assert file.stat().st_size == 512 + 2 * len(LONG)
    assert torch.equal(_batches(first), _batches(again))
    assert first.state_dict()["sha256"] == again.state_dict()["sha256"]
    maps = Path("/proc/self/maps")  # on Linux
    assert not maps.exists() or str(file) in maps.read_text()


def test_batches_and_digest_are_those_of_ids_in_memory(
    tokenizer: CountingTokenizer, make_config: Any, cache: Path
) -> None:
    class OfUnknownOrigin:
        def encode(self, text: str) -> list[int]:
            return tokenizer.encode(text)

    in_memory = _loader(OfUnknownOrigin(), make_config)
    assert not cache.exists()
    mapped = _loader(tokenizer, make_config)

    ids = CharTokenizer.encode(tokenizer, LONG)
    digest = hashlib.sha256(array("i", ids)).hexdigest()
    assert in_memory.state_dict()["sha256"] == mapped.state_dict()["sha256"] == digest
    assert torch.equal(_batches(in_memory), _batches(mapped))


def test_ids_that_need_it_are_kept_in_four_bytes(make_config: Any, cache: Path) -> None:
    class Far(CharTokenizer):
        def encode(self, text: str) -> list[int]:
            return [number + 70_000 for number in super().encode(text)]

    for _ in range(2):
        x, _ = _loader(Far("abc"), make_config).get_batch("train")
        assert set(x.unique().tolist()) == {70_000, 70_001, 70_002}
    (file,) = cache.iterdir()
    assert file.stat().st_size == 512 + 4 * len(LONG)


def test_a_model_finds_what_its_tokenizer_keeps(
    tokenizer: CountingTokenizer, make_config: Any, cache: Path
) -> None:
    _loader(tokenizer, make_config)

    _loader(GPT(make_config(), tokenizer), make_config)

    assert tokenizer.calls == 1


def test_another_text_or_vocabulary_has_a_file_of_its_own(
    tokenizer: CountingTokenizer, make_config: Any, cache: Path
) -> None:
    for each, text in ((tokenizer, LONG), (tokenizer, LONG + "a"), (CharTokenizer("cba"), LONG)):
        _loader(each, make_config, text)

    assert len(list(cache.iterdir())) == 3


def test_a_short_text_is_not_kept(
    tokenizer: CountingTokenizer, make_config: Any, cache: Path
) -> None:
    _loader(tokenizer, make_config, LONG[: 2**20 - 1])

    assert not cache.exists()


def _flipped(data: bytes) -> bytes:
    return data[:-7] + bytes([data[-7] ^ 1]) + data[-6:]


@pytest.mark.parametrize(
    "damage",
    [
        _flipped,
        lambda data: data[:-2],
        lambda data: data[:-1],
        lambda data: data[:100],
        lambda data: data[:512],
        lambda data: b"",
        lambda data: data.replace(b"uint16", b"uint99"),
        lambda data: data.replace(b"uint16", b"int32 "),
        lambda data: data.replace(b"gpt tokens 1", b"gpt tokens 2"),
        lambda data: data.replace(b'"sha256"', b'"sha512"'),
        lambda data: b"[1]".ljust(512) + data[512:],
        lambda data: b"\xff" * len(data),
    ],
)
def test_a_damaged_or_foreign_file_is_made_anew(
    tokenizer: CountingTokenizer, make_config: Any, cache: Path, damage: Any
) -> None:
    expected = _batches(_loader(tokenizer, make_config))
    (file,) = cache.iterdir()
    sound = file.read_bytes()
    file.write_bytes(damage(sound))
    assert file.read_bytes() != sound

    found = _batches(_loader(tokenizer, make_config))

    assert torch.equal(found, expected)
    assert tokenizer.calls == 2
    assert [each.read_bytes() for each in cache.iterdir()] == [sound]


def test_a_folder_that_cannot_be_written_is_a_warning(
    tokenizer: CountingTokenizer, make_config: Any, cache: Path
) -> None:
    cache.parent.write_text("a file where the folder should be")

    with pytest.warns(UserWarning, match="cannot be kept in .*: Not a directory; it will be"):
        loader = _loader(tokenizer, make_config)

    assert loader.get_batch("train")[0].shape == (4, 16)


def test_a_write_that_fails_leaves_nothing(
    tokenizer: CountingTokenizer, make_config: Any, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.replace", full)

    with pytest.warns(UserWarning, match="No space left on device"):
        _loader(tokenizer, make_config)

    assert list(cache.iterdir()) == []


def test_where_ids_are_kept_can_be_said(
    tokenizer: CountingTokenizer, make_config: Any, cache: Path, tmp_path: Path
) -> None:
    _loader(tokenizer, make_config, cache_dir=tmp_path / "mine")

    assert len(list((tmp_path / "mine").iterdir())) == 1
    assert not cache.exists()


def test_the_shipped_text_is_enough_for_the_defaults_and_for_old_models(
    text: str, gpt2_files: Path
) -> None:
    shipped = SAMPLE_TEXT.read_text(encoding="utf-8")

    assert shipped.startswith(text)
    assert set(shipped) == set(text)
    for kind in ("char", "gpt2"):
        tokenizer = plugins.tokenizer_kind(kind).from_text(shipped)
        GPTDataLoader(GPTConfig(device="cpu"), tokenizer).prepare_data(shipped)
