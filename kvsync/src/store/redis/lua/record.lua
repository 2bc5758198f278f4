-- Records as strings of bytes. record.rs is the source, and tests hold these functions equal to it.
-- Offsets count from 1:
--
--   1 head (30): 1 array, 2 layout, 5 version, 21 state, 23 ends at
--  31 nil (192), or 198 and the ledger: 32 length, 36 version, 52 mark, 68 alive, 69 live keys, dirty keys
--   . value
--
-- Versions are compared as numbers: Lua compares strings by the server's locale.
--
-- ARGV begins with three times of eight bytes each, now, now + W and now + D, and with the milliseconds
-- by which a record outlives its row.

local call, sub, byte, read, pack = redis.call, string.sub, string.byte, struct.unpack, struct.pack
local NEVER, NONE = '\0\0\0\0\0\0\0\0', '\192\192\192'

local function time(s, i)
  local high, low = read('>I4I4', s, i)
  return high * 4294967296 + low
end

-- How long Redis has to keep an entry, in milliseconds; nil for ever.
local function lifetime(e)
  local at = time(e, 23)
  if at == 0 then return nil end
  if byte(e, 31) == 198 and byte(e, 68) == 1 then at = at + tonumber(ARGV[4]) end
  local left = at - time(ARGV[1], 1)
  if left > 4503599627370496 then return nil end
  return string.format('%.0f', left < 1 and 1 or left)
end

local function store(key, e)
  local left = lifetime(e)
  if left then call('SET', key, e, 'PX', left) else call('SET', key, e) end
end

-- Whether `new`, the record that a put alone would make, is all that has to stand in place of `e`: there
-- is none, or it is older, known, stands under the same keys and has left none.
local function replaces(e, new)
  local b1, b2, state = read('>I8I8B', new, 5)
  if state ~= 0 or b1 + b2 == 0 then return false end
  if not e then return true end
  if #e < 77 then return false end
  -- Eight bytes at a time: where two doubles differ, their order is right; others go the long way.
  local start, a1, a2, marker, length = read('>I4I8I8xxxxxxxxxxBI4', e)
  if start ~= 2550252560 or marker ~= 198 or a1 > b1 or (a1 == b1 and a2 >= b2) then return false end
  -- Mark, alive, live and dirty keys.
  return length == read('>I4', new, 32) and sub(e, 52, 35 + length) == sub(new, 52, 35 + length)
end

