"""G10: the library prints nothing, and tells secrets to nobody."""

from __future__ import annotations

import logging

import pytest
import torch

import ckptstore


def test_the_library_prints_nothing(location, capfd, tmp_path):
    url, options = location
    model = torch.nn.Linear(4, 2)

    with ckptstore.Store(url, storage_options=options) as store:
        store.save(model=model, tokenizer={"token_kind": "gpt2"}, step=1)
        store.save_async(model=model, step=2).result()
        checkpoint = store.open()
    checkpoint.restore(model=model)
    checkpoint.verify()
    if options is None:
        ckptstore.sync(url, tmp_path / "copy")

    assert capfd.readouterr() == ("", "")


def test_no_secret_is_logged_or_shown_or_stored(moto_server, caplog, tmp_path):
    secret = "a-secret-that-nobody-may-see"
    options = {**moto_server.storage_options, "secret": secret}
    url = moto_server.url("dante")

    with caplog.at_level(logging.DEBUG, "ckptstore"):
        store = ckptstore.Store(url, storage_options=options)
        checkpoint = store.save(model={"w": torch.ones(2)}, step=1)
        with pytest.raises(ckptstore.NotFoundError) as absent:
            ckptstore.open(url + "/nowhere", storage_options=options)

    told = [caplog.text, repr(store), repr(checkpoint), str(absent.value), repr(absent.value)]
    client = moto_server.client()
    for key in moto_server.keys(url):
        bucket = url.removeprefix("s3://").partition("/")[0]
        told.append(client.get_object(Bucket=bucket, Key=key)["Body"].read().decode("latin-1"))
    client.close()
    assert not any(secret in text for text in told)


def test_progress_comes_as_events(tmp_path):
    checkpoint = ckptstore.save(tmp_path / "dante", model={"w": torch.ones(1000)}, step=1)
    events = []

    checkpoint.verify(progress=events.append)

    assert events
    assert (events[-1].action, events[-1].done) == ("verify", events[-1].total)
