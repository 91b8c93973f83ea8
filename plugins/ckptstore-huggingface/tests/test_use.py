"""From the command line, on other storages, in bounded memory; and the README is true."""

from __future__ import annotations

import re
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
import torch
from nanogpt_model import Args, NanoGPT
from transformers import GPT2LMHeadModel

import ckptstore
from ckptstore.testing.servers import start_server

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")


def fences(language: str) -> str:
    return "\n".join(re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.M | re.S))


def run(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "ckptstore", *words], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def saved_by_nanogpt(model: NanoGPT, file: Path) -> None:
    """Write what nanoGPT's train.py saves of a model that torch.compile has wrapped."""
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.arange(8)[None]).square().mean().backward()
    optimizer.step()
    torch.save(
        {
            "model": {f"_orig_mod.{name}": value for name, value in model.state_dict().items()},
            "optimizer": optimizer.state_dict(),
            "model_args": model.args._asdict(),
            "iter_num": 7,
            "best_val_loss": torch.tensor(3.25),
            "config": {"dataset": "inferno", "learning_rate": 6e-4, "compile": True},
        },
        file,
    )


def test_the_commands_and_the_python_of_the_readme_run(tmp_path, monkeypatch):
    """The first of them makes transformers' folder of nanoGPT's own file, in one command."""
    model = NanoGPT(Args())
    saved_by_nanogpt(model, tmp_path / "ckpt.pt")

    said = [
        run(tmp_path, *line.removeprefix("$ ckptstore ").split())
        for line in fences("console").splitlines()
        if not line.startswith("$ pip")
    ]
    monkeypatch.chdir(tmp_path)
    exec(fences("python"), {})

    assert "29 tensors proved the same, step 7" in said[0]
    ids = torch.arange(8)[None]
    for folder in ("out/gpt", "copies/gpt"):
        theirs = GPT2LMHeadModel.from_pretrained(tmp_path / folder).eval()
        with torch.no_grad():
            assert torch.allclose(theirs(ids).logits, model(ids), rtol=1e-5, atol=1e-5)
    back = ckptstore.open(tmp_path / "back/gpt")
    assert (back.format, back.step, back.config["model_type"]) == ("bundle", 7, "gpt2")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    standing = start_server("moto", tmp_path_factory.mktemp("moto"))
    yield standing
    standing.stop()


@pytest.mark.parametrize("where", ["memory", "s3"])
def test_a_model_goes_to_a_bucket_and_back_to_transformers(tmp_path, where, request):
    url, options = f"memory://{uuid.uuid4().hex}", None
    if where == "s3":
        standing = request.getfixturevalue("server")
        url, options = standing.url("gpt"), standing.storage_options
    args = Args(bias=False)
    model = NanoGPT(args)

    ckptstore.save(
        url,
        model=model,
        config=args._asdict(),
        step=3,
        format="huggingface",
        storage_options=options,
    )
    ckptstore.sync(url, tmp_path / "here", storage_options=options)

    remote = ckptstore.open(url, storage_options=options)
    some = ["transformer.ln_f.weight", "transformer.h.1.attn.c_proj.weight"]
    assert [*remote.load_model(some)] == some
    ids = torch.arange(8)[None]
    theirs = GPT2LMHeadModel.from_pretrained(tmp_path / "here").eval()
    with torch.no_grad():
        assert torch.allclose(theirs(ids).logits, model(ids), rtol=1e-5, atol=1e-5)


MEMORY = """
import resource, sys
import torch
import ckptstore

folder = sys.argv[1]
if sys.argv[2] == "save":
    n, L, V, T = 1024, 4, 4096, 64
    small = {"transformer.wte.weight": torch.ones(V, n), "transformer.wpe.weight": torch.ones(T, n)}
    for i in range(L):
        block = f"transformer.h.{i}"
        small |= {f"{block}.{norm}.weight": torch.ones(n) for norm in ("ln_1", "ln_2")}
        small[f"{block}.attn.c_attn.weight"] = torch.ones(3 * n, n)
        small[f"{block}.attn.c_proj.weight"] = torch.ones(n, n)
        small[f"{block}.mlp.c_fc.weight"] = torch.ones(4 * n, n)
        small[f"{block}.mlp.c_proj.weight"] = torch.ones(n, 4 * n)
    small["transformer.ln_f.weight"] = torch.ones(n)
    print(sum(4 * tensor.numel() for tensor in small.values()) / 2**20)
    ckptstore.save(folder + "/ckpt", model=small, config={"n_head": 16}, durable=False)
else:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    ckptstore.convert(folder + "/ckpt", folder + "/out", "huggingface")
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the high-water mark is in KiB there")
def test_a_conversion_takes_the_model_once(tmp_path):
    size, grown = (
        float(
            subprocess.run(
                [sys.executable, "-c", MEMORY, str(tmp_path), act],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
        for act in ("save", "convert")
    )

    assert size > 200
    assert grown < size + 128
