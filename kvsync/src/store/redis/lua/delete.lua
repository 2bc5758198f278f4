-- Deletes KEYS[1], and what a sorted hash there has or has left. Whether there was anything.

local stood = redis.call('UNLINK', KEYS[1])
redis.call('UNLINK', KEYS[2], KEYS[3])
return stood