-- Everything else, in a function so that what is rarely needed is rarely made.
local function library()
  local ZERO = string.rep('\0', 16)

  -- Ends a step, because what stands under the key is not ours to build upon. C: it is no envelope, L: it
  -- has another layout, T: it is of another type.
  local function refuse(code, key)
    error({ code = code, key = key }, 0)
  end

  local function check(key, e)
    if #e < 2 or byte(e, 1) ~= 152 then refuse('C', key) end
    if byte(e, 2) ~= 1 then refuse('L', key) end
    local marker = byte(e, 31)
    if #e < 34 or byte(e, 21) > 2 or (marker ~= 192 and marker ~= 198) then refuse('C', key) end
    if marker == 198 and (#e < 77 or read('>I4', e, 32) < 41) then refuse('C', key) end
  end

  -- Whether the version at a[i] is lower than the one at b[j].
  local function less(a, i, b, j)
    local a1, a2, a3, a4 = read('>I4I4I4I4', a, i)
    local b1, b2, b3, b4 = read('>I4I4I4I4', b, j)
    if a1 ~= b1 then return a1 < b1 end
    if a2 ~= b2 then return a2 < b2 end
    if a3 ~= b3 then return a3 < b3 end
    return a4 < b4
  end

  -- The lowest version that is higher; the highest is its own.
  local function above(v)
    local words = { read('>I4I4I4I4', v) }
    for i = 4, 1, -1 do
      if words[i] < 4294967295 then
        words[i] = words[i] + 1
        return pack('>I4I4I4I4', words[1], words[2], words[3], words[4])
      end
      words[i] = 0
    end
    return v
  end

  -- Whether a comes before b, byte by byte.
  local function before(a, b)
    for i = 1, math.min(#a, #b) do
      local x, y = byte(a, i), byte(b, i)
      if x ~= y then return x < y end
    end
    return #a < #b
  end

  -- The later of two ends, where 0 is never.
  local function later(a, b)
    if a == NEVER or b == NEVER then return NEVER end
    return time(a, 1) < time(b, 1) and b or a
  end

  local function read_live(s, p)
    local live, count = {}, read('>I4', s, p)
    p = p + 4
    for i = 1, count do
      local pointer, length = read('>BI4', s, p)
      live[i] = { key = sub(s, p + 5, p + 4 + length), pointer = pointer }
      p = p + 5 + length
    end
    return live, p
  end

  local function read_dirty(s, p)
    local dirty, count = {}, read('>I4', s, p)
    p = p + 4
    for i = 1, count do
      local length = read('>I4', s, p + 16)
      dirty[i] = { key = sub(s, p + 20, p + 19 + length), version = sub(s, p, p + 15) }
      p = p + 20 + length
    end
    return dirty, p
  end

  local function raise(dirty, key, version)
    local last = dirty[key]
    if not last or less(last, 1, version, 1) then dirty[key] = version end
  end

  local function known(r)
    return not less(r.version, 1, r.mark, 1)
  end

  -- The record that the entry `e` under a key holds. Its value begins at `tail` of the entry; it is read
  -- when it is needed, and `value` is nil until it is replaced.
  local function decode(key, e)
    local r = { key = key, version = ZERO, mark = ZERO, alive = false, live = {}, dirty = {}, ends = NEVER, value = NONE }
    if not e then return r end
    check(key, e)
    r.ends, r.tail = sub(e, 23, 30), 32
    if byte(e, 31) == 198 then
      r.tail = 36 + read('>I4', e, 32)
      r.version, r.mark, r.alive = sub(e, 36, 51), sub(e, 52, 67), byte(e, 68) == 1
      local ok, live, dirty = pcall(function()
        local live, at = read_live(e, 69)
        local dirty, stop = read_dirty(e, at)
        return live, stop == r.tail and dirty
      end)
      if not ok or not dirty then refuse('C', key) end
      r.live = live
      for _, left in ipairs(dirty) do r.dirty[left.key] = left.version end
    end
    if less(r.version, 1, e, 5) then
      if less(r.mark, 1, e, 5) then r.mark = sub(e, 5, 20) end
      r.foreign = sub(e, 1, 30)
    elseif r.alive and known(r) then
      if byte(e, 21) == 0 then r.value = nil else r.mark = above(r.version) end
    end
    return r
  end

  -- Merges a change and says whether the record held something newer before. `new` is the record that the
  -- change alone would make, or a head and nothing where it is no put; `gone` its dirty keys.
  local function merge(r, new, gone)
    local superseded = less(new, 5, r.version, 1) or less(new, 5, r.mark, 1)
    local state, version = byte(new, 21), sub(new, 5, 20)
    if less(r.version, 1, version, 1) then
      if state == 1 then
        if less(r.mark, 1, version, 1) then r.mark = version end
      else
        for _, left in ipairs(r.live) do raise(r.dirty, left.key, r.version) end
        r.version, r.live, r.alive, r.value = version, {}, false, NONE
        if state == 0 then
          r.live, r.alive, r.ends, r.own = read_live(new, 69), true, sub(new, 23, 30), true
          r.value = sub(new, 36 + read('>I4', new, 32))
        end
        for _, listed in ipairs(r.live) do r.dirty[listed.key] = nil end
      end
    end
    if gone ~= '' then
      local listed = {}
      for _, live in ipairs(r.live) do listed[live.key] = true end
      for _, left in ipairs((read_dirty(gone, 1))) do
        if not listed[left.key] then raise(r.dirty, left.key, left.version) end
      end
    end
    if r.foreign and not less(r.version, 1, r.foreign, 5) then r.foreign = nil end
    if known(r) then
      r.mark = ZERO
    else
      r.value, r.own = NONE, false
    end
    if not r.alive then
      r.ends = ARGV[3]
    elseif not known(r) and r.ends ~= NEVER and time(r.ends, 1) < time(ARGV[1], 1) then
      r.ends = ARGV[1]
    end
    return superseded
  end

  -- The record as it is stored, up to its value.
  local function encode(r)
    local head = r.foreign
    if head then
      head = sub(head, 1, 22) .. later(sub(head, 23, 30), r.ends)
    else
      local state = not known(r) and '\1' or (r.alive and '\0' or '\2')
      head = '\152\1\196\16' .. r.version .. state .. '\207' .. r.ends
    end
    local out = { r.version, r.mark, r.alive and '\1' or '\0', pack('>I4', #r.live) }
    for _, listed in ipairs(r.live) do
      out[#out + 1] = pack('>BI4', listed.pointer, #listed.key) .. listed.key
    end
    local keys = {}
    for key in pairs(r.dirty) do keys[#keys + 1] = key end
    table.sort(keys, before)
    out[#out + 1] = pack('>I4', #keys)
    for _, key in ipairs(keys) do
      out[#out + 1] = r.dirty[key] .. pack('>I4', #key) .. key
    end
    local ledger = table.concat(out)
    return head .. '\198' .. pack('>I4', #ledger) .. ledger
  end

  -- What has to stand in place of `e` when `new`, an entry without ledger for a slot, is newer; else nil.
  local function overwrite(e, new)
    if not (less(e, 5, new, 5) or (not less(new, 5, e, 5) and byte(e, 21) < byte(new, 21))) then return nil end
    if byte(e, 31) == 192 then return new end
    return sub(new, 1, 22) .. later(sub(new, 23, 30), sub(e, 23, 30))
      .. sub(e, 31, 35 + read('>I4', e, 32)) .. sub(new, 32)
  end

  return check, refuse, known, decode, merge, encode, overwrite, read_dirty, less
end

-- What stands under a key, up to the end of its ledger at least; nil for nothing.
local function peek(key)
  local e = call('GETRANGE', key, 0, 1023)
  if e == '' then return nil end
  if #e == 1024 and byte(e, 31) == 198 and read('>I4', e, 32) > 988 then return call('GET', key) end
  return e
end
