-- Record that an attempt begins. ARGV: the order, the entry of a first attempt, its arguments. Answers with the entry
-- as it was before.
local order = cjson.decode(ARGV[1])
local stands = head()
if stands ~= order.head then
    return {'moved', stands}
end
local before = redis.call('HGET', effects, order.key)
local claim = before and cjson.decode(redis.call('HGET', claims, order.key))
if claim and claim.token == order.token then -- said again, because the answer was lost
    before = claim.before
elseif not before then
    redis.call('HSET', effects, order.key, ARGV[2])
    redis.call('HSET', arguments, order.key, ARGV[3])
    redis.call('ZADD', turns, 0, order.place)
    redis.call('HSET', claims, order.key, cjson.encode({token = order.token}))
else
    local entry = cjson.decode(before)
    local again = entry.effect ~= 'irreversible' and moved(order.key, order.again)
    if again then
        entry = cjson.decode(again)
        entry.attempts = entry.attempts + 1
        redis.call('HSET', effects, order.key, cjson.encode(entry))
    end
    redis.call('HSET', claims, order.key, cjson.encode({token = order.token, before = before}))
end
if not before then
    return {'first'}
end
return {'again', before, redis.call('HGET', arguments, order.key), redis.call('HGET', done, order.key)}
