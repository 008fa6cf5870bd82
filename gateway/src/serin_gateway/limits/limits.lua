-- Limits of one subject, atomically: what the docstring of limiter.py promises, on Redis' own clock.
--
-- KEYS  1 window: hash, "r<bucket>" requests and "t<bucket>" tokens used in a bucket of 1 s
--       2 expiry: sorted set, lease -> millisecond at which it ends
--       3 reserved: hash, lease -> "tokens still reserved:tokens counted so far"
-- ARGV  1 "reserve" | "grow" | "renew" | "settle"   2 lease   3 tokens still to be reserved   4 tokens used so far
--       5 tokens that the gateway knows to be counted, for a lease that is not known here (any more)
--       6 requests a minute   7 tokens a minute   8 requests at once (0: no limit)
-- Returns {refused by ("" if not), retry after ms, remaining requests, reset ms, remaining tokens, reset ms}.

local BUCKET_MS, NUM_BUCKETS, LEASE_MS = 1000, 61, 30000
local op, lease, reserve, used = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local max_requests, max_tokens, max_leases = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])

local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local current = math.floor(now / BUCKET_MS)

-- The window: buckets that have left it are dropped; buckets of the future (the clock went back) count as now.
local counts = {r = {}, t = {}}
local sums = {r = 0, t = 0}
local last = {r = 0, t = 0}
local fields = redis.call("HGETALL", KEYS[1])
for i = 1, #fields, 2 do
  local kind, bucket, count = fields[i]:sub(1, 1), tonumber(fields[i]:sub(2)), tonumber(fields[i + 1])
  if bucket > current then
    redis.call("HDEL", KEYS[1], fields[i])
    redis.call("HINCRBY", KEYS[1], kind .. string.format("%d", current), count)
    bucket = current
  end
  if bucket <= current - NUM_BUCKETS then
    redis.call("HDEL", KEYS[1], fields[i])
  else
    counts[kind][bucket] = (counts[kind][bucket] or 0) + count
    sums[kind] = sums[kind] + count
    last[kind] = math.max(last[kind], bucket)
  end
end

-- Leases: those not renewed in time end; what they had not used is free again.
for _, ended in ipairs(redis.call("ZRANGEBYSCORE", KEYS[2], "-inf", now)) do
  redis.call("HDEL", KEYS[3], ended)
end
redis.call("ZREMRANGEBYSCORE", KEYS[2], "-inf", now)
for _, ahead in ipairs(redis.call("ZRANGEBYSCORE", KEYS[2], now + LEASE_MS + 5000, "+inf")) do
  redis.call("ZADD", KEYS[2], now + LEASE_MS, ahead)
end

local outstanding = 0
if max_tokens > 0 then
  for _, held in ipairs(redis.call("HVALS", KEYS[3])) do outstanding = outstanding + tonumber(held:match("^%d+")) end
end

local function count(kind, amount)
  if amount ~= 0 then
    redis.call("HINCRBY", KEYS[1], kind .. string.format("%d", current), amount)
    sums[kind] = sums[kind] + amount
    last[kind] = current
  end
end

-- Milliseconds until enough of a window has left it for `amount` to be free; the whole window at most.
local function wait_for(kind, amount)
  local freed = 0
  for bucket = current - NUM_BUCKETS + 1, current do
    freed = freed + (counts[kind][bucket] or 0)
    if freed >= amount then return (bucket + NUM_BUCKETS) * BUCKET_MS - now end
  end
  return NUM_BUCKETS * BUCKET_MS
end

local function reset(kind)
  if last[kind] == 0 then return 0 end
  return (last[kind] + NUM_BUCKETS) * BUCKET_MS - now
end

local refused, retry_ms = "", 0
local before, posted = (redis.call("HGET", KEYS[3], lease) or ""):match("^(%d+):(%d+)$")
before = tonumber(before or 0)
if op == "grow" then
  local over = sums.t + outstanding - before + reserve - max_tokens
  if max_tokens > 0 and over > 0 then refused, retry_ms = "tokens", wait_for("t", over) end
elseif op == "reserve" then
  if max_requests > 0 and sums.r + 1 > max_requests then
    refused, retry_ms = "requests", wait_for("r", sums.r + 1 - max_requests)
  elseif max_tokens > 0 and sums.t + outstanding + reserve > max_tokens then
    refused, retry_ms = "tokens", wait_for("t", sums.t + outstanding + reserve - max_tokens)
  elseif max_leases > 0 and redis.call("ZCARD", KEYS[2]) + 1 > max_leases then
    refused, retry_ms = "concurrency", 1000
  else
    count("r", 1)
  end
end
if refused == "" then
  local fresh = used - tonumber(posted or ARGV[5])
  count("t", fresh)
  outstanding = outstanding - before
  -- A renewal that was overtaken by a growth must not take it back.
  if op == "renew" then reserve = math.max(reserve, before - math.max(0, fresh)) end
  if op == "settle" then
    redis.call("ZREM", KEYS[2], lease)
    redis.call("HDEL", KEYS[3], lease)
  else
    outstanding = outstanding + reserve
    redis.call("ZADD", KEYS[2], now + LEASE_MS, lease)
    redis.call("HSET", KEYS[3], lease, string.format("%d:%d", reserve, used))
  end
  redis.call("PEXPIRE", KEYS[1], NUM_BUCKETS * BUCKET_MS)
  redis.call("PEXPIRE", KEYS[2], 2 * LEASE_MS)
  redis.call("PEXPIRE", KEYS[3], 2 * LEASE_MS)
end

return {
  refused, retry_ms,
  math.max(0, max_requests - sums.r), reset("r"),
  math.max(0, max_tokens - sums.t - outstanding), reset("t"),
}
