-- Many entries, of which no two have the same key.
-- ARGV: order (r, s), now, keep, whether entries end (1, 0), whether to read all at once (1, 0), then an
-- entry for each key. Answers with the numbers of the keys that were superseded, and with a letter and the
-- number for each where what stands there is left alone.

local register, now, keep, ends = ARGV[1] == 'r', tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] == '1'
local stands = ARGV[5] == '1' and call('MGET', unpack(KEYS))
local free, over, answer, f, o = {}, {}, {}, 0, 0

local function slowly(i)
  local letter = write(KEYS[i], ARGV[i + 5], register, now, keep)
  if letter == 0 then
    answer[#answer + 1] = i
  elseif letter ~= 1 then
    answer[#answer + 1] = letter .. i
  end
end

for i = 1, #KEYS do
  local key, new = KEYS[i], ARGV[i + 5]
  local e, odd, newer
  if stands then e = stands[i] else e = redis.pcall('GETRANGE', key, 0, 33) end
  if not e or e == '' then
    free[f + 1], free[f + 2], f = key, new, f + 2
  else
    odd = type(e) == 'table' or #e < 34
    if not odd then
      -- Eight bytes at a time: where two doubles differ, their order is right.
      local start, a1, a2, old, marker = read('>I4I8I8BxxxxxxxxxB', e)
      local b1, b2, state = read('>I8I8B', new, 5)
      odd = start ~= 2550252560 or marker ~= 192 or old > 2 or a1 >= 9007199254740992 or a2 >= 9007199254740992
      if a1 ~= b1 then newer = a1 < b1
      elseif a2 ~= b2 then newer = a2 < b2
      elseif register then newer = (old == 2 and 2 or 1 - old) < (state == 2 and 2 or 1 - state)
      else newer = old < state end
    end
    if odd then
      slowly(i)
    elseif newer then
      over[o + 1], over[o + 2], o = key, new, o + 2
    else
      answer[#answer + 1] = i
    end
  end
end

-- A free key may hold another type, on which MGET is silent: MSETNX sees it, and EXISTS.
if f > 0 then
  if ends then
    local keys = {}
    for i = 1, f, 2 do keys[#keys + 1] = free[i] end
    if call('EXISTS', unpack(keys)) == 0 then
      for i = 1, f, 2 do put(free[i], free[i + 1], 0, now) end
      f = 0
    end
  elseif call('MSETNX', unpack(free)) == 1 then
    f = 0
  end
  if f > 0 then
    local still = {}
    for i = 1, f, 2 do still[free[i]] = true end
    for i = 1, #KEYS do
      if still[KEYS[i]] then slowly(i) end
    end
  end
end
if ends then
  for i = 1, o, 2 do put(over[i], over[i + 1], 0, now) end
elseif o > 0 then
  call('MSET', unpack(over))
end
return answer
