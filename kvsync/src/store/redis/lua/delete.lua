-- Deletes KEYS[1], and KEYS[2], where the values of a sorted hash are. Whether there was anything.

local stood = redis.call('UNLINK', KEYS[1])
redis.call('UNLINK', KEYS[2])
return stood
