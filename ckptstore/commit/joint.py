"""One state whose files several processes write, and that one manifest commits.

One of them, the coordinator, begins it (`Joint`) and hands its draft to all; each writes files of
its own (`Share`) and sends back what is known of them; the coordinator commits all of them at once.

Rule 1: whoever dies, before the manifest is there nothing is, and with it everything: the
coordinator looks at every file by name and size before it creates the manifest, and after. Rule 2:
files of a share carry the write's id in their names, in a step, too. So what comes late, of a write
that was given up, is a leftover, and can neither complete another write nor take its place. Rule 3:
where all fails for certain the coordinator removes what all wrote, and each what it wrote itself;
where whether it was committed is not known, everything stays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from ckptstore.commit.draft import Rehearsal
from ckptstore.commit.layout import Committed, folder_of
from ckptstore.commit.save import Index, Save, begin
from ckptstore.commit.writing import Writing
from ckptstore.committer import Committer
from ckptstore.errors import CkptstoreError, CorruptionError, UnsupportedError
from ckptstore.formats.base import NewFiles
from ckptstore.manifest import FileEntry, Manifest
from ckptstore.storage.base import Storage
from ckptstore.storage.several import delete_or_leave

__all__ = ["Joint", "Share"]

_DRAFT = "the draft of a save by several processes"


class Share(Writing):
    """The files that one process writes of a state; a context manager that cleans up.

    Args:
        storage: where; the same location as the coordinator's.
        draft: what the coordinator handed out, from `Joint.draft`.
        index: refuses what is not safe to load in a file just written.
        durable: whether a loss of power must not matter once it is committed.
        parallel: whether threads of its own may compute digests.
    """

    def __init__(
        self,
        storage: Storage,
        draft: str,
        *,
        index: Index,
        durable: bool = True,
        parallel: bool = True,
    ) -> None:
        manifest = Manifest.from_json(draft, _DRAFT)
        super().__init__(
            storage,
            folder_of(manifest),
            manifest,
            index=index,
            durable=durable,
            parallel=parallel,
            own_names=True,
        )

    def __enter__(self) -> Share:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is not None:
            self.abandon()

    def entries(self) -> str:
        """Return what is known of the files, for the coordinator: names, sizes and digests."""
        self._end_digests()
        return self.state.manifest.to_json()


class Joint:
    """The coordinator's side of a save by several processes.

    Args:
        committer: of the location, where a history has its policy.
        save: what is to be committed; what it writes comes with `commit`.
        overwrite: in a history, whether a step that is there may be replaced.

    Attributes:
        draft: a text to hand to all who write; small.

    Raises:
        ConflictError, UnsupportedError: as `ckptstore.commit.save.begin`; nothing was written.
    """

    def __init__(self, committer: Committer, save: Save, *, overwrite: bool = False) -> None:
        history = committer.keep is not None
        self._committer = committer
        self._begun = begin(committer.storage, save, history=history)
        self._save = save
        self._overwrite = overwrite
        self.draft = self._begun.manifest.to_json()

    def commit(self, entries: Iterable[str], write: Callable[[NewFiles], None]) -> Committed:
        """Commit the files of all shares, and what the coordinator itself adds.

        Guarantee: all of it or nothing (G2), and of several writers of one state one commits (G7).

        Args:
            entries: what `Share.entries` returned, of each share.
            write: adds the coordinator's own files; called once, or twice where a step is there.

        Raises:
            ConflictError: another writer was first, or a step is there with other content.
            StorageError: a file of a share is gone or not whole, or the storage failed.
        """
        files: dict[str, FileEntry] = {}

        def everything(new: NewFiles) -> None:
            if isinstance(new, (Writing, Rehearsal)):
                new.include(files)
            write(new)

        save = replace(self._save, write=everything, begun=self._begun)
        try:
            files |= self._joined(entries)
            state = self._committer.commit(save, self._overwrite)
        except CkptstoreError as error:
            if error.committed is False:
                self._remove(files)
            raise
        if state.manifest.write_id != self._begun.manifest.write_id:
            self._remove(files)  # The step was there already, with this very content.
        return state

    def _joined(self, entries: Iterable[str]) -> dict[str, FileEntry]:
        files: dict[str, FileEntry] = {}
        for text in entries:
            share = Manifest.from_json(text, "what a process says of its files")
            if share.write_id != self._begun.manifest.write_id:
                raise UnsupportedError(
                    f"a process wrote for {share.called}, write {share.write_id}, and the save of "
                    f"{self._committer.storage.location} is write "
                    f"{self._begun.manifest.write_id}; nothing was committed, save again"
                )
            twice = sorted({*files} & {*share.files})
            if twice:
                raise CorruptionError(
                    f"two processes wrote {twice[0]!r} of {self._committer.storage.location}; "
                    "nothing was committed: give each process a rank of its own"
                )
            files |= share.files
        return files

    def _remove(self, files: Mapping[str, FileEntry]) -> None:
        paths = (f"{self._begun.folder}/{entry.path}" for entry in files.values())
        delete_or_leave(self._committer.storage, paths)
