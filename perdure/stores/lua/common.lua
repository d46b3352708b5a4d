-- What the scripts on one thread share. Their KEYS are all keys of the thread, in the order of perdure.stores.redis.keys.

local thread, checkpoints, links, steps, snapshots, labels, receipts, receipt_keys, effects, arguments, done, turns,
    audit, audit_ids, requests, forks, counts = unpack(KEYS)

-- The id of the head; empty where the thread has no row.
local function head()
    return redis.call('HGET', thread, 'head_id') or ''
end

local function seconds()
    return tonumber(redis.call('TIME')[1])
end

-- How often something was 'written' to the thread, or 'removed' from it.
local function count(what)
    return redis.call('HGET', counts, what) or '0'
end

-- A hash as a table.
local function whole(key)
    local flat, out = redis.call('HGETALL', key), {}
    for i = 1, #flat, 2 do
        out[flat[i]] = flat[i + 1]
    end
    return out
end

local function set(list)
    local out = {}
    for _, name in ipairs(list) do
        out[name] = true
    end
    return out
end

-- Whether a ledger entry is still what it was, or is already what it becomes: then this is said again, because the
-- answer was lost. Empty: there is none.
local function unchanged(key, before, after)
    local entry = redis.call('HGET', effects, key) or ''
    return entry == before or entry == after
end

-- Put an entry in the place of what it was. A new one comes with its place in the ledger and its arguments.
local function put(key, after, receipt, place, call)
    if after ~= '' then
        redis.call('HSET', effects, key, after)
    end
    if receipt ~= '' then
        redis.call('HSET', done, key, receipt)
    end
    if place then
        redis.call('HSET', arguments, key, call)
        redis.call('ZADD', turns, 0, place)
    end
end

-- A new row goes on with the audit that is there: of a thread that had lost its row.
local function resume_audit()
    local last = redis.call('LINDEX', audit, -1)
    if last then
        redis.call('HSET', thread, 'audited', redis.call('LLEN', audit), 'audit_digest', cjson.decode(last).digest)
    end
end

-- The cached results of the thread, or of the checkpoints in `where`: request, checkpoint and its digest, one after the
-- other; with that they are forgotten.
local function forget(where)
    local out = {}
    for _, member in ipairs(redis.call('SMEMBERS', requests)) do
        local request, id = string.sub(member, 1, 64), string.sub(member, 66)
        if not where or where[id] then
            local link = redis.call('HGET', links, id)
            out[#out + 1] = {request, id, link and cjson.decode(link).digest or ''}
            redis.call('SREM', requests, member)
        end
    end
    return out
end

-- Put in a checkpoint; an empty link or snapshot stands for none.
local function add(order, link, body, snapshot)
    if link ~= '' then
        redis.call('HSET', links, order.id, link)
        redis.call('HSET', checkpoints, order.id, body)
        redis.call('ZADD', steps, 0, order.place)
    end
    if snapshot ~= '' then
        redis.call('HSET', snapshots, order.id, snapshot)
    end
    for _, label in ipairs(order.labels) do
        redis.call('ZADD', labels, 0, label)
    end
    redis.call('HINCRBY', counts, 'written', 1)
end

-- What of a fork's parent holds it: fields of other threads that begin at a checkpoint in `where` (nil: at any), but
-- for those that the caller found to have come to nothing.
local function held(where, dead)
    for field, stamp in pairs(whole(forks)) do
        local fork = cjson.decode(field)
        if (not where or where[fork[2]]) and dead[field] ~= stamp then
            return fork[1]
        end
    end
    return nil
end
