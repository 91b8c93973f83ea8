"""Which plugins are found, which are left out, and what is said about it."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ckptstore import plugins
from ckptstore.errors import PluginError, UnsupportedError
from ckptstore.plugins import PluginInfo

Install = Callable[..., None]
Info = Callable[[str], PluginInfo]

TOKENIZER = """
from ckptstore import hookimpl
from ckptstore.tokenizers.base import Tokenizer

class T(Tokenizer):
    kind = "KIND"
    n_vocab = 1
    from_state = classmethod(lambda cls, state: cls())
    from_text = classmethod(lambda cls, text: cls())
    encode = lambda self, text: []
    decode = lambda self, ids: ""
    state = lambda self: {"token_kind": self.kind}

@hookimpl
def ckptstore_tokenizers():
    return [T]
"""

FORMAT = """
from ckptstore import hookimpl
from ckptstore.formats.base import Format

class F(Format):
    name = "KIND"
    matches = lambda self, files: False
    read = lambda self, files: None

@hookimpl
def ckptstore_formats():
    return [F]
"""


def tokenizer(kind: str) -> str:
    return TOKENIZER.replace("KIND", kind)


def format_(name: str) -> str:
    return FORMAT.replace("KIND", name)


def check_the_rest_works(kind: str = "good") -> None:
    assert plugins.tokenizer_kind(kind).kind == kind
    assert {"char", "gpt2", kind} <= set(plugins.tokenizers())
    assert {"bundle", "legacy"} <= set(plugins.formats())


# -- found --------------------------------------------------------------------------------


def test_the_built_ins_come_first_and_through_the_same_hooks() -> None:
    first, second = plugins.loaded()[:2]
    assert (first.distribution, first.module) == ("ckptstore", "ckptstore.formats")
    assert (second.distribution, second.module) == ("ckptstore", "ckptstore.tokenizers")
    assert {"bundle", "legacy"} <= set(first.formats)
    assert set(second.tokenizers) == {"char", "gpt2"}
    assert first.status == second.status == "active"


def test_an_installed_plugin_is_found(install: Install, info: Info) -> None:
    install("some-plugin", tokenizer("good") + format_("layout"), entry="some")
    check_the_rest_works()
    assert plugins.format_named("layout") is plugins.formats()["layout"]
    assert info("some-plugin") == PluginInfo(
        name="some",
        distribution="some-plugin",
        version="1.5",
        module="some_plugin_module",
        formats=("layout",),
        tokenizers=("good",),
    )


def test_an_entry_point_may_name_an_object(install: Install) -> None:
    source = tokenizer("good").replace("@hookimpl\ndef", "class Hooks:\n  @hookimpl\n  def")
    source = (
        source.replace("tokenizers():\n    ", "tokenizers(self):\n      ") + "hooks = Hooks()\n"
    )
    install("some-plugin", source, module="module_of_an_object", target="module_of_an_object:hooks")
    check_the_rest_works()


def test_a_plugin_may_ask_for_formats_while_it_is_imported(install: Install) -> None:
    install("curious", "import ckptstore.plugins as p\np.loaded()\n" + tokenizer("good"))
    check_the_rest_works()


def test_looking_for_plugins_imports_neither_torch_nor_tiktoken() -> None:
    code = (
        "import sys; from ckptstore import plugins; plugins.formats(); plugins.tokenizers();"
        "print({'torch', 'tiktoken', 's3fs', 'requests'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("set()\n", "")


# -- left out -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import not_there_at_all", "it does not import: ModuleNotFoundError: No module named"),
        ("1 / 0", "it does not import: ZeroDivisionError"),
        ("raise SystemExit(3)", "it does not import: SystemExit: 3"),
        ("x = (", "it does not import: SyntaxError"),
        ("x = 1", "it implements neither ckptstore_formats nor ckptstore_tokenizers"),
        (tokenizer("bad").replace("@hookimpl", ""), "mark its functions with @ckptstore.hookimpl"),
        (
            tokenizer("bad").replace("return [T]", "raise KeyError('oh')"),
            "ckptstore_tokenizers raised: KeyError: 'oh'",
        ),
        (
            tokenizer("bad").replace("return [T]", "return T"),
            "ckptstore_tokenizers returned a ABCMeta, not a list",
        ),
        (tokenizer("bad").replace("return [T]", "yield T"), "returned a generator, not a list"),
        (tokenizer("bad").replace("return [T]", "pass"), "returned a NoneType, not a list"),
        (
            tokenizer("bad").replace("return [T]", "return [T()]"),
            r"not a subclass of ckptstore\.tokenizers\.base\.Tokenizer",
        ),
        (tokenizer("bad").replace("[T]", "[dict]"), "<class 'dict'>, not a subclass of"),
        (tokenizer("bad").replace("[T]", "[T, T]"), "returned two classes called 'bad'"),
        (tokenizer("bad").replace("izers():", "izers(config):"), "its hooks do not fit: .*config"),
        (tokenizer(""), "the kind of T is '', not letters and digits"),
        (tokenizer("a/b"), "the kind of T is 'a/b'"),
        (tokenizer("bad").replace('kind = "bad"', ""), "the kind of T is None"),
        (tokenizer("bad").replace("encode", "enc0de"), "'bad' does not define encode"),
        (format_("bad").replace("matches", "match"), "'bad' cannot be made: TypeError"),
        (format_("bad").replace("[F]", "[F()]"), r"not a subclass of ckptstore\.formats\.base"),
        (format_("").replace("[F]", "(F,)"), "the name of F is ''"),
    ],
)
def test_a_broken_plugin_is_a_warning_and_stops_nobody(
    install: Install, info: Info, caplog: pytest.LogCaptureFixture, source: str, said: str
) -> None:
    install("a-bad-one", source)
    install("good-one", tokenizer("good"))
    with caplog.at_level(logging.WARNING, "ckptstore"):
        check_the_rest_works()
    (record,) = [record for record in caplog.records if "a-bad-one" in record.getMessage()]
    assert record.levelname == "WARNING"
    assert record.getMessage().endswith("leave it out with CKPTSTORE_DISABLE_PLUGINS=a-bad-one")
    bad = info("a-bad-one")
    assert (bad.status, bad.formats, bad.tokenizers) == ("failed", (), ())
    assert re.search(said, str(bad.error)), bad.error


def test_one_module_under_two_entry_points_counts_once(install: Install, info: Info) -> None:
    install("first-one", tokenizer("good"), module="shared_module")
    install("second-one", tokenizer("good"), module="shared_module")
    check_the_rest_works()
    assert info("first-one").status == "active"
    assert "has registered the same object already" in str(info("second-one").error)


def test_a_missing_kind_names_the_plugins_that_did_not_load(install: Install) -> None:
    install("a-bad-one", "1 / 0")
    with pytest.raises(UnsupportedError, match=r"\(a-bad-one 1\.5, .*\) failed to load"):
        plugins.tokenizer_kind("something")


def test_a_package_with_incomplete_metadata_stops_nobody(
    install: Install, info: Info, tmp_path: Path
) -> None:
    install("nameless", tokenizer("good"))
    (tmp_path / "site" / "nameless-1.5.dist-info" / "METADATA").write_text("")
    plugins.reload()
    check_the_rest_works()
    assert info("").name == "nameless"


# -- errors -------------------------------------------------------------------------------

MISSPELT = tokenizer("bad").replace("ckptstore_tokenizers", "ckptstore_tokeniser")


@pytest.mark.parametrize("lists", [plugins.formats, plugins.tokenizers])
def test_a_misspelt_hook_is_an_error_that_names_plugin_and_hook(
    install: Install, lists: Callable[[], Any]
) -> None:
    install("bad-one", MISSPELT, entry="bad")
    expected = (
        r"the plugin 'bad' \(bad-one 1\.5, module bad_one_module\) is left out: it implements "
        r"'ckptstore_tokeniser' \(did you mean 'ckptstore_tokenizers'\?\), but the hooks are "
        r"ckptstore_formats and ckptstore_tokenizers; correct it, or leave it out with "
        r"CKPTSTORE_DISABLE_PLUGINS=bad-one"
    )
    for _ in range(2):
        with pytest.raises(PluginError, match=expected):
            lists()


def test_a_misspelt_hook_is_reported_where_a_kind_is_missing(install: Install) -> None:
    install("bad-one", MISSPELT)
    with pytest.raises(PluginError, match="'ckptstore_tokeniser'"):
        plugins.tokenizer_kind("bad")


def test_a_misspelt_hook_costs_nobody_what_is_there(install: Install, info: Info) -> None:
    install("bad-one", MISSPELT)
    install("good-one", tokenizer("good"))
    assert plugins.format_named("bundle").name == "bundle"
    assert plugins.tokenizer_kind("good").kind == "good"
    assert plugins.fingerprint_of({"token_kind": "gpt2"})
    assert info("bad-one").status == "failed"
    assert "'ckptstore_tokeniser'" in str(info("bad-one").error)


def test_a_clash_of_two_plugins_names_both_sides(install: Install, info: Info) -> None:
    install("one-side", tokenizer("same"))
    install("other-side", tokenizer("same"), entry="other")
    expected = (
        r"the tokenizer kind 'same' is claimed by 'one-side' \(one-side 1\.5, module "
        r"one_side_module\) and by 'other' \(other-side 1\.5, module other_side_module\)"
    )
    for ask in (
        plugins.tokenizers,
        lambda: plugins.tokenizer_kind("same"),
        lambda: plugins.fingerprint_of({"token_kind": "same"}),
        lambda: plugins.describe({"token_kind": "same"}),
    ):
        with pytest.raises(PluginError, match=expected):
            ask()
    assert plugins.tokenizer_kind("char").kind == "char"
    assert info("one-side").status == info("other-side").status == "failed"
    assert "is claimed by" in str(info("one-side").error)


def test_a_clash_with_a_built_in_names_both_sides(install: Install) -> None:
    install("rival", format_("bundle"))
    expected = (
        r"the format 'bundle' is claimed by 'formats' \(ckptstore .*, module ckptstore\.formats\) "
        r"and by 'rival' \(rival 1\.5, .*CKPTSTORE_DISABLE_PLUGINS=rival"
    )
    with pytest.raises(PluginError, match=expected):
        plugins.formats()
    with pytest.raises(PluginError, match=expected):
        plugins.format_named("bundle")
    assert plugins.loaded()[0].status == "active"


def test_a_clash_is_settled_by_leaving_one_out(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("rival", format_("bundle"))
    monkeypatch.setenv("CKPTSTORE_DISABLE_PLUGINS", "rival")
    plugins.reload()
    assert plugins.format_named("bundle").name == "bundle"


# -- switches -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("choose", "leave_out", "kinds"),
    [
        ("", "", {"one", "two"}),
        ("none", "", set()),
        ("first", "", {"one"}),
        ("first-package", "", {"one"}),
        ("First_Package , second", "", {"one", "two"}),
        ("", "first", {"two"}),
        ("", "second-package,first", set()),
        ("first,second", "second", {"one"}),
    ],
)
def test_the_environment_chooses_plugins(
    install: Install,
    info: Info,
    monkeypatch: pytest.MonkeyPatch,
    choose: str,
    leave_out: str,
    kinds: set[str],
) -> None:
    monkeypatch.setenv("CKPTSTORE_PLUGINS", choose)
    monkeypatch.setenv("CKPTSTORE_DISABLE_PLUGINS", leave_out)
    install("first-package", tokenizer("one"), entry="first")
    install("second-package", tokenizer("two"), entry="second")
    assert {"one", "two"} & set(plugins.tokenizers()) == kinds
    assert {"char", "gpt2"} <= set(plugins.tokenizers())
    assert info("first-package").status == ("active" if "one" in kinds else "off")
    assert info("second-package").status == ("active" if "two" in kinds else "off")


def test_a_plugin_that_is_off_is_not_imported(
    install: Install, info: Info, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CKPTSTORE_PLUGINS", "none")
    install("bad-one", "raise SystemExit('imported')")
    assert info("bad-one").status == "off"
    assert "bad_one_module" not in sys.modules
    with pytest.raises(
        UnsupportedError, match=r"\(bad-one 1\.5, .*\) is switched off by CKPTSTORE_PLUGINS=none"
    ):
        plugins.tokenizer_kind("something")


def test_a_switch_that_names_nobody_is_a_warning(
    install: Install, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CKPTSTORE_DISABLE_PLUGINS", "frist")
    install("first", tokenizer("one"))
    assert "one" in plugins.tokenizers()
    assert "CKPTSTORE_DISABLE_PLUGINS names 'frist', and no installed plugin" in caplog.text
