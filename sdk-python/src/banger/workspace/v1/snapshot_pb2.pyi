from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Part(_message.Message):
    __slots__ = ("repository", "refs", "index", "pack", "entries", "manifest_end", "content", "note", "end")
    REPOSITORY_FIELD_NUMBER: _ClassVar[int]
    REFS_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    PACK_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_END_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    repository: Repository
    refs: Refs
    index: IndexEntries
    pack: PackData
    entries: Entries
    manifest_end: ManifestEnd
    content: Content
    note: Note
    end: End
    def __init__(self, repository: _Optional[_Union[Repository, _Mapping]] = ..., refs: _Optional[_Union[Refs, _Mapping]] = ..., index: _Optional[_Union[IndexEntries, _Mapping]] = ..., pack: _Optional[_Union[PackData, _Mapping]] = ..., entries: _Optional[_Union[Entries, _Mapping]] = ..., manifest_end: _Optional[_Union[ManifestEnd, _Mapping]] = ..., content: _Optional[_Union[Content, _Mapping]] = ..., note: _Optional[_Union[Note, _Mapping]] = ..., end: _Optional[_Union[End, _Mapping]] = ...) -> None: ...

class Repository(_message.Message):
    __slots__ = ("path", "kind", "object_format", "head_ref", "head_commit", "shallow", "unfinished", "settings")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Repository.Kind]
        KIND_GIT: _ClassVar[Repository.Kind]
        KIND_PLAIN: _ClassVar[Repository.Kind]
    KIND_UNSPECIFIED: Repository.Kind
    KIND_GIT: Repository.Kind
    KIND_PLAIN: Repository.Kind
    class ObjectFormat(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        OBJECT_FORMAT_UNSPECIFIED: _ClassVar[Repository.ObjectFormat]
        OBJECT_FORMAT_SHA1: _ClassVar[Repository.ObjectFormat]
        OBJECT_FORMAT_SHA256: _ClassVar[Repository.ObjectFormat]
    OBJECT_FORMAT_UNSPECIFIED: Repository.ObjectFormat
    OBJECT_FORMAT_SHA1: Repository.ObjectFormat
    OBJECT_FORMAT_SHA256: Repository.ObjectFormat
    class SettingsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PATH_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    OBJECT_FORMAT_FIELD_NUMBER: _ClassVar[int]
    HEAD_REF_FIELD_NUMBER: _ClassVar[int]
    HEAD_COMMIT_FIELD_NUMBER: _ClassVar[int]
    SHALLOW_FIELD_NUMBER: _ClassVar[int]
    UNFINISHED_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    path: bytes
    kind: Repository.Kind
    object_format: Repository.ObjectFormat
    head_ref: bytes
    head_commit: str
    shallow: _containers.RepeatedScalarFieldContainer[str]
    unfinished: _containers.RepeatedCompositeFieldContainer[Unfinished]
    settings: _containers.ScalarMap[str, str]
    def __init__(self, path: _Optional[bytes] = ..., kind: _Optional[_Union[Repository.Kind, str]] = ..., object_format: _Optional[_Union[Repository.ObjectFormat, str]] = ..., head_ref: _Optional[bytes] = ..., head_commit: _Optional[str] = ..., shallow: _Optional[_Iterable[str]] = ..., unfinished: _Optional[_Iterable[_Union[Unfinished, _Mapping]]] = ..., settings: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Unfinished(_message.Message):
    __slots__ = ("kind", "commits")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Unfinished.Kind]
        KIND_MERGE: _ClassVar[Unfinished.Kind]
        KIND_REBASE: _ClassVar[Unfinished.Kind]
        KIND_AM: _ClassVar[Unfinished.Kind]
        KIND_CHERRY_PICK: _ClassVar[Unfinished.Kind]
        KIND_REVERT: _ClassVar[Unfinished.Kind]
        KIND_BISECT: _ClassVar[Unfinished.Kind]
    KIND_UNSPECIFIED: Unfinished.Kind
    KIND_MERGE: Unfinished.Kind
    KIND_REBASE: Unfinished.Kind
    KIND_AM: Unfinished.Kind
    KIND_CHERRY_PICK: Unfinished.Kind
    KIND_REVERT: Unfinished.Kind
    KIND_BISECT: Unfinished.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    COMMITS_FIELD_NUMBER: _ClassVar[int]
    kind: Unfinished.Kind
    commits: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, kind: _Optional[_Union[Unfinished.Kind, str]] = ..., commits: _Optional[_Iterable[str]] = ...) -> None: ...

