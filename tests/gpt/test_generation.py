"""Generation: the cache changes nothing, a seed gives the same draws, arguments are checked."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from ckptstore.tokenizers.char import CharTokenizer
from gpt.model import GPT
from gpt.sampling import Sampler

SETTINGS = [
    {"temperature": 0},
    {"temperature": 1.3, "seed": 1},
    {"top_k": 5, "seed": 2},
    {"top_p": 0.8, "seed": 3},
    {"temperature": 0.7, "top_k": 9, "top_p": 0.9, "seed": 4},
]


@pytest.fixture
def model(legacy_file: Path) -> GPT:
    return GPT.load(legacy_file)[0]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_cache_changes_no_token_past_block_size_too(
    model: GPT, settings: dict[str, Any]
) -> None:
    new = 3 * model.config.block_size

    cached = model.generate("Nel mezzo", new, **settings)
    plain = model.generate("Nel mezzo", new, use_cache=False, **settings)

    assert cached == plain
    assert len(cached) == len("Nel mezzo") + new


@pytest.mark.parametrize("length", [1, 31, 32, 33, 100])
def test_the_cache_changes_no_token_after_a_prompt_of_any_length(
    model: GPT, text: str, length: int
) -> None:
    prompt = text[:length]

    cached = model.generate(prompt, 40, temperature=0)

    assert cached == model.generate(prompt, 40, temperature=0, use_cache=False)
    assert cached.startswith(prompt)


def test_each_token_is_the_likeliest_after_the_last_block_size_tokens(model: GPT) -> None:
    ids = model.encode("Nel mezzo del cammin di nostra vita")
    model.eval()
    slow = list(ids)
    for _ in range(40):
        logits, _ = model(torch.tensor([slow[-model.config.block_size :]]))
        slow.append(int(logits[0, -1].argmax()))

    assert model.continue_ids(ids, 40, Sampler(temperature=0)) == slow


def test_one_call_for_all_heads_equals_a_loop_over_the_heads(make_config: Any) -> None:
    model = GPT(make_config(bias=True, dropout=0.0, n_head=4))
    attention = model.blocks[0].sa
    x = torch.randn(2, 7, 16)
    outs = []
    for head in attention.heads:
        scores = head.query(x) @ head.key(x).transpose(1, 2) * 4**-0.5
        scores = scores.masked_fill(torch.ones(7, 7).tril() == 0, -torch.inf)
        outs.append(functional.softmax(scores, dim=-1) @ head.value(x))

    together = attention(x.flatten(0, 1), batch=2).view(2, 7, 16)
    assert torch.allclose(together, attention.proj(torch.cat(outs, dim=-1)), atol=1e-6)


def test_training_between_two_generations_is_seen(model: GPT) -> None:
    before = model.generate("Nel mezzo", 20, temperature=0)
    with torch.no_grad():
        for head in model.blocks[0].sa.heads:
            head.value.weight.neg_()

    after = model.generate("Nel mezzo", 20, temperature=0)

    assert after != before
    assert after == model.generate("Nel mezzo", 20, temperature=0, use_cache=False)


def test_a_seed_gives_the_same_text_and_leaves_the_global_generator_alone(model: GPT) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = model.generate("Nel mezzo", 30, seed=7)

    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert model.generate("Nel mezzo", 30, seed=7) == first
    assert model.generate("Nel mezzo", 30, seed=8) != first


def test_generation_leaves_the_mode_as_it_was(model: GPT) -> None:
    model.train()
    model.generate("Nel mezzo", 1)
    assert model.training
    model.eval()
    model.generate("Nel mezzo", 1)
    assert not model.training


def test_ids_that_nothing_decodes_are_never_drawn(make_config: Any) -> None:
    model = GPT(make_config(vocab_size=64), CharTokenizer("abc"))
    with torch.no_grad():
        model.lm_head.bias[3:] = 100.0

    written = model.generate("a", 50, seed=1)

    assert set(written) <= set("abc")


def test_top_k_and_top_p_of_almost_nothing_are_greedy(model: GPT) -> None:
    greedy = model.generate("Nel mezzo", 40, temperature=0)

    assert model.generate("Nel mezzo", 40, top_k=1, seed=1) == greedy
    assert model.generate("Nel mezzo", 40, top_p=1e-9, seed=1) == greedy
    assert model.generate("Nel mezzo", 40, temperature=1e-30, seed=1) == greedy


def test_top_p_keeps_the_fewest_tokens_that_reach_it() -> None:
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    sampler = Sampler(top_p=0.75, seed=1)

    assert {sampler.choose(logits) for _ in range(300)} == {0, 1}


def test_draws_follow_the_probabilities() -> None:
    logits = torch.tensor([0.7, 0.2, 0.1]).log()
    sampler = Sampler(seed=1)

    drawn = [sampler.choose(logits) for _ in range(4000)]

    assert drawn.count(0) / 4000 == pytest.approx(0.7, abs=0.04)
    assert drawn.count(2) / 4000 == pytest.approx(0.1, abs=0.04)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": ""}, "the prompt is empty"),
        ({"prompt": "Nel 7"}, r"the text holds '7' \(U\+0037\)"),
        ({"temperature": -1}, "temperature is -1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"top_k": 0}, "top_k is 0"),
        ({"top_p": 0.0}, "top_p is 0.0"),
        ({"top_p": 1.5}, "top_p is 1.5"),
        ({"max_new_tokens": -1}, "max_new_tokens is -1"),
    ],
)
def test_what_cannot_be_generated_is_named(
    model: GPT, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        model.generate(**{"prompt": "Nel", "max_new_tokens": 1, **arguments})


def test_more_tokens_than_block_size_are_refused(model: GPT) -> None:
    with pytest.raises(ValueError, match="33 tokens are more than block_size 32"):
        model(torch.zeros(1, 33, dtype=torch.long))


def test_a_model_can_be_copied(model: GPT) -> None:
    twin = copy.deepcopy(model)

    assert twin.generate("Nel", 9, temperature=0) == model.generate("Nel", 9, temperature=0)


def test_a_model_that_computes_no_numbers_says_so(model: GPT) -> None:
    with torch.no_grad():
        model.lm_head.bias[0] = torch.nan

    with pytest.raises(ValueError, match="its weights hold infinities or NaN"):
        model.generate("Nel", 1)
