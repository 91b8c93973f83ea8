"""What is saved is what plain torch reads, and what is loaded is what was saved."""

from __future__ import annotations

import io
import shutil
import subprocess
import zipfile
from collections import OrderedDict

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ckptstore import tensors

DTYPES = [
    *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "complex32", "complex64", "complex128"),
    *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
]
pytestmark = pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")


def plainly(data):
    return torch.load(io.BytesIO(data), weights_only=True)


def bits(tensor):
    return bytes(
        tensor.detach()
        .clone(memory_format=torch.contiguous_format)
        .reshape(-1)
        .view(torch.uint8)
        .tolist()
    )


def same(one, other):
    return (
        one.dtype == other.dtype
        and one.shape == other.shape
        and one.requires_grad == other.requires_grad
        and type(one) is type(other)
        and bits(one) == bits(other)
    )


def random_tensor(name, *shape):
    dtype = getattr(torch, name)
    count = max(1, torch.Size(shape).numel()) * dtype.itemsize
    raw = torch.randint(0, 2 if name == "bool" else 256, (count,), dtype=torch.uint8)
    return raw.view(dtype)[: torch.Size(shape).numel()].clone().reshape(shape)


@pytest.mark.parametrize("shape", [(3, 5), (), (0,), (2, 0, 3)], ids=str)
@pytest.mark.parametrize("name", DTYPES)
def test_every_dtype_round_trips_bit_for_bit(saved, loaded, name, shape):
    tensor = random_tensor(name, *shape)

    data = saved({"x": tensor})

    for read in (plainly(data), loaded(data), loaded(data, names=["x"])):
        assert same(read["x"], tensor)


def test_parameters_stay_parameters(saved, loaded):
    state = {
        "p": torch.nn.Parameter(torch.ones(2)),
        "frozen": torch.nn.Parameter(torch.ones(2), requires_grad=False),
        "leaf": torch.ones(2, requires_grad=True),
    }

    data = saved(state)

    for read in (plainly(data), loaded(data), loaded(data, names=list(state))):
        assert all(same(read[name], tensor) for name, tensor in state.items())


def test_tied_tensors_are_written_once_and_stay_tied(saved, loaded):
    weight = torch.randn(1000)
    state = {"a": weight, "b": weight.view(10, 100), "c": weight[:500]}

    data = saved(state)

    assert len(data) < 1.5 * weight.nbytes
    for read in (plainly(data), loaded(data), loaded(data, names=["a", "b", "c"])):
        read["a"][0] = 7.0
        assert read["b"][0, 0] == read["c"][0] == 7.0


def test_transposed_and_strided_tensors_keep_their_strides(saved, loaded):
    base = torch.randn(4, 6)
    state = {"t": base.t(), "last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)}

    data = saved(state)

    for read in (plainly(data), loaded(data), loaded(data, names=list(state))):
        for name, tensor in state.items():
            assert same(read[name], tensor)
            assert read[name].stride() == tensor.stride()


@pytest.mark.parametrize(
    "view",
    [
        pytest.param(lambda t: t[3], id="a row"),
        pytest.param(lambda t: t[:, 3], id="a column"),
        pytest.param(lambda t: t[5:5], id="nothing"),
        pytest.param(lambda t: t[2, 3], id="an element"),
        pytest.param(lambda t: t[:2].t(), id="a transposed part"),
        pytest.param(lambda t: t[:1].expand(50, 300), id="an expanded row"),
        pytest.param(lambda t: torch.nn.Parameter(t[3]), id="a parameter"),
        pytest.param(lambda t: t[::100, ::100], id="some elements"),
    ],
)
def test_a_view_is_saved_without_the_rest_of_its_storage(saved, loaded, view):
    table = torch.randn(300, 300)
    tensor = view(table)

    data = saved({"x": tensor})

    assert len(data) < 6000
    for read in (plainly(data), loaded(data), loaded(data, names=["x"])):
        assert same(read["x"], tensor)


def test_views_that_share_memory_still_share_it(saved, loaded):
    table = torch.randn(300, 300)
    state = {"a": table[3:5], "b": table[4:6], "other": table[200]}

    data = saved(state)

    assert len(data) < 12_000
    read = loaded(data)
    assert all(same(read[name], tensor) for name, tensor in state.items())
    read["a"][1, 0] = 7.0
    assert read["b"][0, 0] == 7.0


def test_views_that_cover_their_storage_are_not_copied(saved):
    flat = torch.randn(1000)
    state = {"a": flat[:400], "b": flat[400:]}

    assert tensors.saving.compacted(state.values()) == {}
    assert torch.equal(plainly(saved(state))["b"], flat[400:])


def test_saving_changes_nothing_in_the_state(saved):
    row = torch.nn.Parameter(torch.randn(10, 10)[2])
    state = OrderedDict(a=row, b={"c": [row]})

    saved(state)

    assert state["a"] is row
    assert state["b"]["c"][0] is row


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.eye(3).to_sparse_csr(),
        lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        lambda: torch.ones(2, dtype=torch.complex64).conj(),
        lambda: torch.ones(2, dtype=torch.complex64).conj().imag,
    ],
    ids=["coo", "csr", "quantized", "conj", "neg"],
)
def test_uncommon_tensors_round_trip(saved, loaded, make):
    tensor = make()

    data = saved({"x": tensor, "y": torch.ones(1)})

    for read in (plainly(data), loaded(data), loaded(data, names=["x"])):
        assert read["x"].layout == tensor.layout
        if tensor.layout is torch.strided:
            assert torch.equal(read["x"], tensor)
        else:
            assert torch.equal(read["x"].to_dense(), tensor.to_dense())