class Refs(_message.Message):
    __slots__ = ("refs",)
    REFS_FIELD_NUMBER: _ClassVar[int]
    refs: _containers.RepeatedCompositeFieldContainer[Ref]
    def __init__(self, refs: _Optional[_Iterable[_Union[Ref, _Mapping]]] = ...) -> None: ...

class Ref(_message.Message):
    __slots__ = ("kind", "name", "object_id", "symbolic_target")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Ref.Kind]
        KIND_REF: _ClassVar[Ref.Kind]
        KIND_STASH: _ClassVar[Ref.Kind]
        KIND_LOST: _ClassVar[Ref.Kind]
    KIND_UNSPECIFIED: Ref.Kind
    KIND_REF: Ref.Kind
    KIND_STASH: Ref.Kind
    KIND_LOST: Ref.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    SYMBOLIC_TARGET_FIELD_NUMBER: _ClassVar[int]
    kind: Ref.Kind
    name: bytes
    object_id: str
    symbolic_target: bytes
    def __init__(self, kind: _Optional[_Union[Ref.Kind, str]] = ..., name: _Optional[bytes] = ..., object_id: _Optional[str] = ..., symbolic_target: _Optional[bytes] = ...) -> None: ...

class IndexEntries(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[IndexEntry]
    def __init__(self, entries: _Optional[_Iterable[_Union[IndexEntry, _Mapping]]] = ...) -> None: ...

class IndexEntry(_message.Message):
    __slots__ = ("path", "mode", "object_id", "stage")
    PATH_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    OBJECT_ID_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    path: bytes
    mode: int
    object_id: str
    stage: int
    def __init__(self, path: _Optional[bytes] = ..., mode: _Optional[int] = ..., object_id: _Optional[str] = ..., stage: _Optional[int] = ...) -> None: ...

class PackData(_message.Message):
    __slots__ = ("data", "is_last")
    DATA_FIELD_NUMBER: _ClassVar[int]
    IS_LAST_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    is_last: bool
    def __init__(self, data: _Optional[bytes] = ..., is_last: bool = ...) -> None: ...

class Entries(_message.Message):
    __slots__ = ("entries",)
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[Entry]
    def __init__(self, entries: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ...) -> None: ...

class Entry(_message.Message):
    __slots__ = ("path", "kind", "mode", "size", "sha256", "link_target")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Entry.Kind]
        KIND_FILE: _ClassVar[Entry.Kind]
        KIND_SYMLINK: _ClassVar[Entry.Kind]
        KIND_DIRECTORY: _ClassVar[Entry.Kind]
        KIND_REMOVED: _ClassVar[Entry.Kind]
    KIND_UNSPECIFIED: Entry.Kind
    KIND_FILE: Entry.Kind
    KIND_SYMLINK: Entry.Kind
    KIND_DIRECTORY: Entry.Kind
    KIND_REMOVED: Entry.Kind
    PATH_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    LINK_TARGET_FIELD_NUMBER: _ClassVar[int]
    path: bytes
    kind: Entry.Kind
    mode: int
    size: int
    sha256: bytes
    link_target: bytes
    def __init__(self, path: _Optional[bytes] = ..., kind: _Optional[_Union[Entry.Kind, str]] = ..., mode: _Optional[int] = ..., size: _Optional[int] = ..., sha256: _Optional[bytes] = ..., link_target: _Optional[bytes] = ...) -> None: ...

class ManifestEnd(_message.Message):
    __slots__ = ("entry_count",)
    ENTRY_COUNT_FIELD_NUMBER: _ClassVar[int]
    entry_count: int
    def __init__(self, entry_count: _Optional[int] = ...) -> None: ...

class Content(_message.Message):
    __slots__ = ("entry", "data", "is_last", "sha256", "encoding")
    class Encoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        ENCODING_UNSPECIFIED: _ClassVar[Content.Encoding]
        ENCODING_ZLIB: _ClassVar[Content.Encoding]
    ENCODING_UNSPECIFIED: Content.Encoding
    ENCODING_ZLIB: Content.Encoding
    ENTRY_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    IS_LAST_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    entry: int
    data: bytes
    is_last: bool
    sha256: bytes
    encoding: Content.Encoding
    def __init__(self, entry: _Optional[int] = ..., data: _Optional[bytes] = ..., is_last: bool = ..., sha256: _Optional[bytes] = ..., encoding: _Optional[_Union[Content.Encoding, str]] = ...) -> None: ...

