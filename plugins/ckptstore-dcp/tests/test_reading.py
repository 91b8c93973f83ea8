"""What torch.distributed.checkpoint saves is read, as it was."""

from __future__ import annotations

import io
import subprocess
import sys
from collections import Counter

import pytest
import torch
from ckptstore_dcp import DcpFormat
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

import ckptstore
from ckptstore.errors import UnsupportedError
from ckptstore.testing import MemoryFiles


def test_everything_is_read_as_it_was_saved(folder, state, same):
    checkpoint = ckptstore.open(folder)

    assert (checkpoint.format, checkpoint.step, checkpoint.proved) == ("dcp", 1500, False)
    assert checkpoint.config == state["config"]
    assert checkpoint.training_state == {"step": 1500, "loss": 2.5}
    assert same(checkpoint.load_model(), dict(state["model"]))
    assert same(checkpoint.load_optimizer(), state["optimizer"])
    assert set(checkpoint.states()) == {"scheduler", "rng"}
    assert same(checkpoint.load_state("scheduler"), state["scheduler"])
    assert same(checkpoint.load_state("rng"), state["rng"])
    assert set(checkpoint.files()) == {".metadata", "__0_0.distcp"}


def test_torch_itself_reads_the_same(folder, tmp_path, same):
    dcp_to_torch_save(folder, tmp_path / "by torch.pt")
    theirs = torch.load(tmp_path / "by torch.pt", weights_only=True)

    checkpoint = ckptstore.open(folder)

    assert same(checkpoint.load_model(), theirs["model"])
    assert same(checkpoint.load_state("rng"), theirs["rng"])


def test_tensors_are_listed_by_part(folder, state):
    checkpoint = ckptstore.open(folder)

    assert set(checkpoint.tensors()) == set(state["model"])
    assert set(checkpoint.tensors("rng")) == {"torch", "list.0", "list.1.a"}
    assert "state.0.exp_avg" in checkpoint.tensors("optimizer")
    (group,) = checkpoint.structure()["optimizer"].groups
    assert (group.params, group.values["lr"], group.values["betas"]) == (4, 0.01, (0.9, 0.999))


def test_one_file_for_each_slice_is_read_too(tmp_path, saved, state, same):
    folder = saved(state, tmp_path / "many", single_file_per_rank=False)
    assert len(list(folder.iterdir())) > 20

    assert same(ckptstore.open(folder).load_model(), dict(state["model"]))


@pytest.mark.parametrize(
    "dtype",
    [
        *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
        *("float16", "bfloat16", "float32", "float64", "complex64"),
        *("float8_e4m3fn", "float8_e5m2"),
    ],
)
def test_every_dtype_is_read(tmp_path, saved, dtype):
    tensor = torch.arange(6).reshape(2, 3).to(getattr(torch, dtype))
    folder = saved({"model": {"w": tensor, "t": tensor.t(), "n": tensor[1, 1]}}, tmp_path / "x")

    checkpoint = ckptstore.open(folder)

    assert checkpoint.tensors()["w"].dtype == dtype
    for name, expected in (("w", tensor), ("t", tensor.t()), ("n", tensor[1, 1])):
        found = checkpoint.load_model()[name]
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert found.contiguous().view(-1).tolist() == expected.contiguous().view(-1).tolist()


def test_prefixes_come_off(tmp_path, saved):
    model = {"_orig_mod.w": torch.ones(2), "_orig_mod.b": torch.zeros(1)}

    checkpoint = ckptstore.open(saved({"model": model}, tmp_path / "x"))

    assert set(checkpoint.tensors()) == set(checkpoint.load_model()) == {"w", "b"}
    assert list(checkpoint.load_model(["b"])) == ["b"]


