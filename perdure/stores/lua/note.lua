-- Note that a thread is about to begin at a checkpoint of this one. ARGV: the checkpoint (empty: whether it is there
-- doesn't matter), the fork. Answers with the time, or nothing where there is no such checkpoint.
if ARGV[1] ~= '' and redis.call('HEXISTS', links, ARGV[1]) == 0 then
    return false
end
local now = seconds()
redis.call('HSET', forks, ARGV[2], now)
return now