class Note(_message.Message):
    __slots__ = ("kind", "path", "detail", "is_loss")
    class Kind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
        __slots__ = ()
        KIND_UNSPECIFIED: _ClassVar[Note.Kind]
        KIND_UNREADABLE: _ClassVar[Note.Kind]
        KIND_SPECIAL_FILE: _ClassVar[Note.Kind]
        KIND_TOO_LARGE: _ClassVar[Note.Kind]
        KIND_BAD_NAME: _ClassVar[Note.Kind]
        KIND_MOVED: _ClassVar[Note.Kind]
        KIND_REFS_MOVED: _ClassVar[Note.Kind]
        KIND_LOCKED: _ClassVar[Note.Kind]
        KIND_GIT_REMOVED: _ClassVar[Note.Kind]
        KIND_BROKEN_REPOSITORY: _ClassVar[Note.Kind]
        KIND_LINKED_WORKTREE: _ClassVar[Note.Kind]
        KIND_IGNORED: _ClassVar[Note.Kind]
        KIND_MISSING_OBJECTS: _ClassVar[Note.Kind]
        KIND_BAD_REF: _ClassVar[Note.Kind]
    KIND_UNSPECIFIED: Note.Kind
    KIND_UNREADABLE: Note.Kind
    KIND_SPECIAL_FILE: Note.Kind
    KIND_TOO_LARGE: Note.Kind
    KIND_BAD_NAME: Note.Kind
    KIND_MOVED: Note.Kind
    KIND_REFS_MOVED: Note.Kind
    KIND_LOCKED: Note.Kind
    KIND_GIT_REMOVED: Note.Kind
    KIND_BROKEN_REPOSITORY: Note.Kind
    KIND_LINKED_WORKTREE: Note.Kind
    KIND_IGNORED: Note.Kind
    KIND_MISSING_OBJECTS: Note.Kind
    KIND_BAD_REF: Note.Kind
    KIND_FIELD_NUMBER: _ClassVar[int]
    PATH_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    IS_LOSS_FIELD_NUMBER: _ClassVar[int]
    kind: Note.Kind
    path: bytes
    detail: str
    is_loss: bool
    def __init__(self, kind: _Optional[_Union[Note.Kind, str]] = ..., path: _Optional[bytes] = ..., detail: _Optional[str] = ..., is_loss: bool = ...) -> None: ...

class End(_message.Message):
    __slots__ = ("state", "notes_left_out")
    STATE_FIELD_NUMBER: _ClassVar[int]
    NOTES_LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    state: bytes
    notes_left_out: int
    def __init__(self, state: _Optional[bytes] = ..., notes_left_out: _Optional[int] = ...) -> None: ...

class Known(_message.Message):
    __slots__ = ("repositories", "is_last", "encodings")
    REPOSITORIES_FIELD_NUMBER: _ClassVar[int]
    IS_LAST_FIELD_NUMBER: _ClassVar[int]
    ENCODINGS_FIELD_NUMBER: _ClassVar[int]
    repositories: _containers.RepeatedCompositeFieldContainer[KnownRepository]
    is_last: bool
    encodings: _containers.RepeatedScalarFieldContainer[Content.Encoding]
    def __init__(self, repositories: _Optional[_Iterable[_Union[KnownRepository, _Mapping]]] = ..., is_last: bool = ..., encodings: _Optional[_Iterable[_Union[Content.Encoding, str]]] = ...) -> None: ...

class KnownRepository(_message.Message):
    __slots__ = ("path", "commits")
    PATH_FIELD_NUMBER: _ClassVar[int]
    COMMITS_FIELD_NUMBER: _ClassVar[int]
    path: bytes
    commits: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, path: _Optional[bytes] = ..., commits: _Optional[_Iterable[str]] = ...) -> None: ...

class Needed(_message.Message):
    __slots__ = ("entries", "is_last")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    IS_LAST_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedScalarFieldContainer[int]
    is_last: bool
    def __init__(self, entries: _Optional[_Iterable[int]] = ..., is_last: bool = ...) -> None: ...

class Base(_message.Message):
    __slots__ = ("repositories",)
    REPOSITORIES_FIELD_NUMBER: _ClassVar[int]
    repositories: _containers.RepeatedCompositeFieldContainer[BaseRepository]
    def __init__(self, repositories: _Optional[_Iterable[_Union[BaseRepository, _Mapping]]] = ...) -> None: ...

