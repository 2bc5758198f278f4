-- Runs the command ARGV on the scores.

return redis.call(ARGV[1], of(KEYS[1], KEYS[2]), unpack(ARGV, 2))
