"""``convert`` to formats of plugins: those that only read, and those that are one file."""

from __future__ import annotations

import zlib
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


BY_CONTENT = """
    from ckptstore import CkptstoreError, hookimpl, ptfile
    from ckptstore.formats.base import Format, Reader

    class WeightsReader(Reader):
        def __init__(self, files, name):
            self.files_, self.name = files, name
            with files.open(name) as file:
                self.pt = ptfile.read(file, name)

        def _part(self, root):
            return root["weights"]

        def tensors(self):
            return ptfile.infos(self._part(self.pt.root), self.pt.records)

        def load_model(self, names=None, map_location="cpu"):
            from ckptstore import tensors
            with self.files_.open(self.name) as file:
                return tensors.load(
                    file, names=names, part=self._part, map_location=map_location, where=self.name
                )

        def files(self):
            return (self.name,)

    class Weights(Format):
        name = "weights"
        writable = True
        one_file = "weights.pt"

        def matches(self, files):
            name = files.named or self.one_file
            if name not in files.names():
                return False
            try:
                with files.open(name) as file:
                    root = ptfile.read(file, name).root
            except CkptstoreError:
                return False
            return isinstance(root, dict) and "weights" in root

        def read(self, files):
            return WeightsReader(files, files.named or self.one_file)

        def write(self, contents, files):
            from ckptstore import tensors
            part = tensors.checked({"weights": dict(contents.model)}, "the model")
            with files.create(self.one_file, expected_size=part.size) as sink:
                part.save(sink)

    @hookimpl
    def ckptstore_formats():
        return [Weights]
"""


def test_a_pt_of_another_format_is_told_from_a_legacy_one_by_what_is_in_it(
    install: Install, dante: Path
) -> None:
    install("by-content", BY_CONTENT)

    done = ckptstore.convert(dante, dante.parent / "mine.pt", "weights")

    assert done.changed
    checkpoint = ckptstore.open(dante.parent / "mine.pt")
    assert checkpoint.format == "weights"
    assert torch.equal(checkpoint.load_model()["w"], WEIGHTS["w"])


def test_a_pt_that_the_legacy_format_would_read_is_refused_under_that_name(
    install: Install, dante: Path
) -> None:
    install(
        "by-content",
        BY_CONTENT.replace('"weights" in root', '"model_state_dict" in root')
        .replace('{"weights": ', '{"model_state_dict": ')
        .replace('root["weights"]', 'root["model_state_dict"]'),
    )

    with pytest.raises(UnsupportedError, match="mine.pt would be opened as 'legacy'"):
        ckptstore.convert(dante, dante.parent / "mine.pt", "weights")

    assert not (dante.parent / "mine.pt").exists()


def test_what_was_not_kept_of_a_long_write_is_judged_by_its_name(
    install: Install, tmp_path: Path
) -> None:
    install("by-content", BY_CONTENT)
    many = {f"{'w' * 200}{number}": torch.ones(1) for number in range(4000)}
    ckptstore.save(tmp_path / "dante", model=many)

    with pytest.raises(UnsupportedError, match="mine.pt would be opened as 'legacy'"):
        ckptstore.convert(tmp_path / "dante", tmp_path / "mine.pt", "weights")
    ckptstore.convert(tmp_path / "dante", tmp_path / "mine.weights", "weights")

    assert ckptstore.open(tmp_path / "mine.weights").format == "weights"


PROVING = """
    import zlib

    from ckptstore import CorruptionError, TensorInfo, hookimpl
    from ckptstore.formats.base import Format, Reader

    class SumsReader(Reader):
        def __init__(self, files):
            self.of = files

        def tensors(self):
            return {}

        def load_model(self, names=None, map_location="cpu"):
            return {}

        def files(self):
            return ("weights.sums", "notes.sums")

        def prove(self, name, chosen):
            if name == "notes.sums":
                return None
            with self.of.open(name) as file:
                lines = file.read().split()
            for line in chosen(lines):
                value, _, found = line.partition(b":")
                if int(found) != zlib.crc32(value):
                    raise CorruptionError(f"{name} is damaged at {value!r}")
            return f"{len(chosen(lines))} of {len(lines)} sums are right"

    class Sums(Format):
        name = "sums"

        def matches(self, files):
            return "weights.sums" in files.names()

        def read(self, files):
            return SumsReader(files)

    @hookimpl
    def ckptstore_formats():
        return [Sums]
"""


@pytest.fixture
def summed(install: Install, tmp_path: Path) -> Path:
    install("proving", PROVING)
    (tmp_path / "summed").mkdir()
    lines = [b"%d:%d" % (number, zlib.crc32(b"%d" % number)) for number in range(10)]
    (tmp_path / "summed" / "weights.sums").write_bytes(b" ".join(lines))
    (tmp_path / "summed" / "notes.sums").write_text("nothing")
    return tmp_path / "summed"


def test_a_format_proves_files_of_which_only_it_knows_how(summed: Path) -> None:
    report = ckptstore.open(summed).verify()

    assert report.sound
    weights, notes = report.files
    assert (weights.status, weights.detail) == ("not verified", "10 of 10 sums are right")
    assert notes.detail == "no manifest, and nothing in the file proves it"
    assert report.read == (summed / "weights.sums").stat().st_size


def test_a_sample_of_such_a_file_is_proved(summed: Path) -> None:
    report = ckptstore.open(summed).verify(sample=0.2, seed=1)

    assert report.files[0].detail == "2 of 10 sums are right"


def test_damage_that_a_format_finds_is_reported(summed: Path) -> None:
    path = summed / "weights.sums"
    path.write_bytes(path.read_bytes().replace(b"7:", b"8:"))

    report = ckptstore.open(summed).verify()

    assert not report.sound
    assert (report.files[0].status, report.files[0].detail) == (
        "damaged",
        "weights.sums is damaged at b'8'",
    )
    with pytest.raises(ckptstore.CorruptionError, match="weights.sums is damaged"):
        ckptstore.open(summed, fallback=True)
