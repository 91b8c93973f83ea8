"""``ckptstore tokenizer export``: the files of a tokenizer, for the library that reads them."""

from __future__ import annotations

import shlex

import click

from ckptstore.cli import options, screen
from ckptstore.cli.configured import StorageOptions
from ckptstore.cli.messages import say

__all__ = ["command"]


@click.command("export")
@options.location("source")
@options.location("folder")
@click.option(
    "--carried",
    is_flag=True,
    help="Write them as checkpoints carry them, too, such as tokenizer.tiktoken.",
)
@options.step
@options.json_output
@options.storage
@options.talk
def command(
    source: str,
    folder: str,
    carried: bool,
    step: int | None,
    as_json: bool,
    storage_options: StorageOptions,
) -> None:
    """Write a tokenizer's files into FOLDER.

    SOURCE is a checkpoint that carries them, or a tokenizer kind, such as gpt2,
    for those that are on this machine (a folder of that name: ./gpt2). The files
    of gpt2 are OpenAI's, byte for byte, under the names that tiktoken looks for:
    with TIKTOKEN_CACHE_DIR=FOLDER it needs no network. No file is replaced.
    """
    from ckptstore import exporting

    done = exporting.export(
        source, folder, carried=carried, step=step, storage_options=storage_options.of(source)
    )
    if as_json:
        screen.print_json(
            {
                "source": done.source,
                "kind": done.kind,
                "folder": done.folder,
                "files": [
                    {"name": f.name, "size": f.size, "sha256": f.sha256, "new": f.new}
                    for f in done.files
                ],
                "variables": dict(done.variables),
            }
        )
        return
    new = [file for file in done.files if file.new]
    held = screen.plural(len(done.files), "file")
    written = f"wrote {screen.plural(len(new), 'file')} ({screen.size(sum(f.size for f in new))})"
    if not new:
        written = f"all of {held} there already"
    elif len(new) < len(done.files):
        written += f" of {len(done.files)}, the others are there already"
    say(f"{done.source} -> {done.folder}: {written}")
    for variable, value in done.variables.items():
        say(f"to use them set {variable}={shlex.quote(value)}")
