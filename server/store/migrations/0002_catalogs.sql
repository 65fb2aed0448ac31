-- Catalogs; where images come from and which kernel they want; what reading a kernel told; more kinds of operations.

ALTER TABLE images ADD COLUMN origin TEXT NOT NULL DEFAULT '';

-- A name, not an id: the kernel is looked up when a VM is made.
ALTER TABLE images ADD COLUMN kernel TEXT;

ALTER TABLE kernels ADD COLUMN inspection TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(inspection));

CREATE TABLE catalogs (
    name          TEXT    NOT NULL PRIMARY KEY,
    url           TEXT    NOT NULL,
    -- ed25519, in base64; never changes: another key is another catalog.
    public_key    TEXT    NOT NULL,
    -- Of the index below; never goes back.
    version       INTEGER NOT NULL CHECK (version >= 0),
    -- The index as it was signed, verified when it came.
    payload       BLOB    NOT NULL,
    expire_time   INTEGER NOT NULL,
    create_time   INTEGER NOT NULL,
    refresh_time  INTEGER NOT NULL,
    refresh_error TEXT             CHECK (refresh_error IS NULL OR json_valid(refresh_error))
) STRICT, WITHOUT ROWID;

-- The list of kinds goes: the code has it, and each new kind would need the table to be built again. What refers
-- to operations is taken away first, so that nothing cascades.
CREATE TABLE requests_kept AS SELECT * FROM requests;
DROP TABLE requests;

CREATE TABLE operations_new (
    id          TEXT    NOT NULL PRIMARY KEY CHECK (length(id) = 36),
    kind        TEXT    NOT NULL CHECK (length(kind) > 0),
    target      TEXT    NOT NULL,
    state       TEXT    NOT NULL CHECK (state IN ('running', 'succeeded', 'failed')),
    failure     TEXT             CHECK (failure IS NULL OR json_valid(failure)),
    stages      TEXT    NOT NULL CHECK (json_valid(stages)),
    create_time INTEGER NOT NULL,
    end_time    INTEGER,
    CHECK ((state = 'failed') = (failure IS NOT NULL)),
    CHECK ((state = 'running') = (end_time IS NULL))
) STRICT, WITHOUT ROWID;

INSERT INTO operations_new SELECT id, kind, target, state, failure, stages, create_time, end_time FROM operations;
DROP TABLE operations;
ALTER TABLE operations_new RENAME TO operations;
CREATE INDEX operations_by_state ON operations (state, end_time);

CREATE TABLE requests (
    id           TEXT    NOT NULL PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 64),
    method       TEXT    NOT NULL,
    body_digest  TEXT    NOT NULL,
    operation_id TEXT             REFERENCES operations (id) ON DELETE CASCADE,
    answer       BLOB,
    create_time  INTEGER NOT NULL,
    CHECK ((operation_id IS NULL) <> (answer IS NULL))
) STRICT;

INSERT INTO requests (id, method, body_digest, operation_id, answer, create_time)
    SELECT id, method, body_digest, operation_id, answer, create_time FROM requests_kept;
DROP TABLE requests_kept;
CREATE INDEX requests_by_operation ON requests (operation_id);
CREATE INDEX requests_by_time ON requests (create_time) WHERE answer IS NOT NULL;
