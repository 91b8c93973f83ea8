"""nanoGPT's vocabularies: a meta.pkl beside the checkpoint, or GPT-2's tokens."""

from __future__ import annotations

import os
import pickle

import ckptstore_nanogpt
import pytest
import torch

import ckptstore
from ckptstore.errors import UnsupportedError
from ckptstore.testing import S3Proxy


def loaded(path):
    return torch.load(path, map_location="cpu", weights_only=True)


class TestVocabulary:
    @pytest.fixture
    def sizes(self, new_run):
        """Give a function that writes a ckpt.pt of a vocabulary."""

        def save(path, size):
            new_run(vocab_size=size, n_embd=4, n_layer=1).save(path)

        return save

    @pytest.mark.parametrize("named", [False, True])
    def test_characters_are_read_from_the_meta_pkl_beside_it(self, out, meta, chars, named):
        meta(out)

        checkpoint = ckptstore.open(out / "ckpt.pt" if named else out)

        assert checkpoint.tokenizer_state == {"token_kind": "char", "chars": chars}
        tokenizer = checkpoint.load_tokenizer()
        assert tokenizer.decode(tokenizer.encode("selva oscura")) == "selva oscura"
        assert set(checkpoint.files()) == {"ckpt.pt"} | (set() if named else {"meta.pkl"})
        assert checkpoint.verify().sound

    def test_on_s3_too(self, out, meta, chars, server):
        meta(out)
        url, options = server.url("out"), server.storage_options
        bucket, _, folder = url.removeprefix("s3://").partition("/")
        client = server.client()
        for path in out.iterdir():
            client.upload_file(str(path), bucket, f"{folder}/{path.name}")
        client.close()

        for location in (url, f"{url}/ckpt.pt"):
            checkpoint = ckptstore.open(location, storage_options=options)
            assert checkpoint.format == "nanogpt"
            assert checkpoint.tokenizer_state["chars"] == chars

    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    def test_every_protocol_that_python_3_wrote_is_read(self, out, chars, protocol):
        stoi = {char: number for number, char in enumerate(chars)}
        found = {"vocab_size": len(chars), "itos": dict(enumerate(chars)), "stoi": stoi}
        (out / "meta.pkl").write_bytes(pickle.dumps(found, protocol))

        assert ckptstore.open(out).tokenizer_state["chars"] == chars

    @pytest.mark.parametrize(
        "changes",
        [
            {"itos": {1: "a", 2: "b"}},
            {"itos": {0: "ab", 1: "c"}},
            {"itos": {0: "a", 1: "a"}},
            {"itos": {0: "a", 1: 2}},
            {"itos": {}},
            {"itos": None},
            {"itos": {0: "a", 1: "b"}, "stoi": {"a": 1, "b": 0}},
        ],
    )
    def test_another_vocabulary_is_none(self, out, meta, changes):
        meta(out, **{"stoi": {}, **changes} if "stoi" not in changes else changes)

        assert ckptstore.open(out).tokenizer_state is None

    def test_a_list_of_characters_is_a_vocabulary(self):
        found = ckptstore_nanogpt.tokenizer_of({"itos": ["a", "b"]})

        assert found == {"token_kind": "char", "chars": ["a", "b"]}

    def test_a_meta_pkl_of_another_data_set_is_named(self, out, meta):
        letters = [chr(0x4E00 + number) for number in range(100)]
        meta(out, itos=dict(enumerate(letters)), stoi={c: n for n, c in enumerate(letters)})

        with pytest.raises(
            ckptstore.CorruptionError, match="meta.pkl beside ckpt.pt .* has 100 characters, and"
        ):
            ckptstore.open(out)

    def test_a_padded_vocabulary_is_large_enough(self, tmp_path, sizes, meta, chars):
        sizes(tmp_path / "ckpt.pt", 64)
        meta(tmp_path)

        assert ckptstore.open(tmp_path).tokenizer_state["chars"] == chars

    def test_a_meta_pkl_that_would_run_code_is_refused(self, out, tmp_path):
        class Evil:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "mark"),)

        (out / "meta.pkl").write_bytes(pickle.dumps({"itos": Evil()}))

        for location in (out, out / "ckpt.pt"):
            with pytest.raises(ckptstore.UnsafeError, match="meta.pkl in .* more than plain data"):
                ckptstore.open(location)
        assert not (tmp_path / "mark").exists()

    @pytest.mark.parametrize("data", [b"", b"\x80\x04", b"{}", b"\x80\x04}", b"\x80\x04X\xff"])
    def test_a_meta_pkl_that_is_cut_off_is_damage(self, out, data):
        (out / "meta.pkl").write_bytes(data)

        with pytest.raises(ckptstore.CorruptionError, match="meta.pkl in "):
            ckptstore.open(out)

    @pytest.mark.parametrize(("size", "kind"), [(50257, "gpt2"), (50304, "gpt2"), (50000, None)])
    def test_without_one_a_vocabulary_of_gpt2s_size_is_gpt2s(self, tmp_path, sizes, size, kind):
        sizes(tmp_path / "ckpt.pt", size)

        state = ckptstore.open(tmp_path).tokenizer_state

        assert state == (None if kind is None else {"token_kind": kind})

    @pytest.mark.parametrize("size", [50257, 64])
    def test_a_meta_pkl_that_nobody_may_look_for_is_missed_only_where_it_matters(
        self, tmp_path, sizes, server, size
    ):
        sizes(tmp_path / "ckpt.pt", size)
        url = server.url("out/ckpt.pt")
        client = server.client()
        client.upload_file(str(tmp_path / "ckpt.pt"), url.split("/")[2], "out/ckpt.pt")
        client.close()

        with S3Proxy(server.endpoint, server.storage_options) as proxy:
            proxy.harm("", "meta.pkl", "AccessDenied", times=None)
            if size == 64:
                with pytest.raises(ckptstore.StorageError, match="denied"):
                    ckptstore.open(url, storage_options=proxy.storage_options)
            else:
                checkpoint = ckptstore.open(url, storage_options=proxy.storage_options)
                assert checkpoint.tokenizer_state == {"token_kind": "gpt2"}

    def test_gpt2_is_not_written_where_nanogpt_takes_it_anyhow(self, tmp_path, sizes):
        sizes(tmp_path / "ckpt.pt", 50304)
        ckptstore.convert(tmp_path / "ckpt.pt", tmp_path / "dante")

        ckptstore.convert(tmp_path / "dante", tmp_path / "back.pt", "nanogpt")

        assert ckptstore.open(tmp_path / "dante").tokenizer_state == {"token_kind": "gpt2"}
        assert "tokenizer" not in loaded(tmp_path / "back.pt")
        assert ckptstore.open(tmp_path / "back.pt").tokenizer_state == {"token_kind": "gpt2"}

    def test_characters_travel_in_the_file_and_make_a_meta_pkl_again(self, out, tmp_path, meta):
        meta(out)
        ckptstore.convert(out, tmp_path / "dante")
        ckptstore.convert(tmp_path / "dante", tmp_path / "back.pt", "nanogpt")

        state = ckptstore.open(tmp_path / "back.pt").tokenizer_state

        with open(out / "meta.pkl", "rb") as file:
            assert ckptstore_nanogpt.meta_of(state) == pickle.load(file)

    def test_a_meta_pkl_is_made_of_characters_only(self):
        with pytest.raises(UnsupportedError, match="of the kind 'char', and this is 'gpt2'"):
            ckptstore_nanogpt.meta_of({"token_kind": "gpt2"})
