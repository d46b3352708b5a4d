-- A page of all checkpoints, by step. ARGV: the place after which it begins, how many. Answers with places, links and
-- bodies, and how many checkpoints there are by each of the three keys: they must agree.
local places = redis.call('ZRANGEBYLEX', steps, ARGV[1], '+', 'LIMIT', 0, ARGV[2])
local ids = {}
for i, place in ipairs(places) do
    ids[i] = string.sub(place, tonumber(ARGV[3]))
end
local counted = {redis.call('ZCARD', steps), redis.call('HLEN', links), redis.call('HLEN', checkpoints)}
if #ids == 0 then
    return {{}, {}, {}, counted}
end
return {places, redis.call('HMGET', links, unpack(ids)), redis.call('HMGET', checkpoints, unpack(ids)), counted}
