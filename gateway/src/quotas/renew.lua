-- Renews leases; one that was given back because nobody renewed it in time is taken again: it is under way. One that was
-- settled meanwhile is not.
-- KEYS, three a lease: hash, leases, the mark of what was settled. ARGV: lease in ms, then three a lease: member, reserved,
-- keep until.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local lease = tonumber(ARGV[1])
local renewed = 0
for i = 1, #KEYS / 3 do
  local hash, leases, done, a = KEYS[3 * i - 2], KEYS[3 * i - 1], KEYS[3 * i], 1 + 3 * (i - 1)
  if redis.call('EXISTS', done) == 0 then
    if redis.call('ZADD', leases, now + lease, ARGV[a + 1]) == 1 then
      redis.call('HINCRBY', hash, 'h', ARGV[a + 2])
    end
    for _, key in ipairs({hash, leases}) do
      if ARGV[a + 3] == '0' then
        redis.call('PEXPIRE', key, 3 * lease)
      else
        redis.call('PEXPIREAT', key, ARGV[a + 3])
      end
    end
    renewed = renewed + 1
  end
end
return {renewed}
