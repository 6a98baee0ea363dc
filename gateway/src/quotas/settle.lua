-- Puts the truth in the place of what was reserved: once, however often it is asked.
-- KEYS: the mark of what was settled, then three a counter: hash, leases, names of its owner's counters.
-- ARGV: id, how long the mark stays in ms, then four a counter: number, reserved, spent, keep until.
local is_first = redis.call('SET', KEYS[1], '1', 'NX', 'PX', ARGV[2])
local out = {}
for i = 1, (#KEYS - 1) / 3 do
  local k, a = 1 + 3 * (i - 1), 2 + 4 * (i - 1)
  local hash, leases, names = KEYS[k + 1], KEYS[k + 2], KEYS[k + 3]
  local reserved, spent = ARGV[a + 2], ARGV[a + 3]
  if is_first then
    -- A lease that is not there any more was given back already.
    if redis.call('ZREM', leases, ARGV[1] .. '.' .. ARGV[a + 1] .. '|' .. reserved) == 1 then
      redis.call('HINCRBY', hash, 'h', '-' .. reserved)
    end
    if spent ~= '0' then redis.call('HINCRBY', hash, 's', spent) end
    if ARGV[a + 4] ~= '0' then redis.call('PEXPIREAT', hash, ARGV[a + 4]) end
  end
  local settled = tonumber(redis.call('HGET', hash, 's') or 0)
  local held = tonumber(redis.call('HGET', hash, 'h') or 0)
  out[#out + 1] = settled
  out[#out + 1] = held
  -- A counter that shows nothing takes no room. One that others are in with nothing reserved comes into being again.
  if settled == 0 and held == 0 then
    redis.call('DEL', hash)
    redis.call('SREM', names, hash)
  end
end
return out
