"""Against the safetensors library itself: it reads what we write, and we read what it writes."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, load_model, save_file, save_model

import ckptstore

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.bool),
    *(torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint16, torch.uint32, torch.uint64),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
]


def some(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """Return a tensor of any bytes that the dtype allows."""
    count = torch.empty(shape, dtype=dtype).numel() * dtype.itemsize
    most = 2 if dtype is torch.bool else 256
    data = torch.randint(0, most, (count,), dtype=torch.uint8)
    return data.view(dtype).reshape(shape) if count else torch.empty(shape, dtype=dtype)


def same(one: torch.Tensor, two: torch.Tensor) -> bool:
    raw = (one.reshape(-1).contiguous(), two.reshape(-1).contiguous())
    return (one.dtype, one.shape) == (two.dtype, two.shape) and (
        not one.numel() or torch.equal(*(tensor.view(torch.uint8) for tensor in raw))
    )


@pytest.fixture
def everything() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    state = {}
    for dtype in DTYPES:
        name = str(dtype).removeprefix("torch.")
        state |= {f"{name}.odd": some(dtype, 3), f"{name}.0d": some(dtype)}
        state |= {f"{name}.empty": some(dtype, 0, 5), f"{name}.deep": some(dtype, 2, 1, 3)}
    return state


def test_the_library_reads_every_dtype_and_shape_that_is_written(tmp_path, everything):
    ckptstore.save(tmp_path / "run", model=everything, format="safetensors")

    found = load_file(tmp_path / "run/model.safetensors")
    assert found.keys() == everything.keys()
    assert all(same(found[name], everything[name]) for name in everything)
    with safe_open(tmp_path / "run/model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"author": "somebody", "": "x"}])
def test_what_the_library_writes_is_read(tmp_path, everything, metadata):
    save_file(everything, tmp_path / "model.safetensors", metadata=metadata)

    for location in (tmp_path, tmp_path / "model.safetensors"):
        checkpoint = ckptstore.open(location)
        found = checkpoint.load_model()
        assert checkpoint.format == "safetensors"
        assert checkpoint.tensors().keys() == found.keys() == everything.keys()
        assert all(same(found[name], everything[name]) for name in everything)
        mapped = checkpoint.load_model(mmap=True)
        assert all(same(mapped[name], everything[name]) for name in everything)


def test_what_came_of_the_library_is_written_as_it_was_read(tmp_path, everything):
    save_file(everything, tmp_path / "model.safetensors")

    done = ckptstore.convert(tmp_path / "model.safetensors", tmp_path / "new", "safetensors")

    assert done.changed
    found = load_file(tmp_path / "new/model.safetensors")
    assert all(same(found[name], everything[name]) for name in everything)


class Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wte = torch.nn.Embedding(5, 3)
        self.norm = torch.nn.LayerNorm(3)
        self.lm_head = torch.nn.Linear(3, 5, bias=False)
        self.lm_head.weight = self.wte.weight


def test_tied_tensors_are_written_once_and_both_names_come_back(tmp_path):
    model = Tied()

    checkpoint = ckptstore.save(tmp_path / "run", model=model, format="safetensors")

    loaded = load_file(tmp_path / "run/model.safetensors")
    assert loaded.keys() == {"wte.weight", "norm.weight", "norm.bias"}
    found = checkpoint.load_model()
    assert set(found) == set(model.state_dict()) == set(checkpoint.tensors())
    assert found["wte.weight"].data_ptr() == found["lm_head.weight"].data_ptr()
    assert torch.equal(found["lm_head.weight"], model.lm_head.weight)
    assert checkpoint.structure()["model"].ties == (("wte.weight", "lm_head.weight"),)
    assert checkpoint.load_model(["lm_head.weight"]).keys() == {"lm_head.weight"}


def test_the_librarys_own_way_with_ties_works_both_ways(tmp_path):
    model = Tied()
    ckptstore.save(tmp_path / "run", model=model, format="safetensors")
    save_model(model, tmp_path / "theirs.safetensors")

    other, third = Tied(), Tied()
    assert load_model(other, tmp_path / "run/model.safetensors") == (set(), [])
    assert torch.equal(other.lm_head.weight, model.wte.weight)
    theirs = ckptstore.open(tmp_path / "theirs.safetensors")
    assert theirs.load_model().keys() == model.state_dict().keys()
    theirs.restore(model=third)
    assert torch.equal(third.lm_head.weight, model.wte.weight)


def test_what_shares_memory_without_being_the_same_is_written_apart(tmp_path):
    base = torch.arange(24.0)
    state = {
        "one": base[:12].reshape(3, 4),
        "two": base[6:18],
        "turned": base[:12].reshape(3, 4).t(),
        "other type": base[:12].view(torch.int32),
        "row": base[20:21],
        "wide": torch.ones(1).expand(3, 4),
        "every other": base[::2],
        "twisted": torch.arange(24).reshape(2, 3, 4).permute(2, 0, 1),
        "conj": torch.tensor([1 + 2j, 3j], dtype=torch.complex64).conj(),
        "neg": torch.tensor([1 + 2j, 3j], dtype=torch.complex64).conj().imag,
    }

    checkpoint = ckptstore.save(tmp_path / "run", model=state, format="safetensors")

    for found in (checkpoint.load_model(), load_file(tmp_path / "run/model.safetensors")):
        assert found.keys() == state.keys()
        assert all(torch.equal(found[name], state[name]) for name in state)


def test_what_is_not_contiguous_is_right_in_pieces_too(tmp_path, monkeypatch):
    from ckptstore_safetensors import writing

    monkeypatch.setattr(writing, "_PIECE", 16)
    wide = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    state = {"a": wide.permute(3, 1, 0, 2), "b": wide.t() if wide.dim() == 2 else wide.mT}
    state |= {"c": torch.arange(40)[::2], "d": wide.permute(1, 0, 2, 3)[:, :1]}

    found = ckptstore.save(tmp_path / "run", model=state, format="safetensors").load_model()

    assert all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("s", torch.eye(2).to_sparse(), "the model holds a sparse_coo tensor at 's'"),
        ("m", torch.empty(2, device="meta"), "holds a meta tensor at 'm'"),
        ("c", torch.ones(2, dtype=torch.complex128), "has no complex128, which 'c' is; it has BF|"),
        ("e", {"x": 1}, "the model holds a dict at 'e', and safetensors holds tensors alone"),
        (7, torch.ones(1), "the model has the key 7, and names in safetensors are text"),
        ("__metadata__", torch.ones(1), "a tensor cannot be called '__metadata__'"),
        ("\udc80", torch.ones(1), "holds names that are Unicode, and one is not"),
    ],
)
def test_what_has_no_place_is_refused_before_anything_is_written(tmp_path, name, tensor, message):
    with pytest.raises(ckptstore.UnsupportedError, match=message):
        ckptstore.save(tmp_path / "run", model={name: tensor}, format="safetensors")

    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.filterwarnings("ignore:.*quantized tensor creation:UserWarning")
def test_a_quantized_tensor_is_refused(tmp_path):
    state = {"q": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}

    with pytest.raises(ckptstore.UnsupportedError, match="holds a quantized tensor at 'q'"):
        ckptstore.save(tmp_path / "run", model=state, format="safetensors")


def test_the_names_of_compiled_and_distributed_models_are_repaired(tmp_path):
    save_file({"module._orig_mod.w": torch.ones(2)}, tmp_path / "model.safetensors")

    checkpoint = ckptstore.open(tmp_path)

    assert set(checkpoint.tensors()) == set(checkpoint.load_model(["w"])) == {"w"}
