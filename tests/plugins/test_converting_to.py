"""``convert`` to formats of plugins: those that only read, and those that are one file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import ckptstore
from ckptstore.errors import ConflictError, PluginError, UnsupportedError
from tests.plugins.conftest import Install

WEIGHTS = {"w": torch.tensor([1.0, 2.5]), "b": torch.tensor([0.5])}

READ_ONLY = """
    from ckptstore import hookimpl
    from ckptstore.formats.base import Format

    class Archive(Format):
        name = "archive"

        def matches(self, files):
            return False

        def read(self, files):
            raise NotImplementedError

    @hookimpl
    def ckptstore_formats():
        return [Archive]
"""

ONE_FILE = """
    from ckptstore import CorruptionError, TensorInfo, hookimpl
    from ckptstore.formats.base import Format, Reader
    from ckptstore.texts import dump_json, parse_json

    class LinesReader(Reader):
        def __init__(self, files, name):
            self.name = name
            self.saved = parse_json(files.text(name), name)

        def tensors(self):
            return {n: TensorInfo("float32", (len(v),), 4 * len(v)) for n, v in self.saved.items()}

        def load_model(self, names=None, map_location="cpu"):
            import torch
            return {n: torch.tensor(self.saved[n]) for n in names or self.saved}

        def files(self):
            return (self.name,)

    class Lines(Format):
        name = "lines"
        writable = True
        one_file = "weights.lines"

        def matches(self, files):
            names = (files.named,) if files.named else files.names()
            return any(name.endswith(".lines") for name in names)

        def read(self, files):
            return LinesReader(files, files.named or self.one_file)

        def write(self, contents, files):
            saved = {name: tensor.tolist() for name, tensor in contents.model.items()}
            files.write_text(self.one_file, dump_json(saved))

    @hookimpl
    def ckptstore_formats():
        return [Lines]
"""


@pytest.fixture
def dante(tmp_path: Path) -> Path:
    ckptstore.save(tmp_path / "dante", model=WEIGHTS, config={"n": 1}, step=5)
    return tmp_path / "dante"


def test_a_format_that_is_only_read_is_refused(install: Install, dante: Path) -> None:
    install("read-only", READ_ONLY)

    with pytest.raises(UnsupportedError, match="the format 'archive' can be read, not written"):
        ckptstore.convert(dante, dante.parent / "x", "archive")


def test_a_plugins_one_file_has_the_name_that_is_asked_for(install: Install, dante: Path) -> None:
    install("one-file", ONE_FILE)

    done = ckptstore.convert(dante, dante.parent / "mine.lines", "lines")

    assert [proof.name for proof in done.proofs["model"]] == ["w", "b"]
    assert done.left_out == ("config", "step")
    checkpoint = ckptstore.open(dante.parent / "mine.lines")
    assert checkpoint.format == "lines"
    assert torch.equal(checkpoint.load_model()["w"], WEIGHTS["w"])


def test_a_file_beside_another_formats_checkpoint_is_refused(
    install: Install, dante: Path, tmp_path: Path
) -> None:
    install("one-file", ONE_FILE)
    (tmp_path / "both").mkdir()
    ckptstore.convert(dante, tmp_path / "both" / "weights.lines", "lines")

    with pytest.raises(
        UnsupportedError, match="both holds a checkpoint of the format 'lines', and with latest.pt"
    ):
        ckptstore.convert(dante, f"{tmp_path / 'both'}/", "legacy")

    assert [path.name for path in (tmp_path / "both").iterdir()] == ["weights.lines"]


def test_values_that_changed_are_found_though_the_format_has_no_checksums(
    install: Install, dante: Path
) -> None:
    install("one-file", ONE_FILE.replace("tensor.tolist()", "[v + 1 for v in tensor.tolist()]"))

    with pytest.raises(ckptstore.CorruptionError, match="tensors of its model differ") as caught:
        ckptstore.convert(dante, dante.parent / "mine.lines", "lines")

    assert caught.value.committed is True


def test_a_format_that_writes_more_than_its_one_file_breaks_its_promise(
    install: Install, dante: Path
) -> None:
    more = 'files.write_text("more.json", "{}")\n            files.write_text(self.one_file'
    install("one-file", ONE_FILE.replace("files.write_text(self.one_file", more))

    with pytest.raises(PluginError, match="'lines' wrote .*, and promised to write weights.lines"):
        ckptstore.convert(dante, dante.parent / "mine.lines", "lines")

    assert not (dante.parent / "mine.lines").exists()


def test_a_plugins_file_is_not_replaced_either(install: Install, dante: Path) -> None:
    install("one-file", ONE_FILE)
    (dante.parent / "mine.lines").write_text("{}")

    with pytest.raises(ConflictError, match="mine.lines in .* is there already, and another file"):
        ckptstore.convert(dante, dante.parent / "mine.lines", "lines", overwrite=True)

    assert (dante.parent / "mine.lines").read_text() == "{}"


@pytest.mark.parametrize("dry_run", [True, False])
def test_what_nobody_could_open_is_not_written(
    install: Install, dante: Path, dry_run: bool
) -> None:
    harm = "raise CorruptionError('all nonsense')"
    install("one-file", ONE_FILE.replace("self.saved = parse_json(files.text(name), name)", harm))

    with pytest.raises(
        UnsupportedError, match="cannot be written as 'lines', for nobody could open it: all nons"
    ):
        ckptstore.convert(dante, dante.parent / "mine.lines", "lines", dry_run=dry_run)

    assert not (dante.parent / "mine.lines").exists()


def test_a_format_that_wants_a_folder_of_its_own_is_told_where(
    install: Install, dante: Path
) -> None:
    own = ONE_FILE.replace('one_file = "weights.lines"', "own_folder = True")
    own = own.replace("self.one_file", '"weights.lines"')
    install("own-folder", own)

    with pytest.raises(UnsupportedError, match="'lines' wants a folder of its own, .* DESTINATION"):
        ckptstore.convert(dante, format="lines")

    assert not (dante / "weights.lines").exists()
    assert ckptstore.convert(dante, dante.parent / "own", "lines").changed
    assert not ckptstore.convert(dante.parent / "own", format="lines").changed
