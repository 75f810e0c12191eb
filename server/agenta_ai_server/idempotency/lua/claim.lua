-- Claims an id. rules.py has the same rules.
--
-- KEYS     the id; its lease; that somebody waits for it; how the awaited run ended
-- ARGV     fingerprint; token; milliseconds of a lease, and of the memory after a run; the awaited token or nothing;
--          milliseconds for which a follower counts; 1 to run an id again whose outcome is lost
-- Returns  {'claimed'}, {'following', token}, {'finished', outcome}, {'lost'} or {'reused'}

local id, lease, followers, ending = unpack(KEYS)
local fingerprint, token, lease_ms, ttl_ms, waited, follower_ms, rerun = unpack(ARGV)

local known = redis.call('HMGET', id, 'fingerprint', 'token', 'state', 'spent')
local is_running = known[3] == 'claimed' or known[3] == 'begun'
local is_leased = redis.call('EXISTS', lease) == 1

-- HSET is the first to write: a script that has written something isn't refused any more when the memory is full.
local function take(spent)
  redis.call('HSET', id, 'fingerprint', fingerprint, 'token', token, 'state', 'claimed', 'spent', spent)
  redis.call('PEXPIRE', id, spent == '1' and lease_ms + ttl_ms or lease_ms)
  redis.call('SET', lease, '', 'PX', lease_ms)
  return { 'claimed' }
end

if waited ~= '' and known[2] ~= waited then
  local outcome = redis.call('GET', ending)
  if outcome and outcome ~= '' then
    return { 'finished', outcome }
  end
end
if not known[1] or (known[3] == 'claimed' and known[4] == '0' and not is_leased) then
  return take('0')
end
if known[1] ~= fingerprint then
  return { 'reused' }
end
if is_running and known[2] == token then
  return { 'claimed' }
end
if is_running and is_leased then
  redis.call('SET', followers, '', 'PX', follower_ms)
  -- No longer than a lease lasts: the clock may have been set back, and its holder be dead.
  if redis.call('PTTL', lease) > tonumber(lease_ms) then
    redis.call('PEXPIRE', lease, lease_ms)
  end
  return { 'following', known[2] }
end
local outcome = redis.call('HGET', id, 'data')
if outcome then
  return { 'finished', outcome }
end
if rerun == '1' then
  return take('1')
end
return { 'lost' }
