-- The shape of a thread at one moment: its row, the places of its checkpoints, what was counted; with ARGV[1] = 'links'
-- their links too.
local links_too = ARGV[1] == 'links' and redis.call('HGETALL', links) or {}
return {
    redis.call('HGETALL', thread), redis.call('ZRANGE', steps, 0, -1), count('written'), count('removed'), links_too,
}
