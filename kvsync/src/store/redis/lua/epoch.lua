-- Raises a number to ARGV[1], or leaves it where it is higher, and answers with it.

local stands = redis.call('GET', KEYS[1])
local epoch, new = tonumber(stands or '0'), tonumber(ARGV[1])
if not epoch then return 'C' end
if new > epoch then
  redis.call('SET', KEYS[1], ARGV[1])
  return new
end
return epoch
