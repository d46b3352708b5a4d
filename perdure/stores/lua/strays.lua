-- The checkpoints that cached results name, and that aren't there.
local out = {}
for _, member in ipairs(redis.call('SMEMBERS', requests)) do
    local id = string.sub(member, 66)
    if id ~= '' and redis.call('HEXISTS', links, id) == 0 then
        out[#out + 1] = id
    end
end
return out
