-- Sorted hashes: KEYS[1] has the scores, KEYS[2] the values. What has no score is not there: values that a
-- plain SET or DEL of the key left behind are removed before the first field is added.

local function add(scores, values, field, value, score, if_absent)
  local stands = redis.call('ZSCORE', scores, field)
  if stands and if_absent then return 0 end
  if redis.call('EXISTS', scores) == 0 then redis.call('UNLINK', values) end
  redis.call('ZADD', scores, score, field)
  redis.call('HSET', values, field, value)
  return stands and 0 or 1
end

local function remove(scores, values, fields)
  local gone = 0
  for _, field in ipairs(fields) do
    if redis.call('ZREM', scores, field) == 1 then
      redis.call('HDEL', values, field)
      gone = gone + 1
    end
  end
  return gone
end
