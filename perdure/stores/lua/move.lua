-- Set what is known of an effect. ARGV: the order.
local order = cjson.decode(ARGV[1])
keep(order.key, moved(order.key, order.move))
return 1
