import pytest

from ckptstore import plugins
from ckptstore.testing import TokenizerTests


class TestBytes(TokenizerTests):
    @pytest.fixture
    def tokenizer_class(self):
        return plugins.tokenizer_kind("bytes")
