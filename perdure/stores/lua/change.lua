-- Set a field of a thread's row, if there is one. ARGV: field, value.
if head() ~= '' then
    redis.call('HSET', thread, ARGV[1], ARGV[2])
end
return 1