class TestSharded:
    def test_tensors_of_two_processes_are_put_together(self, two_ranks, same):
        whole = torch.load(two_ranks / "whole.pt", weights_only=True)["tensors"]

        checkpoint = ckptstore.open(two_ranks / "tensors")

        assert checkpoint.step == 7
        assert same(checkpoint.load_model(), {name: whole[name] for name in checkpoint.tensors()})
        assert set(checkpoint.tensors()) == set(whole)
        assert all(info.shape == whole[n].shape for n, info in checkpoint.tensors().items())

    def test_a_model_under_fsdp_and_its_optimizer_are_read(self, two_ranks, same):
        whole = torch.load(two_ranks / "whole.pt", weights_only=True)

        checkpoint = ckptstore.open(two_ranks / "fsdp")

        assert same(checkpoint.load_model(), whole["model"])
        optimizer = checkpoint.load_optimizer()
        assert same(optimizer["state"], whole["slots"])
        (group,) = optimizer["param_groups"]
        assert (set(group["params"]), group["lr"]) == (set(whole["model"]), 0.01)
        assert checkpoint.states() == ()

    def test_it_becomes_a_bundle(self, two_ranks, tmp_path, same):
        done = ckptstore.convert(two_ranks / "fsdp", tmp_path / "bundle")

        assert done.left_out == ()
        whole = torch.load(two_ranks / "whole.pt", weights_only=True)
        assert same(dict(ckptstore.open(tmp_path / "bundle").load_model()), whole["model"])

    def test_it_is_verified_slice_by_slice(self, two_ranks):
        for name in ("fsdp", "tensors"):
            report = ckptstore.open(two_ranks / name).verify()
            assert report.sound
            assert len(report.files) == 3

    def test_it_goes_to_another_device(self, two_ranks, same):
        checkpoint = ckptstore.open(two_ranks / "tensors")

        meta = checkpoint.load_model(map_location="meta")
        assert {name: one.shape for name, one in meta.items()} == {
            name: info.shape for name, info in checkpoint.tensors().items()
        }
        assert all(one.is_meta for one in meta.values())
        plain = checkpoint.load_model()
        for place in (
            None,
            {"cpu": "cpu"},
            lambda storage, place: None,
            torch.device("cpu"),
            lambda storage, place: storage,
        ):
            assert same(checkpoint.load_model(map_location=place), plain)
        with pytest.raises(UnsupportedError, match="map_location is 'cuda.*not available here"):
            checkpoint.load_model(["rows"], map_location="cuda:7")


CUTS = {
    "rows": [(0, 4), (4, 5), (5, 9)],
    "one": [(0, 9)],
}


@pytest.mark.parametrize("rows", CUTS)
@pytest.mark.parametrize("columns", [[(0, 6)], [(0, 1), (1, 6)], [(0, 2), (2, 4), (4, 6)]])
def test_any_grid_of_chunks_is_put_together(tmp_path, crafted, rows, columns):
    whole = torch.randn(9, 6)
    chunks = [
        ((top, left), whole[top:bottom, left:right].clone())
        for left, right in columns
        for top, bottom in CUTS[rows]
    ]

    folder = crafted(tmp_path / "x", {"model.w": ((9, 6), chunks)})

    assert torch.equal(ckptstore.open(folder).load_model()["w"], whole)


def test_chunks_that_are_no_grid_are_put_together(tmp_path, crafted):
    whole = torch.randn(3, 3)
    boxes = [(0, 1, 0, 2), (0, 2, 2, 3), (2, 3, 1, 3), (1, 3, 0, 1), (1, 2, 1, 2)]
    chunks = [((a, c), whole[a:b, c:d].clone()) for a, b, c, d in boxes]

    folder = crafted(tmp_path / "x", {"model.w": ((3, 3), chunks)})

    assert torch.equal(ckptstore.open(folder).load_model()["w"], whole)


