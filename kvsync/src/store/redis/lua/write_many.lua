-- Writes entries under keys of which no two are equal, each unless something newer stands there.
-- ARGV: order (r, s), now, whether entries end (1, 0), whether to read all at once (1, 0), then an entry
-- for each key. Answers with the numbers of the keys that were superseded. Where anything but entries
-- without ledger stands it writes nothing and answers nil: each key is then to be written on its own.

local call, byte, read = redis.call, string.byte, struct.unpack
local register, now, ends = ARGV[1] == 'r', tonumber(ARGV[2]), ARGV[3] == '1'
local stands = ARGV[4] == '1' and call('MGET', unpack(KEYS))
local free, over, lost, f, o = {}, {}, {}, 0, 0

for i = 1, #KEYS do
  local key, new = KEYS[i], ARGV[i + 4]
  local e
  if stands then e = stands[i] else e = call('GETRANGE', key, 0, 33) end
  if not e or e == '' then
    free[f + 1], free[f + 2], f = key, new, f + 2
  else
    if #e < 34 then return false end
    -- Eight bytes at a time: where two doubles differ, their order is right.
    local start, a1, a2, old, marker = read('>I4I8I8BxxxxxxxxxB', e)
    if start ~= 2550252560 or marker ~= 192 or old > 2 then return false end
    local b1, b2, state = read('>I8I8B', new, 5)
    local newer
    if a1 ~= b1 then newer = a1 < b1
    elseif a1 >= 9007199254740992 then return false
    elseif a2 ~= b2 then newer = a2 < b2
    elseif a2 >= 9007199254740992 then return false
    elseif register then newer = (old == 2 and 2 or 1 - old) < (state == 2 and 2 or 1 - state)
    else newer = old < state end
    if newer then
      over[o + 1], over[o + 2], o = key, new, o + 2
    else
      lost[#lost + 1] = i
    end
  end
end

-- A free key may hold another type, of which MGET says nothing: the first write is one that sees it.
if ends then
  if f > 0 then
    local keys = {}
    for i = 1, f, 2 do keys[#keys + 1] = free[i] end
    if call('EXISTS', unpack(keys)) > 0 then return false end
  end
  for _, entries in ipairs({ free, over }) do
    for i = 1, #entries, 2 do
      local high, low = read('>I4I4', entries[i + 1], 23)
      local left = high * 4294967296 + low - now
      if high + low == 0 or left > 4503599627370496 then
        call('SET', entries[i], entries[i + 1])
      else
        call('SET', entries[i], entries[i + 1], 'PX', string.format('%.0f', left < 1 and 1 or left))
      end
    end
  end
else
  if f > 0 and call('MSETNX', unpack(free)) == 0 then return false end
  if o > 0 then call('MSET', unpack(over)) end
end
return lost
