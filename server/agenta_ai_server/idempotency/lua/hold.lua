-- Renews the lease of a run, and records whether the run has begun. rules.py has the same rules.
--
-- KEYS     the id; its lease; how this run ended
-- ARGV     fingerprint; token; milliseconds of a lease, and of the memory after a run; 1 if the run has begun
-- Returns  1, or 0 if this isn't the run of the id any more

local id, lease, ending = unpack(KEYS)
local fingerprint, token, lease_ms, ttl_ms, begun = unpack(ARGV)

local known = redis.call('HMGET', id, 'token', 'state', 'spent')
local is_free = known[2] == 'claimed' and known[3] == '0' and redis.call('EXISTS', lease) == 0
if known[1] ~= token then
  -- What arrives after the end of the run that overtook it must not bring it back.
  if (known[2] and not is_free) or redis.call('EXISTS', ending) == 1 then
    return 0
  end
  redis.call('HSET', id, 'fingerprint', fingerprint, 'token', token, 'state', 'claimed', 'spent', '0')
  known = { token, 'claimed', '0' }
end
if begun == '1' then
  redis.call('HSET', id, 'state', 'begun')
  known[2] = 'begun'
end
local may_be_billed = known[2] == 'begun' or known[3] == '1'
redis.call('PEXPIRE', id, may_be_billed and lease_ms + ttl_ms or lease_ms)
redis.call('SET', lease, '', 'PX', lease_ms)
return 1
