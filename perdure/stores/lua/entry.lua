-- Change a ledger entry where it is still what it was, and keep what a call returned for its commit.
-- ARGV: the order, the entry before and after (empty: there is none), its receipt, its arguments, what is kept.
local order = cjson.decode(ARGV[1])
local stands = head()
if order.head and stands ~= order.head then
    return {'moved', stands}
end
if order.noted and seconds() - order.noted > order.patience then
    return {'late'}
end
if not unchanged(order.key, ARGV[2], ARGV[3]) then
    return {'changed'}
end
put(order.key, ARGV[3], ARGV[4], order.place, ARGV[5])
if ARGV[6] ~= '' and redis.call('HSETNX', receipts, order.key, ARGV[6]) == 1 then
    redis.call('ZADD', receipt_keys, 0, order.key)
end
return {'done'}
