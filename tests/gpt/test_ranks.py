"""Where a process stands among others, and what the ranks of a run keep of themselves."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

import ckptstore
from gpt.launcher import Launched
from gpt.pending import Pending, rng_state
from gpt.ranks import Ranks

TWO = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


def test_without_a_launcher_there_is_one_process():
    ranks = Ranks.of_environment()

    assert (ranks.rank, ranks.size, ranks.first, ranks.many) == (0, 1, True, False)
    with ranks:
        assert not torch.distributed.is_initialized()
        assert ranks.broadcast({"a": 1}) == {"a": 1}
        assert ranks.gathered("x") == ["x"]
        assert ranks.ask(True)()
        assert not ranks.ask(False)()
        ranks.check_same({"the text": "x"}, "do something")
    model = torch.nn.Linear(1, 1)
    assert ranks.wrapped(model) is model


def test_torchrun_with_one_process_is_one_process():
    assert Launched.of({**TWO, "WORLD_SIZE": "1", "RANK": "0"}) == Launched()


def test_ranks_are_known_from_the_environment():
    assert Launched.of({**TWO, "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}) == Launched(1, 2, 0, 1)
    assert Launched.of(TWO) == Launched(1, 2, 1, 2)
    assert Launched.of({**TWO, "TORCHELASTIC_RUN_ID": "x"}).by_torchrun


@pytest.mark.parametrize("name", ["RANK", "MASTER_ADDR", "MASTER_PORT"])
def test_a_variable_that_is_absent_is_named(name):
    environment = {key: value for key, value in TWO.items() if key != name}

    with pytest.raises(ValueError, match=f"WORLD_SIZE is 2, and {name} is not set; start .*torchr"):
        Launched.of(environment)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"RANK": "2"}, "RANK is '2' in the environment, not a number from 0 to 1"),
        ({"RANK": "one"}, "RANK is 'one' in the environment, not a number from 0 to 1"),
        ({"WORLD_SIZE": "-2"}, "WORLD_SIZE is '-2' in the environment, not a number from 1 on"),
        ({"LOCAL_RANK": "2"}, "LOCAL_RANK is '2' in the environment, not a number from 0 to 1"),
        ({"LOCAL_WORLD_SIZE": "3"}, "LOCAL_WORLD_SIZE is '3' .* not a number from 1 to 2"),
    ],
)
def test_a_variable_that_is_no_such_number_is_named(changes, said):
    with pytest.raises(ValueError, match=said):
        Launched.of({**TWO, **changes})


def test_what_starts_a_command_imports_no_torch():
    program = "import sys, gpt.train, gpt.ranks, gpt.ranked; assert 'torch' not in sys.modules"

    subprocess.run([sys.executable, "-c", program], check=True)


def test_one_process_is_seeded_as_torch_seeds_it():
    Ranks().seed(5)
    Ranks().part()
    drawn = torch.rand(3)

    torch.manual_seed(5)
    assert torch.equal(drawn, torch.rand(3))


def test_another_rank_draws_other_numbers_and_the_same_ones_each_time():
    drawn = []
    for rank in (0, 1, 2, 1):
        torch.manual_seed(5)
        Ranks(Launched(rank, 3)).part()
        drawn.append(torch.rand(3))

    assert torch.equal(drawn[1], drawn[3])
    assert len({tuple(each.tolist()) for each in drawn}) == 3


def test_what_one_process_keeps_is_what_it_always_was(text, make_config):
    from gpt.data import GPTDataLoader
    from gpt.model import GPT

    model = GPT(make_config(), {"token_kind": "char", "chars": sorted(set(text))})
    loader = GPTDataLoader(model.config, model)
    loader.prepare_data(text)

    assert rng_state(loader).keys() == {"torch", "cuda", "data"}


@pytest.mark.parametrize("others", [None, 7, "x", [7], [{"torch": 1}]])
def test_what_is_no_state_of_a_rank_is_no_rank(others, text, make_config, recwarn):
    from gpt.data import GPTDataLoader
    from gpt.model import GPT
    from gpt.pending import take_up

    model = GPT(make_config(), {"token_kind": "char", "chars": sorted(set(text))})
    loader = GPTDataLoader(model.config, model)
    loader.prepare_data(text)
    state = rng_state(loader)
    model.pending = Pending(3, {**state, "other_ranks": others})
    before = loader.get_batch("train")[0]
    take_up(model, loader, 3)

    assert torch.equal(loader.get_batch("train")[0], before)
    assert not recwarn


def test_a_state_of_several_ranks_is_taken_up_by_one_with_a_warning(text, make_config):
    from gpt.data import GPTDataLoader
    from gpt.model import GPT
    from gpt.pending import take_up

    model = GPT(make_config(), {"token_kind": "char", "chars": sorted(set(text))})
    loader = GPTDataLoader(model.config, model)
    loader.prepare_data(text)
    state = rng_state(loader)
    model.pending = Pending(3, {**state, "other_ranks": [rng_state(loader)] * 3})

    with pytest.warns(UserWarning, match="of a run of 4 ranks, and goes on with one process; wei"):
        take_up(model, loader, 3)


def test_a_checkpoint_of_a_plain_state_dict_has_no_ranks_to_agree_on(tmp_path):
    from gpt.agreed import check_seen, open_same

    ckptstore.save(tmp_path / "there", model={"a": torch.ones(1)}, step=3)

    opened = open_same(Ranks(), tmp_path / "there", lambda: ckptstore.open(tmp_path / "there"))
    assert opened.step == 3
    assert check_seen(Ranks(), tmp_path / "there")
    assert not check_seen(Ranks(), tmp_path / "absent")
