-- Appends one chunk to a pack, or changes nothing if a chunk of that name is in it.
--
-- KEYS: the pack of the test and day
-- ARGV: name of the chunk, the packed chunk (which has the name in it), the pack's first byte, time to
--       live in ms
--
-- A whole new value is set instead of APPENDed to: appending reserves twice the memory. A name of six
-- bytes is found elsewhere in a pack of 30 KiB once in 10^10 times.

local pack = redis.call('GET', KEYS[1])
if not pack then
  redis.call('SET', KEYS[1], ARGV[3] .. ARGV[2], 'PX', ARGV[4])
  return 1
end
if string.byte(pack, 1) ~= string.byte(ARGV[3], 1) then
  return redis.error_reply('ERR a pack of another layout')
end
if string.find(pack, ARGV[1], 2, true) then
  return 0
end
redis.call('SET', KEYS[1], pack .. ARGV[2], 'KEEPTTL')
return 1
