-- All receipts whose key lies between two bounds, in the order of the keys.
local out = {}
for _, key in ipairs(redis.call('ZRANGEBYLEX', receipt_keys, ARGV[1], ARGV[2])) do
    out[#out + 1] = {key, redis.call('HGET', receipts, key)}
end
return out
