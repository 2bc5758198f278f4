-- Adds ARGV[2] to the score of the field ARGV[1] and answers with it; nothing for a field that is absent.

if not redis.call('ZSCORE', of(KEYS[1], KEYS[2]), ARGV[1]) then return false end
return redis.call('ZINCRBY', KEYS[2], ARGV[2], ARGV[1])
