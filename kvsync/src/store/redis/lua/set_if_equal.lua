-- Sets KEYS[1] to ARGV[2] if it is the string ARGV[1]; with ARGV[3], for so many milliseconds. Whether it did.

if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[3] then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
else
  redis.call('SET', KEYS[1], ARGV[2])
end
return 1
