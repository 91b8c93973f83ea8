"""Folders that lie, are damaged, or want to run something: one clear error, and nothing is run."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import pickle
import subprocess
import sys

import pytest
import torch
from torch.distributed.checkpoint import metadata as described
from torch.distributed.checkpoint.filesystem import _StorageInfo

import ckptstore
from ckptstore.errors import CorruptionError, UnsafeError, UnsupportedError


def everything(folder):
    """Open a folder, and load all that is in it."""
    checkpoint = ckptstore.open(folder)
    checkpoint.load_model()
    checkpoint.load_optimizer()
    for name in checkpoint.states():
        checkpoint.load_state(name)


def replaced(metadata, fqn, **changes):
    """Change where a name's slices are said to be."""
    for index, info in metadata.storage_data.items():
        if index.fqn == fqn:
            metadata.storage_data[index] = dataclasses.replace(info, **changes)


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


class TestPickles:
    @pytest.mark.parametrize("place", ["planner_data", "storage_data", "storage_meta", "extra"])
    def test_no_metadata_runs_anything(self, folder, tmp_path, altered, place):
        mark = tmp_path / "mark"
        altered(folder, lambda metadata: setattr(metadata, place, {"a": Evil(mark)}))

        with pytest.raises(
            UnsafeError, match=r"\.metadata in .* more than plain data \(\w+\.mkdir"
        ):
            ckptstore.open(folder)

        assert not mark.exists()

    def test_metadata_that_is_something_evil_is_not_run(self, folder, tmp_path, altered):
        altered(folder, lambda metadata: Evil(tmp_path / "mark"))

        with pytest.raises(UnsafeError, match="mkdir"):
            ckptstore.open(folder)

        assert not (tmp_path / "mark").exists()

    def test_a_class_of_torchs_that_is_not_on_the_list_is_refused(self, folder, altered):
        altered(folder, lambda metadata: setattr(metadata, "extra", torch.nn.Identity))

        with pytest.raises(UnsafeError, match="torch.nn.modules.linear.Identity"):
            ckptstore.open(folder)

    def test_an_object_that_would_run_something_is_refused_when_it_is_loaded(
        self, tmp_path, saved, state
    ):
        more = {"args": argparse.Namespace(lr=1), "evil": Evil(tmp_path / "mark")}
        folder = saved({"model": state["model"], "step": 3, **more}, tmp_path / "x")

        checkpoint = ckptstore.open(folder)

        assert checkpoint.step == 3
        assert len(checkpoint.load_model()) == 4
        for name, refused in (("args", "argparse.Namespace"), ("evil", "mkdir")):
            with pytest.raises(UnsafeError, match=f"'{name}' in __0_0.distcp .*{refused}"):
                checkpoint.load_state(name)
        assert not (tmp_path / "mark").exists()

    @pytest.mark.parametrize(
        "value",
        [
            None,
            {"state_dict_metadata": {}},
            [],
            described.BytesStorageMetadata(),
            described.Metadata({}, None, None),
            described.Metadata({}, None, {}),
            described.Metadata({"model.w": None}, None, {}),
            described.Metadata({1: described.BytesStorageMetadata()}, None, {}),
            described.Metadata({"a": described.BytesStorageMetadata()}, [1], {}),
            described.Metadata({"a": described.BytesStorageMetadata()}, {"a": ()}, {}),
            described.Metadata({"a": described.BytesStorageMetadata()}, {"a": (None,)}, {}),
            described.Metadata({"a": described.BytesStorageMetadata()}, {"a": ("x",) * 99}, {}),
            described.Metadata({}, {}, {"a": _StorageInfo("x", 0, 1)}),
            described.Metadata({}, {}, {described.MetadataIndex("a"): None}),
            described.Metadata({}, {}, {described.MetadataIndex("a"): _StorageInfo("x", -1, 1)}),
            described.Metadata({}, {}, {described.MetadataIndex("a"): _StorageInfo("x", 0, 1.5)}),
        ],
    )
    def test_metadata_that_is_none_is_damage(self, folder, altered, value):
        (folder / ".metadata").write_bytes(pickle.dumps(value))

        with pytest.raises((CorruptionError, UnsupportedError), match=r"\.metadata in "):
            ckptstore.open(folder)

    def test_metadata_that_is_cut_off_is_damage(self, folder):
        whole = (folder / ".metadata").read_bytes()
        for length in range(0, len(whole), 97):
            (folder / ".metadata").write_bytes(whole[:length])
            with pytest.raises(CorruptionError, match=r"\.metadata in "):
                ckptstore.open(folder)

    def test_changed_bytes_are_an_error_of_ours_or_harmless(self, folder):
        whole = bytearray((folder / ".metadata").read_bytes())
        for at in range(0, len(whole), 53):
            data = bytearray(whole)
            data[at] ^= 0x15
            (folder / ".metadata").write_bytes(bytes(data))
            with contextlib.suppress(ckptstore.CkptstoreError):
                everything(folder)

    @pytest.mark.parametrize(
        "bomb",
        [
            b"\x80\x04" + b"(" * 900_000 + b".",
            b"\x80\x04]\x94" + b"(h\x00h\x00e" * 150_000 + b".",
            b"\x80\x04" + b"]" * 200_000 + b"a" * 199_999 + b".",
        ],
    )
    def test_nested_bombs_are_damage(self, folder, bomb):
        (folder / ".metadata").write_bytes(bomb)

        with pytest.raises(CorruptionError, match=r"\.metadata in "):
            ckptstore.open(folder)


