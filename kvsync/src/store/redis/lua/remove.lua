-- Removes what stands under KEYS[1] if it is exactly ARGV[1], or of another type where that is empty.
-- Answers 1; or T: it is of another type, and ARGV[1] is not empty.

local stands = redis.pcall('GET', KEYS[1])
if type(stands) == 'table' then
  if not string.find(stands.err, 'WRONGTYPE', 1, true) then error(stands, 0) end
  if ARGV[1] ~= '' then return 'T' end
  stands = ''
end
if stands == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
