-- Removes what stands under KEYS[1] if it is exactly ARGV[1]. Answers 1; or T: it is of another type.

local stands = redis.pcall('GET', KEYS[1])
if type(stands) == 'table' then
  if string.find(stands.err, 'WRONGTYPE', 1, true) then return 'T' end
  error(stands, 0)
end
if stands == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
