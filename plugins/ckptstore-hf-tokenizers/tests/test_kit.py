"""The kind keeps every promise of the kit."""

from __future__ import annotations

import pytest

from ckptstore import plugins
from ckptstore.testing import TokenizerTests


class TestHfTokenizers(TokenizerTests):
    @pytest.fixture
    def tokenizer_class(self):
        return plugins.tokenizer_kind("hf-tokenizers")
