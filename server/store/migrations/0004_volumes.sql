-- Volumes, and which VMs name them.

CREATE TABLE volumes (
    id          TEXT    NOT NULL PRIMARY KEY CHECK (length(id) = 36),
    name        TEXT    NOT NULL CONSTRAINT volume_name UNIQUE,
    owner       TEXT    NOT NULL,
    labels      TEXT    NOT NULL CHECK (json_valid(labels)),
    size_mib    INTEGER NOT NULL CHECK (size_mib > 0),
    -- The name that its seed had, for people: the seed itself may be gone.
    seed        TEXT,
    generation  INTEGER NOT NULL CHECK (generation >= 0),
    create_time INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Written with the VM and never changed: a volume that is named here stays.
CREATE TABLE vm_volumes (
    vm_id     TEXT    NOT NULL REFERENCES vms (id) ON DELETE CASCADE,
    volume_id TEXT    NOT NULL REFERENCES volumes (id),
    read_only INTEGER NOT NULL CHECK (read_only IN (0, 1)),
    PRIMARY KEY (vm_id, volume_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX vm_volumes_by_volume ON vm_volumes (volume_id);
