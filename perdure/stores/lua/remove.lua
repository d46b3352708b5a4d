-- Remove checkpoints, with what belongs to them, and put whole states in the place of what others went back to.
-- ARGV: the order, then link, body and snapshot of each root.
local order = cjson.decode(ARGV[1])
if count('written') ~= order.written then
    return {'changed'}
end
local gone = set(order.gone)
local fork = held(gone, order.dead)
if fork then
    return {'forked', fork}
end
local forgotten = forget(gone)
for i, id in ipairs(order.roots) do
    redis.call('HSET', links, id, ARGV[3 * i - 1])
    redis.call('HSET', checkpoints, id, ARGV[3 * i])
    redis.call('HSET', snapshots, id, ARGV[3 * i + 1])
end
for i, id in ipairs(order.gone) do
    redis.call('HDEL', links, id)
    redis.call('HDEL', checkpoints, id)
    redis.call('HDEL', snapshots, id)
    redis.call('ZREM', steps, order.places[i])
    for _, key in ipairs(redis.call('ZRANGEBYLEX', receipt_keys, '[' .. id, '(' .. id .. '\255')) do
        if not string.match(string.sub(key, #id + 1), '^%w') then
            redis.call('HDEL', receipts, key)
            redis.call('ZREM', receipt_keys, key)
        end
    end
end
local unlabelled = {}
for _, label in ipairs(redis.call('ZRANGE', labels, 0, -1)) do
    if gone[string.sub(label, order.label_id_from)] then
        redis.call('ZREM', labels, label)
        unlabelled[#unlabelled + 1] = label
    end
end
if #order.row > 0 then
    redis.call('HSET', thread, unpack(order.row))
end
redis.call('HINCRBY', counts, 'written', 1)
redis.call('HINCRBY', counts, 'removed', 1)
return {'done', unlabelled, forgotten}
