-- Ledger entries: key, entry, arguments, receipt. ARGV: 'key' and a key, or 'turns' and the bounds of their places.
local keys = {ARGV[2]}
if ARGV[1] == 'turns' then
    keys = {}
    for i, place in ipairs(redis.call('ZRANGEBYLEX', turns, ARGV[2], ARGV[3])) do
        keys[i] = string.sub(place, tonumber(ARGV[4]))
    end
end
local out = {}
for _, key in ipairs(keys) do
    local entry = redis.call('HGET', effects, key)
    if entry then
        out[#out + 1] = {key, entry, redis.call('HGET', arguments, key), redis.call('HGET', done, key)}
    end
end
return out
