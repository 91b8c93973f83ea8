"""The built-in kinds keep every promise of the kit that plugin authors use."""

from __future__ import annotations

import pytest

from ckptstore.testing import TokenizerTests
from ckptstore.tokenizers.base import Tokenizer
from ckptstore.tokenizers.char import CharTokenizer
from ckptstore.tokenizers.gpt2 import Gpt2Tokenizer


class TestChar(TokenizerTests):
    @pytest.fixture
    def tokenizer_class(self) -> type[Tokenizer]:
        return CharTokenizer


@pytest.mark.usefixtures("gpt2_files")
class TestGpt2(TokenizerTests):
    @pytest.fixture
    def tokenizer_class(self) -> type[Tokenizer]:
        return Gpt2Tokenizer
