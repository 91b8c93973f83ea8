"""The kind keeps every promise of the kit: with ranks of its own, and with OpenAI's."""

from __future__ import annotations

import pytest

from ckptstore import plugins
from ckptstore.testing import TokenizerTests


class TestTiktoken(TokenizerTests):
    @pytest.fixture
    def tokenizer_class(self):
        return plugins.tokenizer_kind("tiktoken")


@pytest.mark.usefixtures("openai_files")
class TestEncodingByName(TokenizerTests):
    @pytest.fixture
    def tokenizer_class(self):
        return plugins.tokenizer_kind("tiktoken")

    @pytest.fixture
    def tokenizer(self, tokenizer_class, text):
        return tokenizer_class.from_text(text, encoding="r50k_base")

    def test_the_same_text_makes_the_same_tokenizer(self, tokenizer, tokenizer_class):
        again = tokenizer_class.from_text("another text", encoding="r50k_base")
        assert again.state() == tokenizer.state()


class TestRanksWithGaps(TokenizerTests):
    """As OpenAI's cl100k_base has them, between ranks and special tokens and among these."""

    @pytest.fixture
    def tokenizer_class(self):
        return plugins.tokenizer_kind("tiktoken")

    @pytest.fixture
    def tokenizer(self, tokenizer_class, text):
        return self.with_gaps(tokenizer_class, text)

    def with_gaps(self, tokenizer_class, text):
        state = tokenizer_class.from_text(text, vocab_size=300).state()
        state["special_tokens"] = {"<|endoftext|>": 302, "</s>": 320}
        return tokenizer_class.from_state(state)

    def test_the_same_text_makes_the_same_tokenizer(self, tokenizer, tokenizer_class, text):
        assert self.with_gaps(tokenizer_class, text).state() == tokenizer.state()
