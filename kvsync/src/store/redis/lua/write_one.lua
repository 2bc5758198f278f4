-- ARGV: order (r, s), now, keep, the entry.

return write(KEYS[1], ARGV[4], ARGV[1] == 'r', tonumber(ARGV[2]), tonumber(ARGV[3]))
