from dataclasses import replace

import pytest

from ckptstore import plugins
from ckptstore.testing import FormatTests, MemoryFiles, example_contents


class TestDcp(FormatTests):
    @pytest.fixture
    def format_class(self):
        return type(plugins.format_named("dcp"))

    @pytest.fixture
    def contents(self):
        return replace(example_contents(), tokenizer_state=None)

    @pytest.fixture
    def files(self, contents, saved, tmp_path):
        state = {
            "model": contents.model,
            "optimizer": contents.optimizer,
            "config": contents.config,
            "step": contents.step,
            **contents.states,
            **contents.training_state,
        }
        folder = saved(state, tmp_path / "saved")
        return MemoryFiles({path.name: path.read_bytes() for path in folder.iterdir()})
