-- All snapshots: id, snapshot, and the link of its checkpoint.
local out = {}
for id, snapshot in pairs(whole(snapshots)) do
    out[#out + 1] = {id, snapshot, redis.call('HGET', links, id)}
end
return out
