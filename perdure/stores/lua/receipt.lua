-- Record what a call returned. ARGV: the order, the receipt.
local order = cjson.decode(ARGV[1])
local stands = head()
if order.head and stands ~= order.head then
    return {'moved', stands}
end
keep(order.key, moved(order.key, order.finish), ARGV[2])
if order.keep and redis.call('HSETNX', receipts, order.key, ARGV[2]) == 1 then
    redis.call('ZADD', receipt_keys, 0, order.key)
end
return {'done'}
