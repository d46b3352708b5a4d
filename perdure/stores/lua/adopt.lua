-- Give a thread what was laid out for it. KEYS: those of the thread, then what was laid out. ARGV: the order.
local order = cjson.decode(ARGV[1])
if head() ~= '' then
    local ours = redis.call('HGET', thread, 'made_by') == order.token -- said again, because the answer was lost
    return {ours and 'done' or 'exists'}
end
if order.noted and seconds() - order.noted > order.patience then
    return {'late'}
end
local places = {checkpoints, links, steps, snapshots, labels, receipts, receipt_keys}
for i, place in ipairs(places) do
    local laid_out = KEYS[#KEYS - #places + i]
    if redis.call('EXISTS', laid_out) == 1 then
        redis.call('RENAME', laid_out, place)
        redis.call('PERSIST', place)
    end
end
redis.call('UNLINK', audit, audit_ids) -- of a thread that had lost its row
redis.call('HSET', thread, unpack(order.row))
redis.call('HSET', thread, 'made_by', order.token)
redis.call('HINCRBY', counts, 'written', 1)
return {'done'}
