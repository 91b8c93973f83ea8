import pytest

from ckptstore import plugins
from ckptstore.testing import FormatTests


class TestNanogpt(FormatTests):
    @pytest.fixture
    def format_class(self):
        return type(plugins.format_named("nanogpt"))
