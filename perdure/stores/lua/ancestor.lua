-- The ancestor of a step, within the thread; reads links only. ARGV: where to begin, the step, how far at most.
-- Answers like back.lua: what was found, and where to go on.
local id, step = ARGV[1], tonumber(ARGV[2])
for _ = 1, tonumber(ARGV[3]) do
    local link = redis.call('HGET', links, id)
    if not link then
        return {{}, '', ''}
    end
    local readable, way = pcall(cjson.decode, link)
    if not readable or way.step == step then
        return {{{id, link, redis.call('HGET', checkpoints, id)}}, '', ''}
    end
    if way.step < step or way.cut or not way.parent_id then
        return {{}, '', ''}
    end
    id = way.parent_id
    if way.parent_thread then
        return {{}, way.parent_thread, id}
    end
end
return {{}, '', id}
