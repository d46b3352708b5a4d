-- Ledger entries: key, place, entry, arguments, receipt; before them the time, and how many there are by each of three
-- keys, which must agree. ARGV: 'key' and a key, or 'turns' and the bounds of their places.
local found = {{ARGV[2], ''}}
if ARGV[1] == 'turns' then
    found = {}
    for i, place in ipairs(redis.call('ZRANGEBYLEX', turns, ARGV[2], ARGV[3])) do
        found[i] = {string.sub(place, tonumber(ARGV[4])), place}
    end
end
local out = {}
for _, at in ipairs(found) do
    local key, place = at[1], at[2]
    local entry = redis.call('HGET', effects, key)
    if entry then
        out[#out + 1] = {key, place, entry, redis.call('HGET', arguments, key), redis.call('HGET', done, key)}
    end
end
local counted = {redis.call('ZCARD', turns), redis.call('HLEN', effects), redis.call('HLEN', arguments)}
return {seconds(), counted, out}
