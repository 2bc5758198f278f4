-- ARGV: fields. How many were there.

return remove(KEYS[1], KEYS[2], KEYS[3], ARGV)
