-- Workspaces: what was carried into a VM, so that what was done there since can be told.

CREATE TABLE workspaces (
    vm_id       TEXT    NOT NULL REFERENCES vms (id) ON DELETE CASCADE,
    -- Where it is, as the VM says: an absolute path.
    path        BLOB    NOT NULL,
    -- Where it was to be, as its caller said.
    asked_path  BLOB    NOT NULL,
    user        TEXT    NOT NULL,
    -- The commits that its caller has, as a message of the contract.
    base        BLOB    NOT NULL,
    has_git     INTEGER NOT NULL CHECK (has_git IN (0, 1)),
    -- Digest of the state in which it was made.
    state       BLOB    NOT NULL CHECK (length(state) = 32),
    request_id  TEXT    NOT NULL,
    create_time INTEGER NOT NULL,
    PRIMARY KEY (vm_id, path)
) STRICT, WITHOUT ROWID;
