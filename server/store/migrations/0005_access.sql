-- Who asked for an operation, and the audit log.

ALTER TABLE operations ADD COLUMN owner TEXT NOT NULL DEFAULT '';

CREATE INDEX operations_by_owner ON operations (owner, id);
CREATE INDEX volumes_by_owner ON volumes (owner, id);

-- One row for each call that changes something, or was to, written at its end. `sequence` only rises, whatever is
-- forgotten.
CREATE TABLE audit (
    sequence   INTEGER PRIMARY KEY AUTOINCREMENT,
    -- When the call came, and how long it took, nanoseconds.
    time       INTEGER NOT NULL,
    duration   INTEGER NOT NULL CHECK (duration >= 0),
    owner      TEXT    NOT NULL,
    role       TEXT    NOT NULL,
    via        TEXT    NOT NULL,
    method     TEXT    NOT NULL,
    object     TEXT    NOT NULL,
    request_id TEXT    NOT NULL,
    -- A code of gRPC; 0 is success.
    code       INTEGER NOT NULL CHECK (code BETWEEN 0 AND 16),
    reason     TEXT    NOT NULL,
    -- Records that were lost before this one, because they came faster than they could be written.
    lost       INTEGER NOT NULL CHECK (lost >= 0)
) STRICT;

CREATE INDEX audit_by_owner ON audit (owner, sequence);
CREATE INDEX audit_by_time ON audit (time);