def test_empty_tensors_and_empty_chunks_are_read(tmp_path, crafted, saved):
    row = torch.ones(1, 3)
    chunks = [((0, 0), row), ((1, 0), row[:0])]
    crafted(tmp_path / "x", {"model.w": ((1, 3), chunks)})
    saved({"model": {"empty": torch.empty(0, 3)}}, tmp_path / "y")

    assert torch.equal(ckptstore.open(tmp_path / "x").load_model()["w"], row)
    assert ckptstore.open(tmp_path / "y").load_model()["empty"].shape == (0, 3)


class TestWhatIsRead:
    class Counting(MemoryFiles):
        def __init__(self, folder):
            super().__init__({path.name: path.read_bytes() for path in folder.iterdir()})
            self.read = Counter()

        def open(self, name):
            outer = self

            class Counted(io.BytesIO):
                def read(self, size=-1, /):
                    data = super().read(size)
                    outer.read[name] += len(data)
                    return data

                def readinto(self, buffer, /):
                    count = super().readinto(buffer)
                    outer.read[name] += count
                    return count

            return Counted(self.data[name])

    @pytest.fixture
    def large(self, tmp_path, saved):
        model = {f"w{number}": torch.full((2**19,), float(number)) for number in range(8)}
        return saved({"model": model, "step": 3}, tmp_path / "large")

    def test_opening_and_listing_read_no_weights(self, large):
        files = self.Counting(large)
        reader = DcpFormat().read(files)
        reader.tensors()

        assert reader.step == 3
        assert files.read["__0_0.distcp"] <= 2**18

    def test_one_tensor_reads_its_own_slice(self, large):
        files = self.Counting(large)
        reader = DcpFormat().read(files)
        files.read.clear()

        assert reader.load_model(["w5"])["w5"][0] == 5
        assert 2**21 < files.read["__0_0.distcp"] < 2**21 + 2**18

    def test_it_is_opened_without_torch(self, folder):
        code = f"""
import sys, ckptstore
checkpoint = ckptstore.open({str(folder)!r})
checkpoint.tensors(), checkpoint.tensors("optimizer"), checkpoint.structure()
assert (checkpoint.step, checkpoint.config["n_layer"]) == (1500, 2)
checkpoint.verify()
sys.exit("torch" in sys.modules)
"""
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    def test_a_tensor_of_chunks_has_no_second_copy(self, tmp_path, crafted):
        rows = torch.ones(2**22, 4)
        chunks = [((start, 0), rows[start : start + 2**20]) for start in range(0, 2**22, 2**20)]
        crafted(tmp_path / "x", {"model.w": (rows.shape, [(o, c.clone()) for o, c in chunks])})
        code = f"""
import sys, ckptstore, torch
from ckptstore import tensors
checkpoint = ckptstore.open({str(tmp_path / "x")!r})
def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024
before = peak()
found = checkpoint.load_model()["w"]
grown = peak() - before
assert found.nbytes == 2**26 and bool(found.all())
assert grown < 1.4 * 2**26, grown
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


class TestOnS3:
    def test_it_is_read_and_converted_there(self, folder, state, uploaded, server, tmp_path, same):
        url, options = uploaded(folder), server.storage_options

        checkpoint = ckptstore.open(url, storage_options=options)

        assert (checkpoint.format, checkpoint.step) == ("dcp", 1500)
        assert same(checkpoint.load_model(), dict(state["model"]))
        assert same(checkpoint.load_optimizer(), state["optimizer"])
        assert checkpoint.verify().sound
        done = ckptstore.convert(url, server.url("bundle"), storage_options=options)
        assert done.left_out == ()
        bundle = ckptstore.open(done.destination, storage_options=options)
        assert same(bundle.load_optimizer(), state["optimizer"])

    def test_shards_are_put_together_there(self, two_ranks, uploaded, server, same):
        url = uploaded(two_ranks / "tensors")
        whole = torch.load(two_ranks / "whole.pt", weights_only=True)["tensors"]

        found = ckptstore.open(url, storage_options=server.storage_options).load_model()

        assert same(found, {name: whole[name] for name in found})

    def test_torch_saves_there_by_itself(self, state, server, same):
        import torch.distributed.checkpoint as dcp
        from torch.distributed.checkpoint._fsspec_filesystem import FsspecWriter

        url, options = server.url("torchs own"), server.storage_options
        client = {"endpoint_url": options["endpoint_url"], "region_name": "us-east-1"}
        writer = FsspecWriter(
            url,
            sync_files=False,
            key=options["key"],
            secret=options["secret"],
            client_kwargs=client,
        )
        dcp.save(dict(state), storage_writer=writer, no_dist=True)

        found = ckptstore.open(url, storage_options=options)

        assert same(found.load_model(), dict(state["model"]))


def test_a_bundle_has_everything(folder, state, tmp_path, same):
    done = ckptstore.convert(folder, tmp_path / "bundle")

    bundle = ckptstore.open(tmp_path / "bundle")
    assert (done.left_out, bundle.step, bundle.config) == ((), 1500, state["config"])
    assert same(dict(bundle.load_model()), dict(state["model"]))
    assert same(bundle.load_optimizer(), state["optimizer"])
    assert same(bundle.load_state("rng"), state["rng"])
    assert bundle.training_state["loss"] == 2.5


def test_beside_a_bundle_in_its_folder_the_bundle_wins(folder):
    ckptstore.convert(folder)

    assert ckptstore.open(folder).format == "bundle"


def test_a_model_is_restored(folder, state, same):
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.LayerNorm(3))
    optimizer = torch.optim.AdamW(model.parameters())

    ckptstore.open(folder).restore(model=model, optimizer=optimizer)

    assert same(dict(model.state_dict()), dict(state["model"]))
    assert same(optimizer.state_dict(), state["optimizer"])


class TestInPlace:
    """The chunks are read into the memory of a model that is there."""

    @pytest.fixture
    def model(self):
        return torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))

    def test_shards_go_straight_into_a_model(self, two_ranks, model, same):
        places = [one.data_ptr() for one in model.parameters()]

        ckptstore.open(two_ranks / "fsdp").restore(model=model, atomic=True)

        whole = torch.load(two_ranks / "whole.pt", weights_only=True)["model"]
        assert same(dict(model.state_dict()), dict(whole))
        assert [one.data_ptr() for one in model.parameters()] == places

    def test_a_model_of_another_dtype_is_filled_too(self, two_ranks, model):
        ckptstore.open(two_ranks / "fsdp").restore(model=model.double())

        whole = torch.load(two_ranks / "whole.pt", weights_only=True)["model"]
        assert torch.equal(model[0].weight, whole["0.weight"].double())

    def test_a_model_that_does_not_fit_is_refused_and_stays(self, two_ranks, same):
        other = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 2))
        before = {name: one.clone() for name, one in other.state_dict().items()}

        with pytest.raises(UnsupportedError, match=r"2.weight"):
            ckptstore.open(two_ranks / "fsdp").restore(model=other)

        assert same(dict(other.state_dict()), before)

    @pytest.mark.parametrize("atomic", [False, True])
    def test_damage_leaves_a_model_as_it_was_where_that_is_asked_for(
        self, folder, state, same, atomic
    ):
        path = folder / "__0_0.distcp"
        data = bytearray(path.read_bytes())
        data[data.find(state["model"]["1.weight"].numpy().tobytes())] ^= 1
        path.write_bytes(bytes(data))
        model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.LayerNorm(3))
        before = {name: one.clone() for name, one in model.state_dict().items()}

        with pytest.raises(ckptstore.CorruptionError, match="'model.1.weight' in") as caught:
            ckptstore.open(folder).restore(model=model, atomic=atomic)

        assert same(dict(model.state_dict()), before) is atomic
        assert ("the model holds a part of what was read" in str(caught.value)) is not atomic


def test_it_is_not_synced_but_converted(folder, tmp_path):
    with pytest.raises(UnsupportedError, match="is a dcp checkpoint; ckptstore convert"):
        ckptstore.sync(folder, tmp_path / "copy")
