-- VMs can be paused, have an owner, a shape while they run, and a count of restarts.

-- A state more needs the table to be built again. What refers to it is taken away first, so that nothing cascades.
CREATE TABLE vm_processes_kept AS SELECT * FROM vm_processes;
DROP TABLE vm_processes;
CREATE TABLE sessions_kept AS SELECT * FROM sessions;
DROP TABLE sessions;

CREATE TABLE vms_new (
    id            TEXT    NOT NULL PRIMARY KEY CHECK (length(id) = 36),
    name          TEXT    NOT NULL CONSTRAINT vm_name UNIQUE,
    owner         TEXT    NOT NULL DEFAULT '',
    generation    INTEGER NOT NULL CHECK (generation >= 0),
    -- The code has the list of phases.
    phase         TEXT    NOT NULL CHECK (length(phase) > 0),
    failure       TEXT             CHECK (failure IS NULL OR json_valid(failure)),
    spec          TEXT    NOT NULL CHECK (json_valid(spec)),
    image_id      TEXT             REFERENCES images (id),
    kernel_id     TEXT             REFERENCES kernels (id),
    -- How large its machine is, while there is one.
    shape         TEXT             CHECK (shape IS NULL OR json_valid(shape)),
    restart_count INTEGER NOT NULL DEFAULT 0 CHECK (restart_count >= 0),
    boot_timing   TEXT    NOT NULL CHECK (json_valid(boot_timing)),
    last_stop     TEXT             CHECK (last_stop IS NULL OR json_valid(last_stop)),
    create_time   INTEGER NOT NULL,
    start_time    INTEGER,
    stop_time     INTEGER,
    -- A reason exactly while it is failed, so that it is neither lost nor stale.
    CHECK ((phase = 'failed') = (failure IS NOT NULL)),
    -- The name has a column of its own to be unique, and is the spec's.
    CHECK (json_extract(spec, '$.name') = name)
) STRICT, WITHOUT ROWID;

INSERT INTO vms_new (id, name, generation, phase, failure, spec, image_id, kernel_id, boot_timing, last_stop,
                     create_time, start_time, stop_time)
    SELECT id, name, generation, phase, failure, spec, image_id, kernel_id, boot_timing, last_stop,
           create_time, start_time, stop_time FROM vms;
DROP TABLE vms;
ALTER TABLE vms_new RENAME TO vms;
CREATE INDEX vms_by_image ON vms (image_id);
CREATE INDEX vms_by_kernel ON vms (kernel_id);

CREATE TABLE vm_processes (
    vm_id        TEXT    NOT NULL PRIMARY KEY REFERENCES vms (id) ON DELETE CASCADE,
    pid          INTEGER NOT NULL CHECK (pid > 0),
    start_ticks  INTEGER NOT NULL CHECK (start_ticks >= 0),
    -- Bytes: a path need not be text.
    executable   BLOB    NOT NULL,
    host_boot_id TEXT    NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO vm_processes (vm_id, pid, start_ticks, executable, host_boot_id)
    SELECT vm_id, pid, start_ticks, executable, host_boot_id FROM vm_processes_kept;
DROP TABLE vm_processes_kept;

CREATE TABLE sessions (
    id    TEXT NOT NULL PRIMARY KEY CHECK (length(id) = 36),
    vm_id TEXT NOT NULL REFERENCES vms (id) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;
INSERT INTO sessions (id, vm_id) SELECT id, vm_id FROM sessions_kept;
DROP TABLE sessions_kept;
CREATE INDEX sessions_by_vm ON sessions (vm_id);