def test_an_optimizer_goes_on_exactly(saved, loaded):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(3):
        model(torch.randn(2, 4)).sum().backward()
        optimizer.step()

    state = loaded(saved(optimizer.state_dict()))

    again = torch.optim.AdamW(model.parameters(), lr=1.0)
    again.load_state_dict(state)
    assert again.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]
    for key, values in optimizer.state_dict()["state"].items():
        assert all(same(again.state_dict()["state"][key][n], v) for n, v in values.items())


def test_the_states_that_training_has_are_saved(saved, loaded):
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    states = {
        "rng": {"torch": torch.get_rng_state(), "python": __import__("random").getstate()},
        "schedule": schedule.state_dict(),
        "scaler": torch.amp.GradScaler("cpu").state_dict(),
    }

    read = loaded(saved(states))

    assert torch.equal(read["rng"]["torch"], states["rng"]["torch"])
    assert read["rng"]["python"] == states["rng"]["python"]
    assert read["schedule"] == states["schedule"]
    assert read["scaler"] == states["scaler"]


def test_module_versions_survive(saved, loaded):
    state = torch.nn.BatchNorm1d(2).state_dict()

    assert loaded(saved(state))._metadata == state._metadata
    assert loaded(saved(state), part=lambda root: root)._metadata == state._metadata


def test_equal_states_give_equal_bytes_also_after_a_load(saved, loaded):
    model = torch.nn.Linear(4, 3)
    optimizer = torch.optim.AdamW([{"params": [model.weight]}, {"params": [model.bias], "lr": 0.1}])
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    state = {"optimizer": optimizer.state_dict(), "note": "exp_avg", "".join(["st", "ep"]): 1}

    first = saved(state)

    assert saved(state) == first
    assert saved(loaded(first)) == first
    assert saved(plainly(first)) == first


def test_any_unzip_finds_the_archive_whole(saved, tmp_path):
    data = saved({"a": torch.randn(100), "b": torch.empty(0)})
    torch.serialization.set_crc32_options(False)
    try:
        unchecked = saved({"a": torch.randn(100), "b": torch.empty(0)})
        assert not torch.serialization.get_crc32_options()
    finally:
        torch.serialization.set_crc32_options(True)

    for written in (data, unchecked):
        with zipfile.ZipFile(io.BytesIO(written)) as archive:
            assert archive.testzip() is None
    if shutil.which("unzip"):
        path = tmp_path / "model.pt"
        path.write_bytes(data)
        done = subprocess.run(["unzip", "-t", str(path)], capture_output=True, text=True)
        assert "No errors detected" in done.stdout


def test_the_expected_size_is_about_the_size(saved):
    table = torch.randn(300, 300)
    for state in ({"x": table, "tied": table}, {"x": table[3]}, {"n": list(range(100))}):
        assert len(saved(state)) <= tensors.checked(state).size <= len(saved(state)) + 20_000


# -- anything ------------------------------------------------------------------------------

VIEWS = [
    lambda t: t,
    lambda t: t.t(),
    lambda t: t[1:],
    lambda t: t[:, ::2],
    lambda t: t[:1].expand(3, -1),
    lambda t: t[0, 0],
    lambda t: t[:0],
    lambda t: t.reshape(-1),
]
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()


@st.composite
def states(draw):
    torch.manual_seed(draw(st.integers(0, 100)))
    rows, columns = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    bases = [
        random_tensor(draw(st.sampled_from(DTYPES)), rows, columns)
        for _ in range(draw(st.integers(1, 3)))
    ]
    tensor = st.builds(
        lambda base, view: view(base), st.sampled_from(bases), st.sampled_from(VIEWS)
    )
    value = st.recursive(
        tensor | LEAVES,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=3)
            | st.tuples(inner, inner)
        ),
        max_leaves=6,
    )
    return draw(st.dictionaries(st.text(max_size=5), value, max_size=4))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(state=states())
def test_save_and_load_are_what_torchs_are(saved, loaded, state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    expected = plainly(buffer.getvalue())

    data = saved(state)

    for read in (plainly(data), loaded(data), loaded(data, part=lambda root: root)):
        assert list(read) == list(expected)
        for name, value in expected.items():
            assert agree(read[name], value)


def agree(one, other):
    if isinstance(one, torch.Tensor):
        return same(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(agree(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and all(map(agree, one, other))
    return type(one) is type(other) and one == other
