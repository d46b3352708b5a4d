-- Keep a cached result in the place of all there are. KEYS: the result's key. ARGV: field, value, and when it expires
-- (milliseconds since 1970; empty: never).
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
if ARGV[3] ~= '' then
    redis.call('PEXPIREAT', KEYS[1], ARGV[3])
end
return 1
