-- Applies changes one after the other, each as a whole: merges it into the record of its row, projects
-- the record onto the other keys, and releases the keys that were left.
-- ARGV[5]: the prefix of every key. ARGV[6]: whether to read all keys at once (1, 0). Then for each change
-- two, as ARGV[5] and ARGV[6] of merge.lua. KEYS: for each change the key of its record and the row's
-- other keys, in the order of the ledger; keys that stand in a ledger only are found there.
-- Answers with a letter for each change: 1 applied, 0 there was something newer; C, L, T, as in record.lua,
-- and then, for each of these, the key it is about.

local prefix, all = ARGV[5], ARGV[6] == '1'
local stands, writes, order, ends = {}, {}, {}, {}
local check, refuse, known, decode, merge, encode, overwrite
local function need_library()
  if not check then check, refuse, known, decode, merge, encode, overwrite = library() end
end

if all then
  local found, free = call('MGET', unpack(KEYS)), {}
  for i, key in ipairs(KEYS) do
    stands[key] = found[i]
    if not found[i] then free[#free + 1] = key end
  end
  -- MGET is silent about other types.
  if #free > 0 and call('EXISTS', unpack(free)) > 0 then
    for _, key in ipairs(free) do
      if call('TYPE', key).ok ~= 'none' then stands[key] = true end
    end
  end
end

-- What stands under a key, up to the end of its ledger at least; nil for nothing.
local function look(key)
  local e = stands[key]
  if e == nil then
    e = redis.pcall('GETRANGE', key, 0, 1023)
    if type(e) == 'table' then
      if not string.find(e.err, 'WRONGTYPE', 1, true) then error(e, 0) end
      e = true
    elseif e == '' then
      e = false
    elseif #e == 1024 and byte(e, 31) == 198 and read('>I4', e, 32) > 988 then
      e = call('GET', key)
    end
    stands[key] = e
  end
  if e == true then
    need_library()
    refuse('T', key)
  end
  return e or nil
end

local function write(key, e, forever)
  if writes[key] == nil then order[#order + 1] = key end
  stands[key], writes[key], ends[key] = e, e, not forever
end

-- Writes an entry under a slot whose entry has been checked, if it is newer.
local function slot(key, e, new, forever)
  if e then
    local a1, a2, old = read('>I8I8B', e, 5)
    local b1, b2, state = read('>I8I8B', new, 5)
    if byte(e, 31) == 192 and a1 < 9007199254740992 and a2 < 9007199254740992 then
      -- Eight bytes at a time: where two doubles differ, their order is right.
      if a1 > b1 or (a1 == b1 and (a2 > b2 or (a2 == b2 and old >= state))) then return end
    else
      need_library()
      new, forever = overwrite(e, new), false
      if not new then return end
    end
  end
  write(key, new, forever)
end

local function entry(key)
  local e = look(key)
  if e and (#e < 34 or byte(e, 31) ~= 192 or byte(e, 1) ~= 152 or byte(e, 2) ~= 1 or byte(e, 21) > 2) then
    need_library()
    check(key, e)
  end
  return e
end

local function pointer(home)
  return '\3\192\219' .. pack('>I4', #home - #prefix) .. sub(home, #prefix + 1)
end

-- The change whose keys begin at KEYS[at]. All that it touches is looked at before anything is written.
local function apply(at, count, new, gone)
  local home = KEYS[at]
  local e = look(home)
  if gone == '' and replaces(e, new) then
    local found = {}
    for i = 1, count do found[i] = entry(KEYS[at + i]) end
    local begin, value, forever, p, copy = sub(new, 1, 30) .. '\192', nil, sub(new, 23, 30) == NEVER, 73, nil
    for i = 1, count do
      local points, length = read('>BI4', new, p)
      p = p + 5 + length
      if points == 1 then
        value = begin .. pointer(home)
      else
        copy = copy or begin .. sub(new, 36 + read('>I4', new, 32))
        value = copy
      end
      slot(KEYS[at + i], found[i], value, forever)
    end
    write(home, new, forever)
    return '1'
  end

  need_library()
  local r = decode(home, e)
  local superseded = merge(r, new, gone)
  for _, live in ipairs(r.live) do entry(prefix .. live.key) end
  for left in pairs(r.dirty) do entry(prefix .. left) end
  local value = r.value
  if r.foreign or not value then
    value = sub(writes[home] or all and e or call('GET', home), r.tail)
  end
  local certain, begin = known(r), '\152\1\196\16' .. r.version
  for _, live in ipairs(r.live) do
    local key, copy = prefix .. live.key, nil
    if not certain then
      copy = begin .. '\1\207' .. ARGV[2] .. '\192' .. NONE
    else
      copy = begin .. '\0\207' .. r.ends .. '\192' .. (live.pointer == 1 and pointer(home) or value)
    end
    slot(key, entry(key), copy, false)
  end
  for left, version in pairs(r.dirty) do
    local key = prefix .. left
    slot(key, entry(key), '\152\1\196\16' .. version .. '\2\207' .. ARGV[2] .. '\192' .. NONE, false)
  end
  r.dirty = {}
  write(home, encode(r) .. value, false)
  return superseded and '0' or '1'
end

local letters, about, at, n = {}, {}, 1, 0
for i = 7, #ARGV, 2 do
  local new, gone = ARGV[i], ARGV[i + 1]
  local count = byte(new, 31) == 198 and read('>I4', new, 69) or 0
  local ok, answer = pcall(apply, at, count, new, gone)
  if not ok then
    if type(answer) ~= 'table' or not answer.code then error(answer, 0) end
    about[#about + 1] = answer.key
    answer = answer.code
  end
  n = n + 1
  letters[n] = answer
  at = at + count + 1
end

local set, count = {}, 0
for _, key in ipairs(order) do
  local e = writes[key]
  local left = ends[key] and lifetime(e)
  if left then
    call('SET', key, e, 'PX', left)
  else
    set[count + 1], set[count + 2], count = key, e, count + 2
  end
end
if count > 0 then call('MSET', unpack(set)) end
letters = table.concat(letters)
if #about == 0 then return letters end
return { letters, unpack(about) }
