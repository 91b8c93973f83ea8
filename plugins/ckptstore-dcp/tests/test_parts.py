"""Which part of a saved state dict is what, in all the ways that people and versions save it."""

from __future__ import annotations

import os

import pytest
import torch
from torch.distributed._shard.sharded_tensor.metadata import TensorProperties as FormerProperties
from torch.distributed.checkpoint import metadata as described

import ckptstore
from ckptstore.errors import NotFoundError, UnsupportedError


class TestWhichPartIsWhat:
    @pytest.mark.parametrize("name", ["model", "model_state_dict", "state_dict"])
    @pytest.mark.parametrize("optimizer", ["optim", "optimizer", "optimizer_state_dict"])
    def test_parts_have_their_usual_names(self, tmp_path, saved, state, name, optimizer, same):
        parts = {name: state["model"], optimizer: state["optimizer"]}

        checkpoint = ckptstore.open(saved(parts, tmp_path / "x"))

        assert same(checkpoint.load_model(), dict(state["model"]))
        assert same(checkpoint.load_optimizer(), state["optimizer"])

    def test_parts_within_one_part_are_found(self, tmp_path, saved, state, same):
        app = {"model": state["model"], "optim": state["optimizer"], "step": 7}

        checkpoint = ckptstore.open(saved({"app": app, "extra": {"a": 1}}, tmp_path / "x"))

        assert same(checkpoint.load_model(), dict(state["model"]))
        assert same(checkpoint.load_optimizer(), state["optimizer"])
        assert (checkpoint.step, checkpoint.states()) == (7, ("extra",))

    def test_a_bare_state_dict_is_a_model(self, tmp_path, saved, state, same):
        checkpoint = ckptstore.open(saved(state["model"], tmp_path / "x"))

        assert same(checkpoint.load_model(), dict(state["model"]))
        assert (checkpoint.load_optimizer(), checkpoint.states()) == (None, ())

    def test_a_model_that_stands_among_its_other_parts_is_found(self, tmp_path, saved, state, same):
        # As torchtitan does, whose step is a tensor.
        train = {"step": torch.tensor(9, dtype=torch.int32), "seen": torch.tensor(5)}
        parts = {**state["model"], "optimizer": state["optimizer"], "train_state": train}

        checkpoint = ckptstore.open(saved(parts, tmp_path / "x"))

        assert same(checkpoint.load_model(), dict(state["model"]))
        assert same(checkpoint.load_optimizer(), state["optimizer"])
        assert checkpoint.step == 9
        assert same(checkpoint.load_state("train_state"), train)

    def test_names_of_parameters_stay_the_keys_of_an_optimizer(self, tmp_path, saved, same):
        optimizer = {
            "state": {"layer.0.w": {"exp_avg": torch.ones(2)}},
            "param_groups": [{"params": ["layer.0.w"], "lr": 0.1}],
        }
        flat = {"state.layer.0.w.exp_avg": torch.ones(2), "param_groups.layer.0.w.lr": 0.1}
        for number, one in enumerate((optimizer, flat)):
            saved({"model": {"w": torch.ones(2)}, "optim": one}, tmp_path / str(number))

            assert same(ckptstore.open(tmp_path / str(number)).load_optimizer(), one)

    def test_two_models_are_refused_and_named(self, tmp_path, saved):
        one = {"w": torch.ones(1)}
        saved({"model": one, "state_dict": one}, tmp_path / "x")
        saved({"a": {"model": one}, "b": {"model": one}}, tmp_path / "y")

        with pytest.raises(UnsupportedError, match="several models .'model', 'state_dict'.*nobody"):
            ckptstore.open(tmp_path / "x")
        with pytest.raises(UnsupportedError, match="several models .'a.model', 'b.model'"):
            ckptstore.open(tmp_path / "y")

    def test_no_model_is_refused_and_the_parts_are_named(self, tmp_path, saved):
        saved({"net": {"w": torch.ones(1)}, "epoch": 3}, tmp_path / "x")

        with pytest.raises(UnsupportedError, match="holds no model.*it holds 'net', 'epoch'"):
            ckptstore.open(tmp_path / "x")

    def test_a_name_that_stands_inside_and_outside_is_refused(self, tmp_path, saved):
        app = {"model": {"w": torch.ones(1)}, "step": 7}
        saved({"app": app, "step": 8}, tmp_path / "x")

        with pytest.raises(UnsupportedError, match="has 'step' twice"):
            ckptstore.open(tmp_path / "x")

    def test_of_several_optimizers_each_is_a_state(self, tmp_path, saved, state):
        parts = dict.fromkeys(("optimizer", "optim"), state["optimizer"])

        checkpoint = ckptstore.open(saved({"model": state["model"], **parts}, tmp_path / "x"))

        assert not checkpoint.has_optimizer
        assert set(checkpoint.states()) == {"optimizer_", "optim"}
        assert ckptstore.convert(tmp_path / "x", tmp_path / "bundle").left_out == ()

    @pytest.mark.parametrize("key", ["step", "global_step"])
    def test_the_step_has_its_usual_names(self, tmp_path, saved, key):
        saved({"model": {"w": torch.ones(1)}, key: 12}, tmp_path / "x")

        assert ckptstore.open(tmp_path / "x").step == 12

    @pytest.mark.parametrize("value", ["twelve", 1.5, True, [12], None])
    def test_a_step_that_is_no_number_is_kept_and_is_none(self, tmp_path, saved, value):
        saved({"model": {"w": torch.ones(1)}, "step": value, "note": "x"}, tmp_path / "x")

        checkpoint = ckptstore.open(tmp_path / "x")

        assert checkpoint.step is None
        assert "note" in checkpoint.training_state

    def test_what_has_no_room_as_a_field_is_a_state(self, tmp_path, saved, same):
        more = {"long": "x" * 700, "some/where": (1, {2, 3}), "loss": torch.tensor(2.5)}
        saved({"model": {"w": torch.ones(1)}, **more}, tmp_path / "x")

        checkpoint = ckptstore.open(tmp_path / "x")

        assert checkpoint.training_state is None
        assert set(checkpoint.states()) == {"long", "some_where", "loss"}
        assert checkpoint.load_state("some_where") == (1, {2, 3})
        assert same(checkpoint.load_state("loss"), torch.tensor(2.5))
        with pytest.raises(NotFoundError, match="no state 'x' in .*; it has 'long'"):
            checkpoint.load_state("x")

    def test_a_config_of_more_than_json_is_a_state(self, tmp_path, saved, same):
        config = {"dtype": torch.ones(1)}
        saved({"model": {"w": torch.ones(1)}, "config": config}, tmp_path / "x")

        checkpoint = ckptstore.open(tmp_path / "x")

        assert checkpoint.config is None
        assert same(checkpoint.load_state("config"), config)

    def test_a_tensor_inside_an_object_is_listed_and_converted(self, tmp_path, saved):
        rng = {"pair": (torch.ones(2), 3)}
        saved({"model": {"w": torch.ones(1)}, "rng": rng}, tmp_path / "x")

        checkpoint = ckptstore.open(tmp_path / "x")

        assert set(checkpoint.tensors("rng")) == {"pair.0"}
        assert ckptstore.convert(tmp_path / "x", tmp_path / "y").left_out == ()


