-- Give a thread what was laid out for it. KEYS: those of the thread, then those laid out, in the same order.
local order = cjson.decode(ARGV[1])
if head() ~= '' then
    local ours = redis.call('HGET', thread, 'made_by') == order.token -- said again, because the answer was lost
    return {ours and 'done' or 'exists'}
end
if order.reserved and seconds() - order.reserved > order.patience then
    return {'late'}
end
local half = #KEYS / 2
for i = 1, half do
    local laid_out = KEYS[half + i]
    if redis.call('EXISTS', laid_out) == 1 then
        redis.call('RENAME', laid_out, KEYS[i])
        redis.call('PERSIST', KEYS[i])
    end
end
redis.call('HSET', thread, unpack(order.row))
redis.call('HSET', thread, 'made_by', order.token)
redis.call('HINCRBY', counts, 'written', 1)
return {'done'}
