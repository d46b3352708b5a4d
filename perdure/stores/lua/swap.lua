-- Set fields of a hash where all of them are still what they were, or are already what they become. KEYS: the hash.
-- ARGV: field, before (empty: there is none) and after, one field after the other; after is empty: it goes.
for i = 1, #ARGV, 3 do
    local value = redis.call('HGET', KEYS[1], ARGV[i]) or ''
    if value ~= ARGV[i + 1] and value ~= ARGV[i + 2] then
        return 0
    end
end
for i = 1, #ARGV, 3 do
    if ARGV[i + 2] == '' then
        redis.call('HDEL', KEYS[1], ARGV[i])
    else
        redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 2])
    end
end
return 1
