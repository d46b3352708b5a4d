-- Put back a checkpoint, and make it the head where that is asked for.
-- ARGV: the order, link and body (empty: the checkpoint is there), snapshot.
local order = cjson.decode(ARGV[1])
add(order, ARGV[2], ARGV[3], ARGV[4])
if order.row then
    if head() == '' then
        local first = string.sub(redis.call('ZRANGE', steps, 0, 0)[1], order.id_from)
        local link = cjson.decode(redis.call('HGET', links, first))
        if link.parent_thread then
            redis.call('HSET', thread, 'origin_thread', link.parent_thread, 'origin_id', link.parent_id)
        end
        redis.call('HSET', thread, unpack(order.new))
        resume_audit()
    end
    redis.call('HSET', thread, unpack(order.row))
end
return {'done'}
