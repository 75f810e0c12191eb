-- Records how a run ended. rules.py has the same rules.
--
-- KEYS     the id; its lease; how this run ended
-- ARGV     fingerprint; token; kept, passed_on, released or abandoned; the outcome or nothing; milliseconds of the
--          memory after a run, and of an outcome that is only passed on

local id, lease, ending = unpack(KEYS)
local fingerprint, token, kind, data, ttl_ms, ending_ms = unpack(ARGV)
ttl_ms = tonumber(ttl_ms)

local known = redis.call('HMGET', id, 'fingerprint', 'token', 'state', 'spent')

if kind == 'kept' and ttl_ms > 0 then
  -- The first outcome stays, also when a caller had the id run again meanwhile.
  local is_settled = redis.call('HEXISTS', id, 'data') == 1 or (known[3] == 'finished' and data == '')
  if not known[1] or (known[1] == fingerprint and not is_settled) then
    redis.call('HSET', id, 'fingerprint', fingerprint, 'token', '', 'state', 'finished', 'spent', '1')
    if data ~= '' then
      redis.call('HSET', id, 'data', data)
    end
    redis.call('PEXPIRE', id, ttl_ms)
    redis.call('DEL', lease)
  end
  return
end
if known[2] == token then
  local is_lost = known[4] == '1' or (known[3] == 'begun' and kind == 'abandoned')
  redis.call('DEL', id, lease)
  if is_lost and ttl_ms > 0 then
    redis.call('HSET', id, 'fingerprint', known[1], 'token', '', 'state', 'lost', 'spent', '1')
    redis.call('PEXPIRE', id, ttl_ms)
  end
end
redis.call('SET', ending, data, 'PX', ending_ms)
