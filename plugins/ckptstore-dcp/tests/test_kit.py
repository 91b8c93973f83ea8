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
        return self.read_back(saved(state, tmp_path / "saved"))

    @pytest.fixture
    def large_files(self, large_contents, saved, tmp_path):
        state = {"model": large_contents.model, "config": large_contents.config}
        return self.read_back(saved(state, tmp_path / "large"))

    def read_back(self, folder):
        return MemoryFiles({path.name: path.read_bytes() for path in folder.iterdir()})
