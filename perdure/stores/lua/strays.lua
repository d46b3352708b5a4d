-- The checkpoints that cached results name, and that aren't there.
local out = {}
for _, id in pairs(whole(requests)) do
    if id ~= '' and redis.call('HEXISTS', links, id) == 0 then
        out[#out + 1] = id
    end
end
return out
