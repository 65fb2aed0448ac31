"""Files in a running VM, as a user of the VM, with that user's rights."""

from __future__ import annotations

import builtins
import os
import posixpath
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, BinaryIO, Literal

from banger import _methods, errors, v1
from banger._async import _io
from banger._async._call import PAGE_SIZE, Caller, new_request_id
from banger._pack import CHUNK_BYTES, chunked, pack
from banger._unpack import Downloaded, Unpacker

WriteMode = Literal["replace", "create", "append"]
_MODES = {
    "replace": v1.WriteFileStart.MODE_REPLACE,
    "create": v1.WriteFileStart.MODE_CREATE,
    "append": v1.WriteFileStart.MODE_APPEND,
}
# What is read at once if the caller names no bound.
_READ_MAX = 256 << 20


class Files:
    """The files of a VM. A path is absolute, or relative to the user's home."""

    def __init__(self, caller: Caller, vm: str, user: str = "") -> None:
        self._caller = caller
        self._vm = vm
        self._user = user

    def as_user(self, user: str) -> Files:
        """The same files as another user: `user`, `uid`, `user:group` or `uid:gid`."""
        return Files(self._caller, self._vm, user)

    def _on(self, path: str) -> dict[str, Any]:
        return {"vm": self._vm, "user": self._user, "path": path}

    async def read(self, path: str, *, offset: int = 0, length: int | None = None, max_bytes: int = _READ_MAX) -> bytes:
        """A file, or a part of it; a negative offset counts from the end.

        Raises:
            FileTooLong: If more than `max_bytes` come.
        """
        data = bytearray()
        async for chunk in self.stream(path, offset=offset, length=length):
            data += chunk
            if len(data) > max_bytes:
                raise errors.FileTooLong(path, max_bytes)
        return bytes(data)

    async def read_text(self, path: str, *, encoding: str = "utf-8", max_bytes: int = _READ_MAX) -> str:
        """A file as text."""
        return (await self.read(path, max_bytes=max_bytes)).decode(encoding)

    async def stream(self, path: str, *, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """A file in chunks. Not repeated when the connection breaks: the file may have changed."""
        request = v1.ReadFileRequest(**self._on(path), offset=offset)
        if length is not None:
            request.length = length
        stream = self._caller.channel.stream(_methods.READ_FILE, request)
        try:
            while (message := await stream.read()) is not None:
                if message.WhichOneof("message") == "chunk":
                    yield message.chunk
        finally:
            stream.cancel()

    async def write(
        self,
        path: str,
        content: bytes | str | BinaryIO | Iterable[bytes],
        *,
        mode: WriteMode = "replace",
        offset: int | None = None,
        truncate: bool = False,
        permissions: int | None = None,
        owner: str = "",
        make_parents: bool = False,
        on_progress: Callable[[int], object] | None = None,
    ) -> v1.FileInfo:
        """Writes a file: replaced at once when its content is whole (`replace`), refused where something is already
        (`create`), added to it (`append`), or into it from `offset` on. Not repeated when the connection breaks; the
        error's metadata has `written`: `no` or `maybe`. To repeat an `append` may add it twice: what must be repeatable
        goes to an `offset`, the size that the file had.
        """
        start = v1.WriteFileStart(
            **self._on(path), mode=_MODES[mode], owner=owner, make_parents=make_parents, truncate=truncate
        )
        if offset is not None:
            start.mode = v1.WriteFileStart.MODE_AT
            start.offset = offset
        if permissions is not None:
            start.permissions = permissions
        info: v1.FileInfo = await self._caller.upload(
            _methods.WRITE_FILE,
            v1.WriteFileRequest(start=start),
            _chunks(content),
            lambda chunk: v1.WriteFileRequest(chunk=chunk),
            v1.WriteFileRequest(end=v1.WriteFileEnd()),
            "file",
            _bytes_to(on_progress),
        )
        return info

    async def stat(self, path: str, *, follow: bool = True) -> v1.FileInfo:
        """What is at a path."""
        request = v1.StatFileRequest(**self._on(path), follow=follow)
        return (await self._caller.repeat(_methods.STAT_FILE, request)).file

    async def exists(self, path: str) -> bool:
        """Whether something is at a path; a link that leads nowhere is something."""
        try:
            await self.stat(path, follow=False)
        except errors.NotFoundError as error:
            if error.reason != "FILE_NOT_FOUND":
                raise
            return False
        return True

    async def list(self, path: str, *, depth: int = 1) -> AsyncIterator[v1.FileInfo]:
        """What is in a directory, and so far down; paths are relative to it."""
        pages = self._caller.pages(
            _methods.LIST_FILES,
            lambda token: v1.ListFilesRequest(**self._on(path), depth=depth, page_size=PAGE_SIZE, page_token=token),
            lambda page: page.files,
        )
        async for info in pages:
            yield info

    async def mkdir(self, path: str, *, permissions: int | None = None, parents: bool = False) -> v1.FileInfo:
        """Makes a directory; with `parents` those on the way too, and one that is there is no error."""
        request = v1.MakeDirectoryRequest(**self._on(path), make_parents=parents, request_id=new_request_id(None))
        if permissions is not None:
            request.permissions = permissions
        return (await self._caller.repeat(_methods.MAKE_DIRECTORY, request)).file

    async def remove(self, path: str, *, recursive: bool = False, missing_ok: bool = False) -> int:
        """Removes a file, or a directory with all that is in it; how many names went."""
        request = v1.RemoveFileRequest(
            **self._on(path), recursive=recursive, allow_missing=missing_ok, request_id=new_request_id(None)
        )
        return (await self._caller.repeat(_methods.REMOVE_FILE, request)).removed_count

    async def rename(self, path: str, new_path: str, *, replace: bool = True) -> v1.FileInfo:
        """Gives a file another path, on the same file system."""
        request = v1.RenameFileRequest(
            **self._on(path), new_path=new_path, no_replace=not replace, request_id=new_request_id(None)
        )
        return (await self._caller.repeat(_methods.RENAME_FILE, request)).file

    async def set_attributes(
        self,
        path: str,
        *,
        permissions: int | None = None,
        owner: str = "",
        mtime_ns: int | None = None,
        follow: bool = True,
    ) -> v1.FileInfo:
        """Changes a file's mode, owner or time; what is not given stays."""
        request = v1.SetFileAttributesRequest(
            **self._on(path), owner=owner, no_follow=not follow, request_id=new_request_id(None)
        )
        if permissions is not None:
            request.permissions = permissions
        if mtime_ns is not None:
            request.mtime.FromNanoseconds(mtime_ns)
        return (await self._caller.repeat(_methods.SET_FILE_ATTRIBUTES, request)).file

    async def symlink(self, path: str, target: str, *, replace: bool = False) -> v1.FileInfo:
        """Makes a symbolic link at `path` that leads to `target`, as it stands."""
        request = v1.MakeSymlinkRequest(
            **self._on(path), target=target, replace=replace, request_id=new_request_id(None)
        )
        return (await self._caller.repeat(_methods.MAKE_SYMLINK, request)).file

    async def watch(self, path: str, *, recursive: bool = False) -> AsyncIterator[v1.WatchFilesResponse]:
        """What changes in a directory, or of a file: first `started`, then `event` and, where changes were lost,
        `overflow`. Ends with an error when the connection breaks: look anew.
        """
        request = v1.WatchFilesRequest(**self._on(path), recursive=recursive)
        stream = self._caller.channel.stream(_methods.WATCH_FILES, request)
        try:
            while (message := await stream.read()) is not None:
                if message.WhichOneof("message") != "heartbeat":
                    yield message
        finally:
            stream.cancel()

    async def upload(
        self,
        local: str | os.PathLike[str],
        path: str,
        *,
        on_progress: Callable[[int], object] | None = None,
    ) -> v1.FilesMoved:
        """Puts a file, or a directory with all that is in it, into the VM: into `path` if that is a directory, and
        otherwise by that name. Modes, times, symbolic and hard links, extended attributes and holes are kept; owners
        are the user's; devices are left out. The tree may be in use: `omissions` of what is returned tells what was not
        sent, because it is a socket or was gone when its turn came, or was sent with zeros, because it became shorter
        meanwhile: `count`, and the `first` 64 of them with `path` and `reason`.

        Raises:
            LocalFileError: If something cannot be read, or `local` is not there.
        """
        omissions = v1.Omissions()
        start = v1.UploadFilesStart(**self._on(path), names_entry=True)
        moved: v1.FilesMoved = await self._caller.upload(
            _methods.UPLOAD_FILES,
            v1.UploadFilesRequest(start=start),
            chunked(pack(local, omissions)),
            lambda chunk: v1.UploadFilesRequest(chunk=chunk),
            v1.UploadFilesRequest(end=v1.UploadFilesEnd()),
            "done",
            _bytes_to(on_progress),
        )
        if omissions.count:
            moved.omissions.CopyFrom(omissions)
        return moved

    async def download(
        self,
        path: str,
        local: str | os.PathLike[str],
        *,
        max_entries: int = 1_000_000,
        max_bytes: int = 1 << 40,
        on_progress: Callable[[int], object] | None = None,
    ) -> Downloaded:
        """Gets a file, or a directory with all that is in it, out of the VM: into `local` if that is a directory or
        ends with a slash, and otherwise by that name. Files appear under their names when they are whole. Nothing is
        written anywhere else, whatever the VM sends.

        Raises:
            UnsafeDownload: If the VM sent what no honest VM sends, or more than may come.
        """
        request = v1.DownloadFilesRequest(**self._on(path))
        stream = self._caller.channel.stream(_methods.DOWNLOAD_FILES, request)
        # As the daemon has it: what is in a root or home directory has no name before it.
        top = posixpath.basename(path.rstrip("/"))
        unpacker: Unpacker | None = None
        received = 0
        try:
            while (message := await stream.read()) is not None:
                which = message.WhichOneof("message")
                if which == "heartbeat":
                    continue
                if unpacker is None:
                    # Not before something came: an error leaves nothing here.
                    name = "" if top in ("~", ".") else top
                    unpacker = await _io.blocking(Unpacker, local, name, max_entries, max_bytes)
                if which == "done":
                    return await _io.blocking(unpacker.finish, message.done.omissions)
                await _io.blocking(unpacker.feed, message.chunk)
                received += len(message.chunk)
                if on_progress is not None:
                    on_progress(received)
            raise errors.ConnectionLost("DownloadFiles")
        finally:
            stream.cancel()
            if unpacker is not None:
                unpacker.close()


def _bytes_to(on_progress: Callable[[int], object] | None) -> Callable[[Any], None]:
    """Tells how many bytes the VM was handed."""

    def tell(message: Any) -> None:
        if on_progress is not None and message.WhichOneof("message") == "progress_bytes":
            on_progress(message.progress_bytes)

    return tell


def _chunks(content: bytes | str | BinaryIO | Iterable[bytes]) -> Iterator[bytes]:
    """In pieces of a length for the wire."""
    if isinstance(content, str):
        content = content.encode()
    if isinstance(content, (bytes, bytearray, memoryview)):
        data = memoryview(content)
        return (bytes(data[at : at + CHUNK_BYTES]) for at in range(0, len(data), CHUNK_BYTES))
    if hasattr(content, "read"):
        file: Any = content
        return builtins.iter(lambda: file.read(CHUNK_BYTES), b"")
    return chunked(builtins.iter(content))


__all__ = ["Files", "WriteMode"]
