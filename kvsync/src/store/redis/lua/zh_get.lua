-- The value of the field ARGV[1].

return redis.call('HGET', of(KEYS[1], KEYS[3]), ARGV[1])
