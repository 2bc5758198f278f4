-- Merges a change into the record of its row.
-- ARGV[5]: the record that the change alone would make, or a head and nothing where it is no put.
-- ARGV[6]: the keys that it certainly took, as the dirty keys of a ledger, or nothing.
-- Answers 1 when the record is what the change alone would make; otherwise with whether it held something
-- newer, whether its value follows, the record, its end, and the end of what another generation of keys
-- wrote: in the record's head stands the later one. Or C, L: see record.lua.

local key, new, gone = KEYS[1], ARGV[5], ARGV[6]
local e = peek(key)
if gone == '' and replaces(e, new) then
  store(key, new)
  return 1
end

local _, _, _, decode, merge, encode = library()
local ok, answer = pcall(function()
  local r = decode(key, e)
  local superseded = merge(r, new, gone)
  local begin, value = encode(r), r.value
  if r.foreign or not value then value = sub(call('GET', key), r.tail) end
  store(key, begin .. value)
  local other = r.foreign and sub(r.foreign, 23, 30) or ''
  return { superseded and 1 or 0, r.own and 0 or 1, r.own and begin or begin .. value, r.ends, other }
end)
if not ok then
  if type(answer) ~= 'table' or not answer.code then error(answer, 0) end
  answer = answer.code
end
return answer
