-- Checkpoints by id: their links, bodies and snapshots. ARGV: ids.
return {
    redis.call('HMGET', links, unpack(ARGV)), redis.call('HMGET', checkpoints, unpack(ARGV)),
    redis.call('HMGET', snapshots, unpack(ARGV)),
}
