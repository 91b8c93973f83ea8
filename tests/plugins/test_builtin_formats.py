"""The built-in formats keep every promise of the kit that plugin authors use."""

from __future__ import annotations

import dataclasses
import io

import pytest
import torch

from ckptstore import plugins
from ckptstore.formats.base import Contents, Format
from ckptstore.testing import FormatTests, MemoryFiles, example_contents


class TestBundle(FormatTests):
    @pytest.fixture
    def format_class(self) -> type[Format]:
        return type(plugins.format_named("bundle"))


class TestSharded(FormatTests):
    @pytest.fixture
    def format_class(self) -> type[Format]:
        return type(plugins.format_named("sharded"))


class TestLegacy(FormatTests):
    @pytest.fixture
    def format_class(self) -> type[Format]:
        return type(plugins.format_named("legacy"))


class TestLegacyOfTheOldCode(FormatTests):
    @pytest.fixture
    def format_class(self) -> type[Format]:
        return type(plugins.format_named("legacy"))

    @pytest.fixture
    def contents(self) -> Contents:
        return dataclasses.replace(example_contents(), states={}, training_state={})

    @pytest.fixture
    def files(self, contents: Contents) -> MemoryFiles:
        buffer = io.BytesIO()
        saved = {
            "model_state_dict": contents.model,
            "config": contents.config,
            "tokenizer": contents.tokenizer_state,
            "step": contents.step,
            "optimizer_state_dict": contents.optimizer,
        }
        torch.save(saved, buffer)
        return MemoryFiles({"latest.pt": buffer.getvalue()})
