-- The outbox of kvsync: changes of synced tables, written in the transaction that made them, until they
-- are delivered and their retention has passed. Its format is documented in kvsync::capture::outbox.
CREATE TABLE kvsync_outbox (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    -- When the row was written, in milliseconds since the Unix epoch.
    captured_at  BIGINT NOT NULL,
    -- The version: the epoch of the store (NULL is the one in which the row is claimed), the timeline, the counter.
    epoch        BIGINT,
    timeline     BIGINT NOT NULL,
    sequence     BIGINT NOT NULL,
    table_schema TEXT,
    table_name   TEXT NOT NULL,
    -- The model that content is of, and its key generation; NULL is every model of the table.
    model        TEXT,
    generation   BIGINT,
    -- What keys of the scope begin with (`@name:`), empty without a scope.
    scope        TEXT NOT NULL DEFAULT '',
    -- insert, update, upsert or delete.
    action       TEXT NOT NULL,
    -- Whether live_if held; NULL where the model has none, or where it was not asked.
    live         BOOLEAN,
    -- The primary key: each column as an SQL literal, AS its name or in the order of the model's, separated by
    -- commas. Without it a row whose content cannot be read is a dead letter.
    primary_key  TEXT,
    -- The row as it was before, each column as an SQL literal AS its name, separated by commas, where that is known.
    old_row      TEXT,
    -- The row as it is, or as it was when it was deleted, in the model's codec. NULL: it has to be read again.
    content      BLOB,
    -- When it may be claimed, in milliseconds since the Unix epoch: at once, when a claim has run out, or
    -- after a failure.
    due_at       BIGINT NOT NULL DEFAULT 0,
    claimed_by   TEXT,
    attempts     INTEGER NOT NULL DEFAULT 0,
    error        TEXT,
    delivered_at BIGINT,
    -- Since when it is a dead letter.
    dead_at      BIGINT
);
CREATE INDEX kvsync_outbox_due ON kvsync_outbox (due_at, id) WHERE delivered_at IS NULL AND dead_at IS NULL;
CREATE INDEX kvsync_outbox_delivered ON kvsync_outbox (delivered_at) WHERE delivered_at IS NOT NULL;
CREATE INDEX kvsync_outbox_dead ON kvsync_outbox (id) WHERE dead_at IS NOT NULL;
-- Versions of several processes come from here.
CREATE TABLE IF NOT EXISTS kvsync_counter (
    id INTEGER PRIMARY KEY CHECK (id = 0),
    last INTEGER NOT NULL
);