class BaseRepository(_message.Message):
    __slots__ = ("path", "commits", "head_commit", "shallow")
    PATH_FIELD_NUMBER: _ClassVar[int]
    COMMITS_FIELD_NUMBER: _ClassVar[int]
    HEAD_COMMIT_FIELD_NUMBER: _ClassVar[int]
    SHALLOW_FIELD_NUMBER: _ClassVar[int]
    path: bytes
    commits: _containers.RepeatedScalarFieldContainer[str]
    head_commit: str
    shallow: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, path: _Optional[bytes] = ..., commits: _Optional[_Iterable[str]] = ..., head_commit: _Optional[str] = ..., shallow: _Optional[_Iterable[str]] = ...) -> None: ...

class Status(_message.Message):
    __slots__ = ("exists", "repositories", "notes", "notes_left_out")
    EXISTS_FIELD_NUMBER: _ClassVar[int]
    REPOSITORIES_FIELD_NUMBER: _ClassVar[int]
    NOTES_FIELD_NUMBER: _ClassVar[int]
    NOTES_LEFT_OUT_FIELD_NUMBER: _ClassVar[int]
    exists: bool
    repositories: _containers.RepeatedCompositeFieldContainer[RepositoryStatus]
    notes: _containers.RepeatedCompositeFieldContainer[Note]
    notes_left_out: int
    def __init__(self, exists: bool = ..., repositories: _Optional[_Iterable[_Union[RepositoryStatus, _Mapping]]] = ..., notes: _Optional[_Iterable[_Union[Note, _Mapping]]] = ..., notes_left_out: _Optional[int] = ...) -> None: ...

class RepositoryStatus(_message.Message):
    __slots__ = ("path", "kind", "head_ref", "head_commit", "ahead_count", "behind_count", "new_commit_count", "staged_count", "conflicted_count", "changed_count", "untracked_count", "object_bytes", "file_bytes", "unfinished", "changed_paths", "committed_paths")
    PATH_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    HEAD_REF_FIELD_NUMBER: _ClassVar[int]
    HEAD_COMMIT_FIELD_NUMBER: _ClassVar[int]
    AHEAD_COUNT_FIELD_NUMBER: _ClassVar[int]
    BEHIND_COUNT_FIELD_NUMBER: _ClassVar[int]
    NEW_COMMIT_COUNT_FIELD_NUMBER: _ClassVar[int]
    STAGED_COUNT_FIELD_NUMBER: _ClassVar[int]
    CONFLICTED_COUNT_FIELD_NUMBER: _ClassVar[int]
    CHANGED_COUNT_FIELD_NUMBER: _ClassVar[int]
    UNTRACKED_COUNT_FIELD_NUMBER: _ClassVar[int]
    OBJECT_BYTES_FIELD_NUMBER: _ClassVar[int]
    FILE_BYTES_FIELD_NUMBER: _ClassVar[int]
    UNFINISHED_FIELD_NUMBER: _ClassVar[int]
    CHANGED_PATHS_FIELD_NUMBER: _ClassVar[int]
    COMMITTED_PATHS_FIELD_NUMBER: _ClassVar[int]
    path: bytes
    kind: Repository.Kind
    head_ref: bytes
    head_commit: str
    ahead_count: int
    behind_count: int
    new_commit_count: int
    staged_count: int
    conflicted_count: int
    changed_count: int
    untracked_count: int
    object_bytes: int
    file_bytes: int
    unfinished: _containers.RepeatedCompositeFieldContainer[Unfinished]
    changed_paths: _containers.RepeatedScalarFieldContainer[bytes]
    committed_paths: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, path: _Optional[bytes] = ..., kind: _Optional[_Union[Repository.Kind, str]] = ..., head_ref: _Optional[bytes] = ..., head_commit: _Optional[str] = ..., ahead_count: _Optional[int] = ..., behind_count: _Optional[int] = ..., new_commit_count: _Optional[int] = ..., staged_count: _Optional[int] = ..., conflicted_count: _Optional[int] = ..., changed_count: _Optional[int] = ..., untracked_count: _Optional[int] = ..., object_bytes: _Optional[int] = ..., file_bytes: _Optional[int] = ..., unfinished: _Optional[_Iterable[_Union[Unfinished, _Mapping]]] = ..., changed_paths: _Optional[_Iterable[bytes]] = ..., committed_paths: _Optional[_Iterable[bytes]] = ...) -> None: ...
