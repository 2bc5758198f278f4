DROP TABLE kvsync_outbox;
