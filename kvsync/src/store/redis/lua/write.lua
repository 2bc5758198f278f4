-- Writes an entry, unless something newer stands under its key. Answers 1 written, 0 superseded; C it is no
-- envelope, L it has another layout, T it is of another type, and is left alone.

local call, byte, read, sub = redis.call, string.byte, struct.unpack, string.sub
local NEVER = '\0\0\0\0\0\0\0\0'

local function put(key, new, more, now)
  local high, low = read('>I4I4', new, 23)
  if high + low > 0 then
    local left = high * 4294967296 + low + more - now
    if left < 4503599627370496 then
      return call('SET', key, new, 'PX', string.format('%.0f', left < 1 and 1 or left))
    end
  end
  call('SET', key, new)
end

local function write(key, new, register, now, keep)
  local e, more = redis.pcall('GETRANGE', key, 0, 67), 0
  if type(e) == 'table' then
    if string.find(e.err, 'WRONGTYPE', 1, true) then return 'T' end
    error(e, 0)
  end
  if e ~= '' then
    if byte(e, 1) ~= 152 or #e < 2 then return 'C' end
    if byte(e, 2) ~= 1 then return 'L' end
    local marker = byte(e, 31)
    if #e < 34 or byte(e, 21) > 2 or (marker ~= 192 and marker ~= 198) then return 'C' end
    local a1, a2, a3, a4, old = read('>I4I4I4I4B', e, 5)
    local b1, b2, b3, b4, state = read('>I4I4I4I4B', new, 5)
    local newer
    if a1 ~= b1 then newer = a1 < b1
    elseif a2 ~= b2 then newer = a2 < b2
    elseif a3 ~= b3 then newer = a3 < b3
    elseif a4 ~= b4 then newer = a4 < b4
    elseif register then newer = (old == 2 and 2 or 1 - old) < (state == 2 and 2 or 1 - state)
    else newer = old < state end
    if not newer then return 0 end
    if marker == 198 then
      -- The ledger of a record is kept, and the record never ends sooner than it did.
      if byte(e, 68) == 1 then more = keep end
      local a, b = sub(e, 23, 30), sub(new, 23, 30)
      if a == NEVER or b == NEVER then
        a = NEVER
      else
        local h1, l1 = read('>I4I4', a)
        local h2, l2 = read('>I4I4', b)
        if h1 < h2 or (h1 == h2 and l1 < l2) then a = b end
      end
      new = sub(new, 1, 22) .. a .. call('GETRANGE', key, 30, 34 + read('>I4', e, 32)) .. sub(new, 32)
    end
  end
  put(key, new, more, now)
  return 1
end
