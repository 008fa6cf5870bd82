-- Responses of one tenant, atomically: what the docstring of store.py promises, on Redis' own clock.
--
-- KEYS  1 beginning of the names of its records: one hash tag, so one slot   2 index: sorted set, response -> microsecond
--       of its last use   3 sizes: hash, response -> bytes; "": all of them
-- ARGV  1 "put": 2 response 3 previous 4 head 5 output 6 input 7 session 8 milliseconds 9 most bytes 10 bytes beside
--       1 "walk": 2 response 3 most turns 4 most bytes          1 "delete": 2 response
--
-- A record is a hash: head (absent: it was deleted, and others continue it), output, input, previous, session, children
-- (how many kept ones continue it).

local RECORDS, INDEX, SIZES = KEYS[1], KEYS[2], KEYS[3]
local AT_ONCE = 100

local function resize(id, bytes)
  redis.call("HINCRBY", SIZES, id, bytes)
  redis.call("HINCRBY", SIZES, "", bytes)
end

-- Forget one, and deleted ones that nothing continues any more.
local function drop(id)
  while id do
    local parent = redis.call("HGET", RECORDS .. id, "previous")
    redis.call("DEL", RECORDS .. id)
    redis.call("ZREM", INDEX, id)
    local bytes = redis.call("HGET", SIZES, id)
    if bytes then
      redis.call("HINCRBY", SIZES, "", "-" .. bytes)
      redis.call("HDEL", SIZES, id)
    end
    id = nil
    if parent and parent ~= "" and redis.call("EXISTS", RECORDS .. parent) == 1 then
      local left = redis.call("HINCRBY", RECORDS .. parent, "children", -1)
      if left <= 0 and redis.call("HEXISTS", RECORDS .. parent, "head") == 0 then id = parent end
    end
  end
end

local function put(id, previous, head, output, input, session, lives_ms, most, beside)
  local time = redis.call("TIME")
  local now = time[1] * 1000000 + time[2]
  for _, old in ipairs(redis.call("ZRANGEBYSCORE", INDEX, "-inf", now - lives_ms * 1000, "LIMIT", 0, AT_ONCE)) do
    drop(old)
  end
  if previous ~= "" then
    if redis.call("EXISTS", RECORDS .. previous) == 0 then return "gone" end
    redis.call("HINCRBY", RECORDS .. previous, "children", 1)
  end
  redis.call("HSET", RECORDS .. id, "head", head, "output", output, "input", input, "previous", previous, "session",
    session, "children", 0)
  resize(id, #head + #output + #input + #session + beside)
  -- What is continued lives as long. Of one conversation the beginning goes last: without it nothing can be continued.
  local at, used_at, bytes = id, now, 0
  while at and at ~= "" do
    if redis.call("PEXPIRE", RECORDS .. at, lives_ms) == 0 then break end
    redis.call("ZADD", INDEX, string.format("%.0f", used_at), at)
    bytes = bytes + (tonumber(redis.call("HGET", SIZES, at)) or 0)
    at, used_at = redis.call("HGET", RECORDS .. at, "previous"), used_at + 1
  end
  redis.call("PEXPIRE", INDEX, lives_ms)
  redis.call("PEXPIRE", SIZES, lives_ms)
  if bytes > most then
    drop(id)
    return "full"
  end
  while tonumber(redis.call("HGET", SIZES, "")) > most do
    drop(redis.call("ZRANGE", INDEX, 0, 0)[1])
  end
  return "kept"
end

local function walk(id, most_turns, most_bytes)
  local found, at, bytes = {"found", redis.call("HGET", RECORDS .. id, "session")}, id, 0
  if redis.call("HEXISTS", RECORDS .. id, "head") == 0 then return {"missing"} end
  while at ~= "" do
    local turn = redis.call("HMGET", RECORDS .. at, "input", "output", "previous")
    if not turn[1] then return {"missing"} end
    if #found == 2 + 2 * most_turns then return {"too_long"} end
    bytes = bytes + #turn[1] + #turn[2]
    if bytes > most_bytes then return {"too_large"} end
    found[#found + 1], found[#found + 2], at = turn[1], turn[2], turn[3]
  end
  return found
end

local function delete(id)
  local held = redis.call("HMGET", RECORDS .. id, "head", "children")
  if not held[1] then return 0 end
  if tonumber(held[2]) > 0 then
    redis.call("HDEL", RECORDS .. id, "head")
    resize(id, -#held[1])
  else
    drop(id)
  end
  return 1
end

if ARGV[1] == "put" then
  return put(ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9]),
    tonumber(ARGV[10]))
end
if ARGV[1] == "walk" then return walk(ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])) end
return delete(ARGV[2])
