"""The kind keeps every promise of the kit, whatever the type of the model."""

from __future__ import annotations

import pytest

from ckptstore import plugins
from ckptstore.testing import TokenizerTests


class TestSentencePiece(TokenizerTests):
    @pytest.fixture
    def tokenizer_class(self):
        return plugins.tokenizer_kind("sentencepiece")


class TestOtherTypes(TokenizerTests):
    @pytest.fixture(params=["bpe", "char"])
    def model_type(self, request):
        return request.param

    @pytest.fixture
    def tokenizer_class(self):
        return plugins.tokenizer_kind("sentencepiece")

    @pytest.fixture
    def tokenizer(self, tokenizer_class, text, model_type):
        return tokenizer_class.from_text(text, model_type=model_type)

    def test_the_same_text_makes_the_same_tokenizer(
        self, tokenizer, tokenizer_class, text, model_type
    ):
        again = tokenizer_class.from_text(text, model_type=model_type)
        assert again.state() == tokenizer.state()
