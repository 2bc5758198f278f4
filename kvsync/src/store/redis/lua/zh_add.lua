-- ARGV: field, value, score, and 1 where a field that is there stays as it is. Whether the field is new.

return add(KEYS[1], KEYS[2], KEYS[3], ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1')
