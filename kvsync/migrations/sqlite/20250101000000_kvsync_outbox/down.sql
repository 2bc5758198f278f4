-- The counter stays: versions that were given must not be given again.
DROP TABLE kvsync_outbox;
