-- Answers with the commands that the user may not run on KEYS[1], as far as this server can tell.

local missing, allowed, key = {}, redis.acl_check_cmd, KEYS[1]
if allowed then
  local commands = {
    { 'GET', key }, { 'GETRANGE', key, '0', '1' }, { 'MGET', key }, { 'EXISTS', key }, { 'TYPE', key },
    { 'SET', key, 'v', 'PX', '1' }, { 'MSET', key, 'v' }, { 'MSETNX', key, 'v' }, { 'SCAN', '0' },
    { 'DEL', key },
  }
  for _, command in ipairs(commands) do
    if not allowed(unpack(command)) then missing[#missing + 1] = command[1] end
  end
end
return missing