class TestPlaces:
    @pytest.mark.parametrize(
        "name", ["../x.distcp", "/etc/passwd", "a/b.distcp", "..", "", "C:x", "a\\b", "a\0b"]
    )
    def test_a_file_elsewhere_is_refused(self, folder, altered, name):
        altered(folder, lambda metadata: replaced(metadata, "model.0.weight", relative_path=name))

        with pytest.raises(UnsafeError, match="not a plain file name"):
            ckptstore.open(folder)

    def test_a_name_that_is_no_text_is_refused(self, folder, altered):
        altered(folder, lambda metadata: replaced(metadata, "model.0.weight", relative_path=7))

        with pytest.raises(CorruptionError, match="a int where a name belongs"):
            ckptstore.open(folder)

    def test_a_link_that_leads_elsewhere_is_not_followed(self, folder, tmp_path):
        os.rename(folder / "__0_0.distcp", tmp_path / "elsewhere")
        os.symlink(tmp_path / "elsewhere", folder / "__0_0.distcp")

        with pytest.raises(UnsafeError, match="'__0_0.distcp', a link that leads out of"):
            ckptstore.open(folder).load_model()

    def test_a_file_that_is_missing_is_named(self, folder, two_ranks, tmp_path):
        other = tmp_path / "other"
        other.mkdir()
        for name in (".metadata", "__0_0.distcp"):
            (other / name).write_bytes((two_ranks / "fsdp" / name).read_bytes())

        checkpoint = ckptstore.open(other)

        assert len(checkpoint.tensors()) == 4
        with pytest.raises(CorruptionError, match="names '__1_0.distcp', which is not there"):
            checkpoint.load_model()
        report = checkpoint.verify()
        assert not report.sound
        assert "'__1_0.distcp', which is not there" in report.files[0].detail

    def test_a_file_that_is_cut_off_is_named(self, folder):
        path = folder / "__0_0.distcp"
        path.write_bytes(path.read_bytes()[:-10])

        with pytest.raises(CorruptionError, match="__0_0.distcp in .* is truncated: it has"):
            everything(folder)
        assert not ckptstore.open(folder).verify().sound

    @pytest.mark.parametrize("changes", [{"offset": 2**62}, {"length": 2**62}])
    def test_a_slice_beyond_the_file_is_refused(self, folder, altered, changes):
        def alter(metadata):
            last = max(metadata.storage_data.values(), key=lambda info: info.offset)
            for index, info in metadata.storage_data.items():
                if info is last:
                    metadata.storage_data[index] = dataclasses.replace(info, **changes)

        altered(folder, alter)

        with pytest.raises(CorruptionError, match="is truncated: it has"):
            everything(folder)

    def test_slices_that_share_bytes_are_refused(self, folder, altered):
        altered(folder, lambda metadata: replaced(metadata, "model.0.weight", offset=5))

        with pytest.raises(CorruptionError, match=r"slices of '.*' and '.*' in __0_0.distcp share"):
            ckptstore.open(folder)

    def test_a_slice_of_another_name_is_found_out(self, folder, altered):
        def swap(metadata):
            places = {index.fqn: index for index in metadata.storage_data}
            one, two = places["model.0.weight"], places["model.0.bias"]
            data = metadata.storage_data
            data[one], data[two] = data[two], data[one]

        altered(folder, swap)

        with pytest.raises(
            CorruptionError, match="holds float32 of .* where float32 of .* belongs"
        ):
            ckptstore.open(folder).load_model()

    def test_a_slice_that_is_not_named_is_missed(self, folder, altered):
        def forget(metadata):
            for index in list(metadata.storage_data):
                if index.fqn == "model.0.bias":
                    del metadata.storage_data[index]

        altered(folder, forget)

        checkpoint = ckptstore.open(folder)
        with pytest.raises(CorruptionError, match="does not say where 'model.0.bias' is"):
            checkpoint.load_model()
        assert "does not say where 'model.0.bias' is" in checkpoint.verify().files[0].detail

    def test_one_flipped_bit_is_found(self, folder, state):
        path = folder / "__0_0.distcp"
        data = bytearray(path.read_bytes())
        data[data.find(state["model"]["0.weight"].numpy().tobytes())] ^= 1
        path.write_bytes(bytes(data))

        checkpoint = ckptstore.open(folder)

        with pytest.raises(
            CorruptionError, match="'model.0.weight' in __0_0.distcp is damaged: its"
        ):
            checkpoint.load_model()
        assert checkpoint.load_model(["0.bias"])
        report = checkpoint.verify()
        assert not report.sound
        assert "'model.0.weight' in __0_0.distcp" in report.files[1].detail

    def test_a_flipped_bit_in_a_chunk_is_found_and_speaks_of_no_model(self, two_ranks, tmp_path):
        other = tmp_path / "other"
        other.mkdir()
        for path in (two_ranks / "tensors").iterdir():
            (other / path.name).write_bytes(path.read_bytes())
        data = bytearray((other / "__1_0.distcp").read_bytes())
        data[len(data) // 2] ^= 1
        (other / "__1_0.distcp").write_bytes(bytes(data))

        with pytest.raises(CorruptionError, match="'model.large.*' in __1_0") as caught:
            ckptstore.open(other).load_model()
        assert "the model holds" not in str(caught.value)


class TestChunks:
    @pytest.fixture
    def whole(self):
        return torch.arange(24.0).reshape(6, 4)

    def refused(self, folder, match):
        with pytest.raises(CorruptionError, match=match):
            ckptstore.open(folder).load_model()
        assert not ckptstore.open(folder).verify().sound

    def test_a_gap_is_found(self, tmp_path, crafted, whole):
        chunks = [((0, 0), whole[:2].clone()), ((3, 0), whole[3:].clone())]

        crafted(tmp_path / "x", {"model.w": ((6, 4), chunks)})

        self.refused(tmp_path / "x", r"'model.w' has the shape \[6, 4\], and its chunks have 20 of")

    def test_an_overlap_is_found(self, tmp_path, crafted, whole):
        chunks = [((0, 0), whole[:4].clone()), ((2, 0), whole[2:4].clone())]

        crafted(tmp_path / "x", {"model.w": ((6, 4), chunks)})

        self.refused(tmp_path / "x", r"the chunks at \[0, 0\] and \[2, 0\] overlap")

    def test_a_chunk_that_stands_there_twice_is_found(self, tmp_path, crafted, whole, altered):
        crafted(tmp_path / "x", {"model.w": ((6, 4), [((0, 0), whole)])})

        def twice(metadata):
            entry = metadata.state_dict_metadata["model.w"]
            entry.chunks = entry.chunks * 2

        altered(tmp_path / "x", twice)

        self.refused(tmp_path / "x", r"the chunks at \[0, 0\] and \[0, 0\] overlap")

    def test_two_scalars_are_one_too_many(self, tmp_path, crafted, altered):
        crafted(tmp_path / "x", {"model.w": ((), [((), torch.tensor(1.0))])})

        def twice(metadata):
            entry = metadata.state_dict_metadata["model.w"]
            entry.chunks = entry.chunks * 2

        altered(tmp_path / "x", twice)

        self.refused(tmp_path / "x", r"the shape \[\], and it has several chunks")

    def test_a_chunk_outside_is_found(self, tmp_path, crafted, whole):
        chunks = [((0, 0), whole[:3].clone()), ((4, 0), whole[3:].clone())]

        crafted(tmp_path / "x", {"model.w": ((6, 4), chunks)})

        self.refused(tmp_path / "x", r"the chunk at \[4, 0\] reaches out of it")

    def test_a_chunk_of_another_dtype_is_found(self, tmp_path, crafted, whole):
        chunks = [((0, 0), whole[:3].clone()), ((3, 0), whole[3:].to(torch.float64))]

        crafted(tmp_path / "x", {"model.w": ((6, 4), chunks)})

        with pytest.raises(CorruptionError, match="it holds float64 of .* where float32 of"):
            ckptstore.open(tmp_path / "x").load_model()

    def test_an_absurd_shape_takes_no_memory(self, tmp_path, crafted, whole, altered):
        crafted(tmp_path / "x", {"model.w": ((6, 4), [((0, 0), whole)])})

        def grow(metadata):
            entry = metadata.state_dict_metadata["model.w"]
            entry.size = entry.chunks[0].sizes = torch.Size([2**40, 4])

        altered(tmp_path / "x", grow)

        with pytest.raises(CorruptionError, match="bytes, too few for its elements"):
            ckptstore.open(tmp_path / "x").load_model()

    def test_a_shape_that_no_tensor_has_is_refused(self, tmp_path, crafted, whole, altered):
        crafted(tmp_path / "x", {"model.w": ((6, 4), [((0, 0), whole)])})

        def grow(metadata):
            metadata.state_dict_metadata["model.w"].size = torch.Size([2**40, 2**40])

        altered(tmp_path / "x", grow)

        with pytest.raises(CorruptionError, match="a size that no tensor has"):
            ckptstore.open(tmp_path / "x")

    def test_too_many_chunks_side_by_side_are_given_up(self, monkeypatch):
        from ckptstore_dcp.metadata import Chunk, Entry

        from ckptstore.formats import covering

        monkeypatch.setattr(covering, "_MOST_COMPARED", 100)
        # Each begins elsewhere in the first dimension, and all reach to its end.
        chunks = tuple(Chunk((n, n), (50 - n, 1), None) for n in range(50))

        with pytest.raises(UnsupportedError, match="'w' in 50 chunks, too many side by side"):
            Entry("w", ("w",), "int8", (50, 50), chunks).check_covered("x")

    def test_a_chunk_without_elements_lies_within_the_tensor_too(self):
        from ckptstore_dcp.metadata import Chunk, Entry

        def entry(*empty):
            chunks = (Chunk((0, 0), (6, 4), None), Chunk(empty, (0, 4), None))
            return Entry("w", ("w",), "int8", (6, 4), chunks)

        entry(6, 0).check_covered("x")
        with pytest.raises(CorruptionError, match=r"the chunk at \[7, 0\] reaches out of it"):
            entry(7, 0).check_covered("x")

    def test_the_chunks_of_a_large_mesh_are_checked(self):
        from ckptstore_dcp.metadata import Chunk, Entry

        chunks = tuple(Chunk((r, c), (1, 1), None) for r in range(40) for c in range(40))

        Entry("w", ("w",), "int8", (40, 40), chunks).check_covered("x")
        with pytest.raises(CorruptionError, match="1599 of its 1600 elements"):
            Entry("w", ("w",), "int8", (40, 40), chunks[1:]).check_covered("x")

    def test_lists_with_gaps_take_no_memory(self, folder, altered):
        def gape(metadata):
            path = metadata.planner_data["rng.list.0"]
            metadata.planner_data["rng.list.0"] = (*path[:-1], 2**40)

        altered(folder, gape)

        with pytest.raises(CorruptionError, match="more gaps than elements"):
            ckptstore.open(folder).load_state("rng")

    def test_paths_that_contradict_each_other_are_refused(self, folder, altered):
        def contradict(metadata):
            metadata.planner_data["rng.list.0"] = ("rng", "torch", 0)

        altered(folder, contradict)

        with pytest.raises(CorruptionError, match="one value and several at once"):
            ckptstore.open(folder).load_state("rng")

    def test_names_in_a_list_are_refused(self, folder, altered):
        def mix(metadata):
            metadata.planner_data["rng.list.0"] = ("rng", "list", "name")

        altered(folder, mix)

        with pytest.raises(CorruptionError, match="a list with names in it"):
            ckptstore.open(folder).load_state("rng")

    def test_two_values_of_one_path_are_refused(self, folder, altered):
        def double(metadata):
            metadata.planner_data["model.0.bias"] = metadata.planner_data["model.0.weight"]

        altered(folder, double)

        with pytest.raises(CorruptionError, match="one value and several at once"):
            ckptstore.open(folder)


class TestWhatIsNotRead:
    def test_compressed_slices_are_refused_and_named(self, folder, altered):
        altered(
            folder,
            lambda metadata: replaced(
                metadata, "model.0.weight", transform_descriptors=["stream.zstd/1"]
            ),
        )

        checkpoint = ckptstore.open(folder)

        assert len(checkpoint.tensors()) == 4
        with pytest.raises(UnsupportedError, match="went through 'stream.zstd/1', which is not"):
            checkpoint.load_model()
        assert "1 are compressed" in checkpoint.verify().files[1].detail

    def test_tensors_that_are_not_dense_are_refused(self, folder, altered):
        def sparse(metadata):
            entry = metadata.state_dict_metadata["model.0.weight"]
            entry.properties.layout = torch.sparse_coo

        altered(folder, sparse)

        with pytest.raises(UnsupportedError, match="'model.0.weight' in the layout.*sparse_coo"):
            ckptstore.open(folder)

    def test_a_folder_whose_save_was_not_finished_is_no_checkpoint(self, folder):
        os.rename(folder / ".metadata", folder / ".metadata.tmp")

        with pytest.raises(ckptstore.NotFoundError, match=r"it holds .metadata.tmp, __0_0.distcp"):
            ckptstore.open(folder)

    def test_a_description_without_slices_is_no_checkpoint(self, folder):
        os.remove(folder / "__0_0.distcp")

        with pytest.raises(ckptstore.NotFoundError, match=r"it holds .metadata, and no model.pt"):
            ckptstore.open(folder)


def test_the_command_line_says_it_in_one_line(folder, altered):
    altered(folder, lambda metadata: setattr(metadata, "extra", print))
    command = [sys.executable, "-m", "ckptstore", "inspect", str(folder)]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 5
    assert done.stderr.count("\n") == 1
    assert "builtins.print" in done.stderr
