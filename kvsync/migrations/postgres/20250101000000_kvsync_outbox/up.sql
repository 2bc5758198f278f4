-- The outbox of kvsync: changes of synced tables, written in the transaction that made them, until they
-- are delivered and their retention has passed. Its format is documented in kvsync::capture::outbox.
CREATE TABLE kvsync_outbox (
    id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- When the row was written, in milliseconds since the Unix epoch.
    captured_at  bigint NOT NULL,
    -- The version: the epoch of the store (NULL is the one in which the row is claimed), the timeline, the WAL position.
    epoch        bigint,
    timeline     bigint NOT NULL,
    sequence     bigint NOT NULL,
    table_schema text,
    table_name   text NOT NULL,
    -- The model that content is of, and its key generation; NULL is every model of the table.
    model        text,
    generation   bigint,
    -- What keys of the scope begin with (`@name:`), empty without a scope.
    scope        text NOT NULL DEFAULT '',
    -- insert, update, upsert or delete.
    action       text NOT NULL,
    -- Whether live_if held; NULL where the model has none, or where it was not asked.
    live         boolean,
    -- The primary key: a JSON object of its columns. Without it a row whose content cannot be read is a dead letter.
    primary_key  text,
    -- The row as it was before, a JSON object of its columns, where that is known.
    old_row      text,
    -- The row as it is, or as it was when it was deleted, in the model's codec. NULL: it has to be read again.
    content      bytea,
    -- When it may be claimed, in milliseconds since the Unix epoch: at once, when a claim has run out, or
    -- after a failure.
    due_at       bigint NOT NULL DEFAULT 0,
    claimed_by   text,
    attempts     integer NOT NULL DEFAULT 0,
    error        text,
    delivered_at bigint,
    -- Since when it is a dead letter.
    dead_at      bigint
);
CREATE INDEX kvsync_outbox_due ON kvsync_outbox (due_at, id) WHERE delivered_at IS NULL AND dead_at IS NULL;
CREATE INDEX kvsync_outbox_delivered ON kvsync_outbox (delivered_at) WHERE delivered_at IS NOT NULL;
CREATE INDEX kvsync_outbox_dead ON kvsync_outbox (id) WHERE dead_at IS NOT NULL;
