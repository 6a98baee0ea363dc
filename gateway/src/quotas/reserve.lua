-- Takes from all counters or from none.
-- KEYS, nine a counter: hash {s: settled, h: held}, its leases (sorted by their end), the same two of the stretch before;
-- these four of the counter of what is left over of its owner; the names of the owner's counters.
-- ARGV: id, lease in ms, the most counters of an owner, then six a counter: amount, limit, refuses, share of the stretch
-- before in millionths, keep until, has an owner.
-- Gives which has no room, then four a counter: settled, of it of the stretch before, held, goes into what is left over.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local id, lease, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local n = #KEYS / 9

-- What the dead have reserved is given back.
local function free(hash, leases)
  for _, member in ipairs(redis.call('ZRANGEBYSCORE', leases, '-inf', now)) do
    redis.call('ZREM', leases, member)
    redis.call('HINCRBY', hash, 'h', '-' .. string.match(member, '|(%d+)$'))
  end
end
local function count(hash, field)
  return tonumber(redis.call('HGET', hash, field) or 0)
end

-- Counters of one owner that come into being with this request count too.
local new, at = {}, {}
local function goes_over(hash, names)
  if redis.call('EXISTS', hash) == 1 or redis.call('SISMEMBER', names, hash) == 1 then return false end
  if (new[names] or {})[hash] then return false end
  local of = new[names] or {n = 0}
  if redis.call('SCARD', names) + of.n >= most then return true end
  of[hash], of.n = true, of.n + 1
  new[names] = of
  return false
end

local out, full, more = {0}, 0, {}
for i = 1, n do
  local k, a = 9 * (i - 1), 3 + 6 * (i - 1)
  local over = ARGV[a + 6] == '1' and goes_over(KEYS[k + 1], KEYS[k + 9])
  at[i] = over and k + 4 or k
  k = at[i]
  local hash = KEYS[k + 1]
  free(hash, KEYS[k + 2])
  local before, share = 0, tonumber(ARGV[a + 4])
  if share > 0 then
    free(KEYS[k + 3], KEYS[k + 4])
    before = math.ceil((count(KEYS[k + 3], 's') + count(KEYS[k + 3], 'h')) * share / 1000000)
  end
  local spent, held = count(hash, 's') + before, count(hash, 'h') + (more[hash] or 0)
  local amount = tonumber(ARGV[a + 1])
  if full == 0 and ARGV[a + 3] == '1' and spent + held + amount > tonumber(ARGV[a + 2]) then full = i end
  more[hash] = (more[hash] or 0) + amount
  out[#out + 1] = spent
  out[#out + 1] = before
  out[#out + 1] = held
  out[#out + 1] = over and 1 or 0
end
out[1] = full
if full > 0 then return out end
for i = 1, n do
  local k, a = at[i], 3 + 6 * (i - 1)
  redis.call('HINCRBY', KEYS[k + 1], 'h', ARGV[a + 1])
  if ARGV[a + 1] ~= '0' then
    redis.call('ZADD', KEYS[k + 2], now + lease, id .. '.' .. i .. '|' .. ARGV[a + 1])
  end
  local kept = {KEYS[k + 1], KEYS[k + 2]}
  local names = KEYS[9 * i]
  if (new[names] or {})[KEYS[k + 1]] then
    redis.call('SADD', names, KEYS[k + 1])
    kept[3] = names
  end
  for _, key in ipairs(kept) do
    if ARGV[a + 5] == '0' then
      redis.call('PEXPIRE', key, 3 * lease)
    else
      redis.call('PEXPIREAT', key, ARGV[a + 5])
    end
  end
end
return out
