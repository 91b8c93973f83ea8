from dataclasses import replace

import pytest
import torch
from nanogpt_model import Args, NanoGPT

import ckptstore
from ckptstore import plugins
from ckptstore.formats.base import Contents
from ckptstore.testing import FormatTests, MemoryNewFiles


class TestHuggingFace(FormatTests):
    @pytest.fixture
    def format_class(self):
        return type(plugins.format_named("huggingface"))

    @pytest.fixture
    def contents(self):
        tokenizer = {"model": {"type": "WordLevel", "vocab": {"a": 0}}, "version": "1.0"}
        return Contents(
            model=NanoGPT(Args(bias=False)).state_dict(),
            config={**Args(bias=False)._asdict(), "note": "ä"},
            tokenizer_state={"token_kind": "hf-tokenizers", "tokenizer": tokenizer},
            optimizer={"state": {}, "param_groups": []},
            states={"scheduler": {"last_epoch": 3}},
            step=5,
        )

    @pytest.fixture
    def large_contents(self, contents):
        large = Args(bias=False, vocab_size=2**14)
        model = NanoGPT(large).state_dict()
        return replace(contents, model=model, config=large._asdict())

    def test_weights_alone_are_a_checkpoint(self, format_class, contents):
        """They are not: how many heads there are stands in the config alone."""
        with pytest.raises(ckptstore.UnsupportedError, match="'n_head', and it cannot be told"):
            format_class().write(Contents(model=contents.model), MemoryNewFiles())

    def test_what_is_stored_is_made_one_tensor_at_a_time(self, format_class, contents):
        stored = format_class().stored(contents)

        name = "transformer.h.0.attn.c_proj.weight"
        assert stored.model[name].data_ptr() == contents.model[name].data_ptr()
        assert torch.equal(stored.model[name], contents.model[name].t())
        assert (stored.optimizer, stored.step, dict(stored.states)) == (None, None, {})
