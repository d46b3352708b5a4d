-- The forks that were noted, and the time.
return {redis.call('HGETALL', forks), seconds()}
