-- Operations that all happen or none. ARGV has, for each: its name, how many arguments follow, and these.
-- Its keys stand in KEYS, in order: one each, three for a delete or a sorted hash.
-- Answers with the places, from 0, of conditions that failed; nothing when all was done.

local kinds = {
  incrby = 'string', seteq = 'string', sadd = 'set', srem = 'set', hset = 'hash', hsetnx = 'hash', hdel = 'hash',
  zadd = 'zset', zaddnx = 'zset', zrem = 'zset', zincrby = 'zset', zhadd = WORD, zhaddnx = WORD, zhrem = WORD,
  zhincrby = WORD,
}
local three_keys = { del = true, delxx = true, zhadd = true, zhaddnx = true, zhrem = true, zhincrby = true }

local operations, argument, key = {}, 1, 1
while argument <= #ARGV do
  local operation = { name = ARGV[argument], key = KEYS[key] }
  local count = tonumber(ARGV[argument + 1])
  for place = 1, count do operation[place] = ARGV[argument + 1 + place] end
  argument = argument + 2 + count
  key = key + 1
  if three_keys[operation.name] then
    operation.scores, operation.values = KEYS[key], KEYS[key + 1]
    key = key + 2
  end
  operations[#operations + 1] = operation
end

-- What stands there, a sorted hash as its word; nothing for nothing.
local function kind_of(key)
  local kind = redis.call('TYPE', key).ok
  if kind == 'none' then return nil end
  if kind == 'list' and redis.call('LINDEX', key, 0) == WORD then return WORD end
  return kind
end

local function refused(operation)
  local name, key = operation.name, operation.key
  if name == 'setnx' then return redis.call('EXISTS', key) == 1 end
  if name == 'setxx' or name == 'delxx' then return redis.call('EXISTS', key) == 0 end
  if name == 'seteq' then return redis.call('GET', key) ~= operation[1] end
  if name == 'hsetnx' then return redis.call('HEXISTS', key, operation[1]) == 1 end
  if name == 'zaddnx' then return redis.call('ZSCORE', key, operation[2]) ~= false end
  if name == 'zhaddnx' then return redis.call('ZSCORE', of(key, operation.scores), operation[1]) ~= false end
  return false
end

-- Everything that can fail is looked at before anything is written: what a script has written stays. Conditions that
-- failed are told first, whatever else is wrong.
local failed, wrong = {}, nil
for place, operation in ipairs(operations) do
  local name, kind = operation.name, kinds[operation.name]
  local stands = kind and kind_of(operation.key)
  if stands and stands ~= kind then
    wrong = wrong or 'WRONGTYPE Operation against a key holding the wrong kind of value'
  elseif refused(operation) then
    failed[#failed + 1] = place - 1
  elseif name == 'zincrby' or name == 'zhincrby' then
    local scores = name == 'zincrby' and operation.key or of(operation.key, operation.scores)
    local sum = tonumber(redis.call('ZSCORE', scores, operation[2]) or '0') + tonumber(operation[1])
    if sum ~= sum then wrong = wrong or 'ERR resulting score is not a number (NaN)' end
  end
end
if #failed > 0 then return failed end
if wrong then return redis.error_reply(wrong) end

-- Lua's numbers cannot tell whether 64 bits overflow, so counters are first, and taken back if one does.
local counted = {}
for _, operation in ipairs(operations) do
  if operation.name == 'incrby' then
    local before = redis.call('GET', operation.key)
    local answer = redis.pcall('INCRBY', operation.key, operation[1])
    if type(answer) == 'table' and answer.err then
      for _, done in ipairs(counted) do
        if done.before then redis.call('SET', done.key, done.before, 'KEEPTTL') else redis.call('DEL', done.key) end
      end
      return answer
    end
    counted[#counted + 1] = { key = operation.key, before = before }
  end
end

local function each(command, operation, step)
  for first = 1, #operation, step do
    redis.call(command, operation.key, unpack(operation, first, math.min(first + step - 1, #operation)))
  end
end

local run = {
  nothing = function() end,
  incrby = function() end,
  set = function(o) redis.call('SET', o.key, unpack(o)) end,
  seteq = function(o) redis.call('SET', o.key, unpack(o, 2)) end,
  del = function(o) redis.call('UNLINK', o.key, o.scores, o.values) end,
  sadd = function(o) each('SADD', o, 1000) end,
  srem = function(o) each('SREM', o, 1000) end,
  hset = function(o) each('HSET', o, 1000) end,
  hdel = function(o) each('HDEL', o, 1000) end,
  zrem = function(o) each('ZREM', o, 1000) end,
  zadd = function(o) redis.call('ZADD', o.key, o[1], o[2]) end,
  zincrby = function(o) redis.call('ZINCRBY', o.key, o[1], o[2]) end,
  zhadd = function(o) add(o.key, o.scores, o.values, o[1], o[2], o[3], false) end,
  zhrem = function(o) remove(o.key, o.scores, o.values, o) end,
  zhincrby = function(o)
    if redis.call('ZSCORE', of(o.key, o.scores), o[2]) then redis.call('ZINCRBY', o.scores, o[1], o[2]) end
  end,
}
run.setnx, run.setxx, run.delxx, run.hsetnx, run.zaddnx, run.zhaddnx = run.set, run.set, run.del, run.hset, run.zadd, run.zhadd

for _, operation in ipairs(operations) do run[operation.name](operation) end
return {}
