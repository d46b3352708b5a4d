-- Add lines to the audit where it still ends as it did. ARGV: the order, then id and line, one after the other.
local order = cjson.decode(ARGV[1])
local number, digest = unpack(redis.call('HMGET', thread, 'audited', 'audit_digest'))
if head() == '' or (number or '0') ~= order.number or (digest or '') ~= order.digest then
    return 0
end
for i = 2, #ARGV, 2 do
    redis.call('RPUSH', audit, ARGV[i + 1])
    redis.call('HSET', audit_ids, ARGV[i], redis.call('LLEN', audit))
end
redis.call('HSET', thread, unpack(order.row))
return 1
