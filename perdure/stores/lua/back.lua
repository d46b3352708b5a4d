-- A checkpoint and its ancestors, newest first, within the thread and at most so many.
-- ARGV: where to begin, how many, 'line' or 'path', and for a line that goes on the base it goes back to ('?': that of
-- the first checkpoint). Answers with {id, link, body} of each; thread and id where it goes on (an empty thread is this
-- one, an empty id means that it ends here); the base; and the snapshot, if it ends at one.
local id, limit, to_base, base = ARGV[1], tonumber(ARGV[2]), ARGV[3] == 'line', ARGV[4]
local found = {}
while #found < limit do
    local link = redis.call('HGET', links, id)
    if not link then
        return {found, '', '', base, false}
    end
    found[#found + 1] = {id, link, redis.call('HGET', checkpoints, id)}
    local readable, way = pcall(cjson.decode, link)
    if not readable then -- whoever reads it says so
        return {found, '', '', base, false}
    end
    if base == '?' then
        base = way.base_id or ''
    end
    if way.cut or (to_base and id == base) then
        return {found, '', '', base, to_base and redis.call('HGET', snapshots, id)}
    end
    if not way.parent_id then
        return {found, '', '', base, false}
    end
    id = way.parent_id
    if way.parent_thread then
        return {found, way.parent_thread, id, base, false}
    end
end
return {found, '', id, base, false}
