-- Stores one chunk and merges its roll-ups, or changes nothing if the chunk is there already.
--
-- KEYS: points of the test and day, its hours, the days of its month
-- ARGV: chunk field, packed points, three times to live in ms (points, hours, days),
--       day of the month, packed roll-up of the day or "", then pairs of hour and packed roll-up
--
-- Everything is read and computed before the first write: a script that fails is not rolled back.
-- Doubles stay inside packed strings, since Lua numbers lose their fraction on the way out.

local ROLLUP = '<I4I4ddI4I4'

-- Rollup::merge of `rollup.rs`, on packed values.
local function merged(key, field, part)
  local stored = redis.call('HGET', key, field)
  if not stored then
    return part
  end
  local n, failures, mean, m2, low, high = struct.unpack(ROLLUP, stored)
  local m, more, other, other_m2, other_low, other_high = struct.unpack(ROLLUP, part)
  local total, delta = n + m, other - mean
  return struct.pack(ROLLUP, total, failures + more,
    mean + delta * m / total, m2 + other_m2 + delta * delta * n * m / total,
    math.min(low, other_low), math.max(high, other_high))
end

if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then
  return 0
end

local hours = {}
for i = 8, #ARGV, 2 do
  hours[#hours + 1] = ARGV[i]
  hours[#hours + 1] = merged(KEYS[2], ARGV[i], ARGV[i + 1])
end
local day = ARGV[7] ~= '' and merged(KEYS[3], ARGV[6], ARGV[7])

redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3], 'NX')
if #hours > 0 then
  redis.call('HSET', KEYS[2], unpack(hours))
  redis.call('PEXPIRE', KEYS[2], ARGV[4], 'NX')
end
if day then
  redis.call('HSET', KEYS[3], ARGV[6], day)
  redis.call('PEXPIRE', KEYS[3], ARGV[5], 'NX')
end
return 1