class TestOlderVersions:
    def test_states_that_were_not_taken_apart_are_read(
        self, tmp_path, saved, state, monkeypatch, same
    ):
        # Before torch 2.4 a dict without tensors was one object.
        from torch.distributed.checkpoint import _version

        monkeypatch.setattr(_version, "_derived_version", "2_3")
        folder = saved(state, tmp_path / "x")

        checkpoint = ckptstore.open(folder)

        assert (checkpoint.step, checkpoint.config) == (1500, state["config"])
        assert same(checkpoint.load_optimizer(), state["optimizer"])
        assert same(checkpoint.load_state("scheduler"), state["scheduler"])

    def test_fields_of_later_versions_may_be_missing(self, folder, state, altered, same):
        def older(metadata):
            for field in ("version", "storage_meta"):
                del metadata.__dict__[field]

        altered(folder, older)

        assert same(ckptstore.open(folder).load_model(), dict(state["model"]))

    def test_fields_of_newer_versions_are_left_alone(self, folder, state, altered, same):
        altered(folder, lambda metadata: setattr(metadata, "mcore_data", {"a": [1, 2]}))

        assert same(ckptstore.open(folder).load_model(), dict(state["model"]))

    def test_the_properties_of_torch_2_2_are_read(self, folder, state, altered, same):
        def older(metadata):
            for entry in metadata.state_dict_metadata.values():
                if isinstance(entry, described.TensorStorageMetadata):
                    now = entry.properties
                    entry.properties = FormerProperties(
                        now.dtype, now.layout, now.requires_grad, now.memory_format, now.pin_memory
                    )

        altered(folder, older)

        assert same(ckptstore.open(folder).load_model(), dict(state["model"]))

    def test_without_paths_names_are_what_they_are(self, folder, state, altered):
        altered(folder, lambda metadata: setattr(metadata, "planner_data", None))

        checkpoint = ckptstore.open(folder)

        assert {"model.0.weight", "optimizer.state.0.exp_avg"} <= {*checkpoint.tensors()}
        assert checkpoint.step == 1500

    def test_a_state_dict_that_was_saved_flat_is_read(self, tmp_path, saved, state, same):
        import torch.distributed.checkpoint as dcp

        planner = dcp.DefaultSavePlanner(flatten_state_dict=False)
        writer = dcp.FileSystemWriter(tmp_path / "x", sync_files=False)
        dcp.save(dict(state["model"]), storage_writer=writer, planner=planner, no_dist=True)

        assert same(ckptstore.open(tmp_path / "x").load_model(), dict(state["model"]))

    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    def test_every_protocol_is_read(self, folder, state, protocol, same):
        import pickle

        metadata = pickle.loads((folder / ".metadata").read_bytes())
        (folder / ".metadata").write_bytes(pickle.dumps(metadata, protocol))

        assert same(ckptstore.open(folder).load_model(), dict(state["model"]))

    def test_the_file_of_one_process_alone_is_read(self, folder, state, same):
        os.rename(folder / ".metadata", folder / "__0.metadata")

        assert same(ckptstore.open(folder).load_model(), dict(state["model"]))

    def test_files_of_several_processes_alone_are_refused(self, folder):
        os.rename(folder / ".metadata", folder / "__0.metadata")
        (folder / "__1.metadata").write_bytes(b"")

        with pytest.raises(UnsupportedError, match="saved by 2 processes without each other"):
            ckptstore.open(folder)
