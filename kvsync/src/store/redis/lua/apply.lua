-- Applies changes one after the other, each as a whole: merges it into the record of its row, projects
-- the record onto the other keys, and releases the keys that were left.
-- ARGV[5]: the prefix of every key. ARGV[6]: whether to read all keys at once (1, 0). ARGV[7]: whether any
-- put ends (1, 0). Then for each change two, as ARGV[5] and ARGV[6] of merge.lua. KEYS, of which no two are
-- equal: for each change the key of its record and the row's other keys, in the order of the ledger. Keys
-- that stand in a ledger only are found there.
-- Answers with a letter for each change: 1 applied, 0 there was something newer; C, L, T, as in record.lua,
-- and then, for each of these, the key it is about.

local prefix, ends = ARGV[5], ARGV[7] == '1'
-- What stands under KEYS: false for nothing. Not so under a key of `touched`, which holds another type or
-- was written meanwhile.
local found, touched = {}, {}

if ARGV[6] == '1' then
  found = call('MGET', unpack(KEYS))
  local free, n = {}, 0
  for i = 1, #KEYS do
    if not found[i] then
      n = n + 1
      free[n] = KEYS[i]
    end
  end
  -- MGET is silent about other types.
  if n > 0 and call('EXISTS', unpack(free)) > 0 then
    for i = 1, n do
      if call('TYPE', free[i]).ok ~= 'none' then touched[free[i]] = true end
    end
  end
else
  for i = 1, #KEYS do
    local e = redis.pcall('GETRANGE', KEYS[i], 0, 1023)
    if type(e) == 'table' then
      touched[KEYS[i]] = true
    else
      found[i] = e ~= '' and e
    end
  end
end

-- What is to be written: a key, its entry, the next key.
local writes, n = {}, 0
local function flush()
  if n > 0 then
    if ends then
      for i = 1, n, 2 do store(writes[i], writes[i + 1]) end
    else
      call('MSET', unpack(writes, 1, n))
    end
  end
  n = 0
end

local function pointer(home)
  return '\3\192\219' .. pack('>I4', #home - #prefix) .. sub(home, #prefix + 1)
end

-- A put of which the record is replaced whole, and whose slots hold nothing but older or newer entries of
-- slots. Says whether it was one.
local function quickly(at, count, new)
  local e, length = found[at], read('>I4', new, 32)
  local b1, b2 = read('>I8I8', new, 5)
  if not replaces(e, new) then return false end
  if next(touched) then
    for i = at, at + count do
      if touched[KEYS[i]] then return false end
    end
  end
  local m, p, copy = n + 2, 73, nil
  writes[n + 1], writes[m] = KEYS[at], new
  for i = at + 1, at + count do
    local older, points, s1, s2, s3, s4 = true, byte(new, p, p + 4)
    p = p + 5 + ((s1 * 256 + s2) * 256 + s3) * 256 + s4
    e = found[i]
    if e then
      if #e < 34 then return false end
      local start, a1, a2, old, marker = read('>I4I8I8BxxxxxxxxxB', e)
      if start ~= 2550252560 or marker ~= 192 or old > 2 then return false end
      -- Eight bytes at a time: where two doubles differ, their order is right.
      if a1 >= 9007199254740992 or a2 >= 9007199254740992 then return false end
      older = a1 < b1 or (a1 == b1 and a2 < b2)
    end
    if older then
      if points == 1 then
        e = sub(new, 1, 30) .. '\192' .. pointer(KEYS[at])
      else
        copy = copy or sub(new, 1, 30) .. '\192' .. sub(new, 36 + length)
        e = copy
      end
      writes[m + 1], writes[m + 2], m = KEYS[i], e, m + 2
    end
  end
  n = m
  return true
end

local check, refuse, known, decode, merge, encode, overwrite

-- What stands under a key now, up to the end of its ledger at least; nil for nothing.
local function entry(key)
  local e = redis.pcall('GETRANGE', key, 0, 1023)
  if type(e) == 'table' then
    if string.find(e.err, 'WRONGTYPE', 1, true) then refuse('T', key) end
    error(e, 0)
  end
  if e == '' then return nil end
  if #e == 1024 and byte(e, 31) == 198 and read('>I4', e, 32) > 988 then e = call('GET', key) end
  check(key, e)
  return e
end

local function slot(key, e, new)
  if e then new = overwrite(e, new) end
  if new then
    store(key, new)
    touched[key] = true
  end
end

-- Any change. All that it touches is looked at before anything is written.
local function apply(home, new, gone)
  local e = entry(home)
  local r = decode(home, e)
  local superseded = merge(r, new, gone)
  local stands, value = {}, r.value
  for _, live in ipairs(r.live) do stands[live.key] = entry(prefix .. live.key) end
  for left in pairs(r.dirty) do stands[left] = entry(prefix .. left) end
  if r.foreign or not value then value = sub(call('GET', home), r.tail) end
  local begin, mask = '\152\1\196\16' .. r.version, not known(r)
  for _, live in ipairs(r.live) do
    local copy
    if mask then
      copy = begin .. '\1\207' .. ARGV[2] .. '\192' .. NONE
    else
      copy = begin .. '\0\207' .. r.ends .. '\192' .. (live.pointer == 1 and pointer(home) or value)
    end
    slot(prefix .. live.key, stands[live.key], copy)
  end
  for left, version in pairs(r.dirty) do
    slot(prefix .. left, stands[left], '\152\1\196\16' .. version .. '\2\207' .. ARGV[2] .. '\192' .. NONE)
  end
  r.dirty = {}
  store(home, encode(r) .. value)
  touched[home] = true
  return superseded and '0' or '1'
end

local letters, about, at, done = {}, {}, 1, 0
for i = 8, #ARGV, 2 do
  local new, gone, count, letter = ARGV[i], ARGV[i + 1], 0, '1'
  local put = byte(new, 31) == 198
  if put then count = read('>I4', new, 69) end
  if not (put and gone == '' and quickly(at, count, new)) then
    if not check then check, refuse, known, decode, merge, encode, overwrite = library() end
    flush()
    local ok
    ok, letter = pcall(apply, KEYS[at], new, gone)
    if not ok then
      if type(letter) ~= 'table' or not letter.code then error(letter, 0) end
      about[#about + 1] = letter.key
      letter = letter.code
    end
  end
  done = done + 1
  letters[done] = letter
  at = at + count + 1
end
flush()
letters = table.concat(letters)
if #about == 0 then return letters end
return { letters, unpack(about) }
