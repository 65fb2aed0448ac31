-- The first schema. Append-only: a change is a new file, never an edit of this one.
--
-- Ids are hyphenated lower-case UUIDv7, so that their order is the order of creation. Times are nanoseconds
-- since the Unix epoch. Lists and maps that nothing searches are JSON.

CREATE TABLE images (
    id                     TEXT    NOT NULL PRIMARY KEY CHECK (length(id) = 36),
    digest                 TEXT    NOT NULL CHECK (digest GLOB 'sha256:*' AND length(digest) = 71),
    os                     TEXT    NOT NULL,
    architecture           TEXT    NOT NULL,
    variant                TEXT,
    config                 TEXT    NOT NULL CHECK (json_valid(config)),
    layers                 TEXT    NOT NULL CHECK (json_valid(layers)),
    rootfs_size_bytes      INTEGER NOT NULL CHECK (rootfs_size_bytes >= 0),
    rootfs_allocated_bytes INTEGER NOT NULL CHECK (rootfs_allocated_bytes >= 0),
    create_time            INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- One content is kept once for each platform. NULLs would differ from each other in a plain UNIQUE.
CREATE UNIQUE INDEX images_by_content ON images (digest, os, architecture, ifnull(variant, ''));

CREATE TABLE image_references (
    reference TEXT NOT NULL PRIMARY KEY CHECK (length(reference) > 0),
    image_id  TEXT NOT NULL REFERENCES images (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE INDEX image_references_by_image ON image_references (image_id);

CREATE TABLE kernels (
    id          TEXT    NOT NULL PRIMARY KEY CHECK (length(id) = 36),
    name        TEXT    NOT NULL CONSTRAINT kernel_name UNIQUE,
    release     TEXT    NOT NULL,
    digest      TEXT    NOT NULL CHECK (digest GLOB 'sha256:*' AND length(digest) = 71),
    size_bytes  INTEGER NOT NULL CHECK (size_bytes >= 0),
    modules     TEXT    NOT NULL CHECK (json_valid(modules)),
    origin      TEXT    NOT NULL,
    is_default  INTEGER NOT NULL CHECK (is_default IN (0, 1)),
    create_time INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- At most one default.
CREATE UNIQUE INDEX kernels_by_default ON kernels (is_default) WHERE is_default = 1;

CREATE TABLE vms (
    id          TEXT    NOT NULL PRIMARY KEY CHECK (length(id) = 36),
    name        TEXT    NOT NULL CONSTRAINT vm_name UNIQUE,
    generation  INTEGER NOT NULL CHECK (generation >= 0),
    phase       TEXT    NOT NULL CHECK (phase IN
        ('creating', 'starting', 'running', 'stopping', 'stopped', 'failed', 'deleting')),
    failure     TEXT             CHECK (failure IS NULL OR json_valid(failure)),
    spec        TEXT    NOT NULL CHECK (json_valid(spec)),
    image_id    TEXT             REFERENCES images (id),
    kernel_id   TEXT             REFERENCES kernels (id),
    boot_timing TEXT    NOT NULL CHECK (json_valid(boot_timing)),
    last_stop   TEXT             CHECK (last_stop IS NULL OR json_valid(last_stop)),
    create_time INTEGER NOT NULL,
    start_time  INTEGER,
    stop_time   INTEGER,
    -- A reason exactly while it is failed, so that it is neither lost nor stale.
    CHECK ((phase = 'failed') = (failure IS NOT NULL)),
    -- The name has a column of its own to be unique, and is the spec's.
    CHECK (json_extract(spec, '$.name') = name)
) STRICT, WITHOUT ROWID;

CREATE INDEX vms_by_image ON vms (image_id);
CREATE INDEX vms_by_kernel ON vms (kernel_id);

-- The VMM process of a VM: written before the guest runs, erased when it is gone.
CREATE TABLE vm_processes (
    vm_id        TEXT    NOT NULL PRIMARY KEY REFERENCES vms (id) ON DELETE CASCADE,
    pid          INTEGER NOT NULL CHECK (pid > 0),
    start_ticks  INTEGER NOT NULL CHECK (start_ticks >= 0),
    -- Bytes: a path need not be text.
    executable   BLOB    NOT NULL,
    host_boot_id TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE sessions (
    id    TEXT NOT NULL PRIMARY KEY CHECK (length(id) = 36),
    vm_id TEXT NOT NULL REFERENCES vms (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE INDEX sessions_by_vm ON sessions (vm_id);

CREATE TABLE operations (
    id          TEXT    NOT NULL PRIMARY KEY CHECK (length(id) = 36),
    kind        TEXT    NOT NULL CHECK (kind IN
        ('pull_image', 'register_image', 'import_kernel', 'create_vm', 'start_vm')),
    target      TEXT    NOT NULL,
    state       TEXT    NOT NULL CHECK (state IN ('running', 'succeeded', 'failed')),
    failure     TEXT             CHECK (failure IS NULL OR json_valid(failure)),
    stages      TEXT    NOT NULL CHECK (json_valid(stages)),
    create_time INTEGER NOT NULL,
    end_time    INTEGER,
    CHECK ((state = 'failed') = (failure IS NOT NULL)),
    CHECK ((state = 'running') = (end_time IS NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX operations_by_state ON operations (state, end_time);

-- What a request id stands for: the operation it began, or the answer it got.
CREATE TABLE requests (
    id           TEXT    NOT NULL PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 64),
    method       TEXT    NOT NULL,
    body_digest  TEXT    NOT NULL,
    operation_id TEXT             REFERENCES operations (id) ON DELETE CASCADE,
    answer       BLOB,
    create_time  INTEGER NOT NULL,
    CHECK ((operation_id IS NULL) <> (answer IS NULL))
) STRICT;

CREATE INDEX requests_by_operation ON requests (operation_id);
CREATE INDEX requests_by_time ON requests (create_time) WHERE answer IS NOT NULL;
