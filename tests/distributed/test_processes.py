"""Real processes under torchrun, FSDP2 over gloo: saved by four, loaded by two and by one."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import ckptstore
from ckptstore.distributed import load_sharded

QUIET = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
PROGRAM = Path(__file__).with_name("processes.py")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


def torchrun(count, what, folder, servers):
    """Run `processes.py` in several processes; return the exit code and what they said."""
    port = free_port()
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}"]
    command += ["--master-addr=127.0.0.1", f"--master-port={port}", str(PROGRAM), what]
    done = subprocess.run(
        [*command, str(folder), json.dumps(servers)],
        env={**os.environ, **QUIET},
        capture_output=True,
        text=True,
        timeout=250,
    )
    return done.returncode, done.stdout + done.stderr


def killed_at(folder, who, when):
    """Run two ranks, one of which is killed, without anybody who ends the other one, too."""
    environ = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), "WORLD_SIZE": "2"}
    environ |= {**os.environ, **QUIET, "WHO_DIES": f"{who} {when}"}
    ranks = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), "die", str(folder), "{}"],
            env={**environ, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=250)[0] for rank in ranks]
    return [rank.returncode for rank in ranks], "\n".join(said)


@pytest.fixture(scope="module")
def places(moto_server, rclone_server):
    """A place on each server that the tests of this module share."""
    return {
        server.name: [server.url("dante"), server.storage_options]
        for server in (moto_server, rclone_server)
    }


@pytest.fixture(scope="module")
def saved(tmp_path_factory, places):
    """What four processes saved."""
    folder = tmp_path_factory.mktemp("saved")
    code, said = torchrun(4, "save", folder, places)
    assert code == 0, said[-5000:]
    return folder


def test_two_processes_load_what_four_saved(saved, places):
    code, said = torchrun(2, "load", saved, places)

    assert code == 0, said[-5000:]


def test_one_process_without_a_group_loads_what_four_saved(saved, places):
    expected = torch.load(saved / "expected.pt", weights_only=True)
    for url, options in ([str(saved / "disk"), None], *places.values()):
        model = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3, bias=False))
        optimizer = torch.optim.AdamW(model.parameters())

        load_sharded(url, model=model, optimizer=optimizer, storage_options=options)

        for name, parameter in model.named_parameters():
            assert torch.equal(parameter, expected[name])
            for slot, value in optimizer.state[parameter].items():
                assert torch.equal(value, expected[f"{name}.{slot}"])


def test_everybody_reads_what_four_saved(saved, places):
    expected = torch.load(saved / "expected.pt", weights_only=True)
    for url, options in ([str(saved / "disk"), None], *places.values()):
        checkpoint = ckptstore.open(url, storage_options=options)

        assert checkpoint.verify().sound
        assert {*checkpoint.load_model()} == {"0.weight", "0.bias", "2.weight"}
        assert torch.equal(checkpoint.load_model()["0.weight"], expected["0.weight"])
        assert checkpoint.load_state("scheduler")["step_size"] == 7
    history = ckptstore.Store(saved / "dcp", keep=ckptstore.Keep(last=2))
    assert history.steps() == (1, 2)
    assert [history.open(step=step).load_state("epoch") for step in (1, 2)] == [2, 3]
    optimizer = history.open().load_optimizer()
    assert torch.equal(optimizer["state"]["0.bias"]["exp_avg"], expected["0.bias.exp_avg"])
    assert optimizer["param_groups"][0]["betas"] == (0.9, 0.999)


def test_the_bundle_made_of_it_is_the_state_that_one_process_trains(saved, tmp_path):
    ckptstore.convert(saved / "disk", tmp_path / "plain")

    torch.manual_seed(1)
    alone = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3, bias=False))
    optimizer = torch.optim.AdamW(alone.parameters(), lr=0.011)
    torch.manual_seed(0)
    alone(torch.randn(4, 6)).square().sum().backward()
    optimizer.step()
    plain = torch.load(tmp_path / "plain" / "model.pt", weights_only=True)
    assert {*plain} == {*alone.state_dict()}
    assert all(torch.equal(plain[name], value) for name, value in alone.state_dict().items())
    of_optimizer = ckptstore.open(tmp_path / "plain").load_optimizer()["state"]
    for name, parameter in alone.named_parameters():
        for slot, value in optimizer.state[parameter].items():
            assert torch.equal(of_optimizer[name][slot], value)


@pytest.mark.parametrize(
    ("who", "when", "step", "told"),
    [
        ("1", "after-write", 1, "rank 0 was told: False"),
        ("0", "after-manifest", 2, "rank 1 was told: None"),
    ],
)
def test_a_rank_that_is_killed_leaves_the_old_state_or_the_new(tmp_path, who, when, step, told):
    codes, said = killed_at(tmp_path, who, when)

    assert -signal.SIGKILL in codes, said[-2000:]
    assert 0 not in codes, said[-2000:]
    assert told in said
    checkpoint = ckptstore.open(tmp_path / f"{who}-{when}")
    assert checkpoint.step == step, said[-5000:]
    assert checkpoint.verify().sound
    rates = checkpoint.load_optimizer()["param_groups"][0]["lr"]
    assert rates == pytest.approx(0.01 + step / 1000)
