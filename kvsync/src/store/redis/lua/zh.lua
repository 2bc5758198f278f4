-- Sorted hashes. The first key is a list of one word, which says that one is there, the second has the scores and
-- the third the values. Where the word is gone (a SET replaced it) scores and values are not there, whatever is left
-- of them: that is removed before the first field is added, and with a delete of the key.

local WORD = 'kvsync: sorted hash'

-- Whether there is one; fails where something else stands.
local function stands(key)
  local word = redis.call('LINDEX', key, 0)
  -- The list of another program: GET fails on it as on any other kind.
  if word and word ~= WORD then redis.call('GET', key) end
  return word ~= false
end

local function add(key, scores, values, field, value, score, if_absent)
  if not stands(key) then
    redis.call('UNLINK', scores, values)
    redis.call('RPUSH', key, WORD)
  end
  local stood = redis.call('ZSCORE', scores, field)
  if stood and if_absent then return 0 end
  redis.call('ZADD', scores, score, field)
  redis.call('HSET', values, field, value)
  return stood and 0 or 1
end

local function remove(key, scores, values, fields)
  if not stands(key) then return 0 end
  local gone = 0
  for _, field in ipairs(fields) do
    if redis.call('ZREM', scores, field) == 1 then
      redis.call('HDEL', values, field)
      gone = gone + 1
    end
  end
  if redis.call('EXISTS', scores) == 0 then redis.call('UNLINK', key) end
  return gone
end

-- Where to read, of the scores or the values: where nothing stands, what has none.
local function of(key, part)
  return stands(key) and part or key
end

