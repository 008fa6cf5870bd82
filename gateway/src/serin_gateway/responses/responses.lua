-- Responses of one tenant, atomically: what the docstring of store.py promises, on Redis' own clock.
--
-- KEYS  1 a conversation: hash   2 the tenant's conversations: sorted set, name -> microsecond of its last use
--       3 their sizes: hash, name -> bytes; "": all of them. One hash tag, so one slot; other conversations of the
--       tenant, which go when there is no room, have the first name with another end.
-- ARGV  1 "put": 2 beginning of conversations' keys 3 conversation 4 response 5 previous 6 head 7 output 8 input
--       9 session 10 milliseconds 11 most bytes 12 bytes beside its own
--       1 "walk": 2 response 3 most turns 4 most bytes      1 "delete": 2 conversation 3 response
--
-- A conversation has for each response r: "r head" (absent: it was deleted, and others continue it), "r output",
-- "r input", "r previous", "r session", "r children" (how many kept ones continue it), "r size".

local TREE, INDEX, SIZES = KEYS[1], KEYS[2], KEYS[3]
local AT_ONCE = 100

local function resize(name, bytes)
  redis.call("HINCRBY", SIZES, name, bytes)
  redis.call("HINCRBY", SIZES, "", bytes)
end

local function forget(name, key)
  redis.call("UNLINK", key)
  redis.call("ZREM", INDEX, name)
  resize(name, 0 - (tonumber(redis.call("HGET", SIZES, name)) or 0))
  redis.call("HDEL", SIZES, name)
end

local function put(prefix, name, id, previous, head, output, input, session, lives_ms, most, beside)
  local time = redis.call("TIME")
  local now = time[1] * 1000000 + time[2]
  for _, old in ipairs(redis.call("ZRANGEBYSCORE", INDEX, "-inf", now - lives_ms * 1000, "LIMIT", 0, AT_ONCE)) do
    forget(old, prefix .. old)
  end
  if previous ~= "" and redis.call("HEXISTS", TREE, previous .. " size") == 0 then return "gone" end
  local size = #head + #output + #input + #session + beside
  if (tonumber(redis.call("HGET", SIZES, name)) or 0) + size > most then return "full" end
  if previous ~= "" then redis.call("HINCRBY", TREE, previous .. " children", 1) end
  redis.call("HSET", TREE, id .. " head", head, id .. " output", output, id .. " input", input, id .. " previous",
    previous, id .. " session", session, id .. " children", 0, id .. " size", size)
  resize(name, size)
  redis.call("ZADD", INDEX, string.format("%.0f", now), name)
  for _, key in ipairs(KEYS) do redis.call("PEXPIRE", key, lives_ms) end
  while tonumber(redis.call("HGET", SIZES, "")) > most do
    local oldest = redis.call("ZRANGE", INDEX, 0, 1)
    if oldest[1] == name then oldest[1] = oldest[2] end
    if not oldest[1] then break end
    forget(oldest[1], prefix .. oldest[1])
  end
  return "kept"
end

local function walk(id, most_turns, most_bytes)
  if redis.call("HEXISTS", TREE, id .. " head") == 0 then return {"missing"} end
  local found, at, bytes = {"found", redis.call("HGET", TREE, id .. " session")}, id, 0
  while at ~= "" do
    local turn = redis.call("HMGET", TREE, at .. " input", at .. " output", at .. " previous")
    if #found == 2 + 2 * most_turns then return {"too_long"} end
    bytes = bytes + #turn[1] + #turn[2]
    if bytes > most_bytes then return {"too_large"} end
    found[#found + 1], found[#found + 2], at = turn[1], turn[2], turn[3]
  end
  return found
end

local function delete(name, id)
  local head = redis.call("HGET", TREE, id .. " head")
  if not head then return 0 end
  if redis.call("HGET", TREE, id .. " children") ~= "0" then
    redis.call("HDEL", TREE, id .. " head")
    redis.call("HINCRBY", TREE, id .. " size", 0 - #head)
    resize(name, 0 - #head)
    return 1
  end
  -- It goes, and with it deleted ones that nothing continues any more.
  while id do
    local parent, size = unpack(redis.call("HMGET", TREE, id .. " previous", id .. " size"))
    resize(name, 0 - tonumber(size))
    redis.call("HDEL", TREE, id .. " head", id .. " output", id .. " input", id .. " previous", id .. " session",
      id .. " children", id .. " size")
    id = nil
    if parent ~= "" and redis.call("HINCRBY", TREE, parent .. " children", -1) == 0
      and redis.call("HEXISTS", TREE, parent .. " head") == 0 then id = parent end
  end
  if redis.call("EXISTS", TREE) == 0 then forget(name, TREE) end
  return 1
end

if ARGV[1] == "put" then
  return put(ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8], ARGV[9], tonumber(ARGV[10]),
    tonumber(ARGV[11]), tonumber(ARGV[12]))
end
if ARGV[1] == "walk" then return walk(ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])) end
return delete(ARGV[2], ARGV[3])
