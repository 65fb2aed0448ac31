-- Whose the kept answers are, and how much each owner has of them: of each a bounded number is kept.

ALTER TABLE requests ADD COLUMN owner TEXT NOT NULL DEFAULT '';

CREATE INDEX requests_by_owner ON requests (owner, create_time) WHERE answer IS NOT NULL;

-- One row for each owner that has answers. Kept by the triggers below.
CREATE TABLE answers (
    owner TEXT    NOT NULL PRIMARY KEY,
    count INTEGER NOT NULL CHECK (count > 0),
    bytes INTEGER NOT NULL CHECK (bytes >= 0)
) STRICT, WITHOUT ROWID;

INSERT INTO answers (owner, count, bytes)
    SELECT owner, count(*), sum(length(answer)) FROM requests WHERE answer IS NOT NULL GROUP BY owner;

CREATE TRIGGER answers_come AFTER INSERT ON requests WHEN NEW.answer IS NOT NULL BEGIN
    INSERT INTO answers (owner, count, bytes) VALUES (NEW.owner, 1, length(NEW.answer))
        ON CONFLICT (owner) DO UPDATE SET count = count + 1, bytes = bytes + excluded.bytes;
END;

CREATE TRIGGER answers_go AFTER DELETE ON requests WHEN OLD.answer IS NOT NULL BEGIN
    DELETE FROM answers WHERE owner = OLD.owner AND count = 1;
    UPDATE answers SET count = count - 1, bytes = bytes - length(OLD.answer) WHERE owner = OLD.owner;
END;
