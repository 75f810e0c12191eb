-- Checks one bucket in one atomic step, as domain/gcra.py does. Kept is the moment when the bucket will be full.
-- Times are whole microseconds, which a double holds exactly.
--
-- KEYS[1]  the bucket
-- ARGV     microseconds in which a call comes back; calls that the bucket holds; calls to take, 0 or 1;
--          the time, for tests: without it, it is this server's
-- Returns  1 if a call may be made, else 0; microseconds until the bucket is full

local interval, burst, calls = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local now = tonumber(ARGV[4])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000000 + time[2]
end

local full_at = tonumber(redis.call('GET', KEYS[1]) or now)
-- No further away than the limit can put it: the limit may have been larger, or the clock set back.
local wait = math.min(math.max(full_at - now, 0), burst * interval)
local allowed = wait <= (burst - 1) * interval
if allowed then
  wait = wait + calls * interval
end

if wait > 0 and now + wait ~= full_at then
  -- A point in time, because a duration would be counted from a clock in milliseconds and could end too early.
  local expiry = ARGV[4] and { 'EX', 3600 } or { 'PXAT', math.ceil((now + wait) / 1000) }
  redis.call('SET', KEYS[1], string.format('%.0f', now + wait), unpack(expiry))
end
return { allowed and 1 or 0, wait }
