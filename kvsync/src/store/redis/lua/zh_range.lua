-- Runs the command ARGV on the scores, which finds fields. Answers with field, score and value of each.

local fields = redis.call(ARGV[1], of(KEYS[1], KEYS[2]), unpack(ARGV, 2))
local found = {}
for first = 1, #fields, 1000 do
  local some = { unpack(fields, first, math.min(first + 999, #fields)) }
  local values = redis.call('HMGET', KEYS[3], unpack(some))
  for place, field in ipairs(some) do
    found[#found + 1] = field
    found[#found + 1] = redis.call('ZSCORE', KEYS[2], field)
    found[#found + 1] = values[place] or ''
  end
end
return found
