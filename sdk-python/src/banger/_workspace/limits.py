"""The bounds of a snapshot, as in `workspace/src/wire/limits.rs`. Each side keeps them, and trusts no other to."""

REPOSITORIES_MAX = 256
REFS_MAX = 200_000
INDEX_ENTRIES_MAX = 1_000_000
ENTRIES_MAX = 1_000_000
NAMES_MAX_BYTES = 256 << 20
PATH_MAX_BYTES = 4095
NAME_MAX_BYTES = 255
DEPTH_MAX = 256
REF_NAME_MAX_BYTES = 1024
SHALLOW_MAX = 50_000
UNFINISHED_COMMITS_MAX = 64
UNFINISHED_MAX = 8
KNOWN_COMMITS_MAX = 100_000
NOTES_MAX = 1000
NOTE_MAX_BYTES = 1024
DATA_MAX_BYTES = 1 << 20
SNAPSHOT_MAX_BYTES = 64 << 30
STATUS_PATHS_MAX = 1000
# Whoever sends begins a new message beyond these.
MESSAGE_NAMES_BYTES = 256 << 10
MESSAGE_ITEMS = 4096
# The settings that a repository may bring, and their values.
SETTINGS = {
    "core.autocrlf": ("true", "false", "input"),
    "core.eol": ("lf", "crlf", "native"),
    "core.filemode": ("true", "false"),
}
# git's mode of another repository's commit.
GITLINK = 0o160_000
