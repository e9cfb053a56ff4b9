-- For wrk: reads of products by chance.
math.randomseed(os.time())
request = function() return wrk.format("GET", "/products/" .. math.random(1, 1000)) end
