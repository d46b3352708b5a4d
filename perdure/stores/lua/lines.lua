-- A page of the audit, and how many lines there are by each of its two keys. ARGV: where it begins and ends, from 0.
return {redis.call('LRANGE', audit, ARGV[1], ARGV[2]), redis.call('LLEN', audit), redis.call('HLEN', audit_ids)}
