-- Remove a thread. ARGV: the order. Answers with what other keys know of it.
local order = cjson.decode(ARGV[1])
local fork = held(nil, order.dead)
if fork then
    return {'forked', fork}
end
local answer = {'done', redis.call('ZRANGE', labels, 0, -1), forget()}
for _, key in ipairs(KEYS) do
    redis.call('UNLINK', key)
end
return answer
