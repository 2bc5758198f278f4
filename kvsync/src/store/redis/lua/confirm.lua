-- Forgets dirty keys of a record. ARGV[5]: the keys, each with the version that was released, as the dirty
-- keys of a ledger. Answers 1; or C, L: see record.lua.

local key = KEYS[1]
local e = peek(key)
if not e then return 1 end
local check, _, _, decode, _, encode, _, read_dirty, less = library()
local ok, answer = pcall(function()
  check(key, e)
  if byte(e, 31) == 192 then return 1 end
  local r = decode(key, e)
  for _, left in ipairs((read_dirty(ARGV[5], 1))) do
    local last = r.dirty[left.key]
    if last and not less(left.version, 1, last, 1) then r.dirty[left.key] = nil end
  end
  local value = r.value
  if r.foreign or not value then value = sub(call('GET', key), r.tail) end
  store(key, encode(r) .. value)
  return 1
end)
if not ok then
  if type(answer) ~= 'table' or not answer.code then error(answer, 0) end
  answer = answer.code
end
return answer
