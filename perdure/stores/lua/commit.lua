-- Make a checkpoint the head, with all that becomes true with it.
-- ARGV: the order, link, body, snapshot; a ledger entry before and after (empty: there is none), its receipt.
local order = cjson.decode(ARGV[1])
local stands = head()
local known = redis.call('HGET', links, order.id)
if known then
    return {cjson.decode(known).digest == order.digest and 'known' or 'other', stands}
end
if stands ~= order.extends then
    return {'moved', stands}
end
if order.orphan or (order.parent and redis.call('HEXISTS', links, order.parent) == 0) then
    return {'orphan', stands}
end
if order.noted and seconds() - order.noted > order.patience then
    return {'late', stands}
end
if order.receipt and not unchanged(order.receipt, ARGV[5], ARGV[6]) then
    return {'changed', stands}
end

add(order, ARGV[2], ARGV[3], ARGV[4])
redis.call('HSET', thread, unpack(order.row))
if stands == '' then
    resume_audit()
end
if order.request then
    redis.call('SADD', requests, order.request .. ':' .. order.id)
end
if order.receipt then
    put(order.receipt, ARGV[6], ARGV[7])
end
for _, key in ipairs(order.clears) do
    redis.call('HDEL', receipts, key)
    redis.call('ZREM', receipt_keys, key)
end
return {'done', order.id}
