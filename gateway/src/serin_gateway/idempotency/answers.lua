-- The answer of one name, atomically: what the docstring of store.py promises.
--
-- KEYS  1 claim: hash, fingerprint, owner, state, renewals       2 frames: list
--       3 maker: string, the owner that makes the answer; it outlives a claim that lapses, and goes with any end but
--         that of an answer of which nobody has seen anything
--       4 "serin:{organization}:", the beginning of the limiter's names: one hash tag, so one slot
-- ARGV  1 "claim" | "renew" | "finish"   2 owner   3 milliseconds that it lives on
--       claim: 4 fingerprint, 5 milliseconds that the maker is remembered
--       renew: 4 frames that are kept already, 5.. further ones    finish: 4 state
-- Returns {state, fingerprint, owner}.

local op, owner, lives_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
local held = redis.call("HMGET", KEYS[1], "state", "fingerprint", "owner")
local state, fingerprint, holder = held[1] or "gone", held[2] or "", held[3] or ""

-- What is billed for the answer is remembered there for as long as it may be made anew: see limits.lua.
local credit = KEYS[4] .. "limit-credit:" .. owner

local function lives()
  redis.call("PEXPIRE", KEYS[1], lives_ms)
  redis.call("PEXPIRE", KEYS[2], lives_ms)
end

-- What a maker that was taken for dead, or whose answer nobody has seen, has used is not billed, whoever settles it and
-- whenever.
local function supersede(dead)
  redis.call("ZADD", KEYS[4] .. "limit-superseded", redis.call("TIME")[1] * 1000, dead)
  redis.call("SADD", KEYS[4] .. "limit-credits-due", dead)
end

if op == "claim" then
  if state ~= "gone" then return {state, fingerprint, holder} end
  local before = redis.call("GET", KEYS[3])
  if before and before ~= owner then supersede(before) end
  redis.call("DEL", KEYS[2])
  redis.call("HSET", KEYS[1], "state", "running", "fingerprint", ARGV[4], "owner", owner)
  redis.call("SET", KEYS[3], owner, "PX", ARGV[5])
  redis.call("SET", credit, "", "NX", "PX", ARGV[5]) -- one that takes its own claim again may have been billed
  lives()
  return {"mine", ARGV[4], owner}
end

if holder ~= owner or state ~= "running" then
  return {state == "running" and "lost" or state, fingerprint, holder}
end

if op == "renew" then
  local at = tonumber(ARGV[4])
  if at == 0 then redis.call("DEL", KEYS[2]) else redis.call("LTRIM", KEYS[2], 0, at - 1) end
  for first = 5, #ARGV, 500 do
    redis.call("RPUSH", KEYS[2], unpack(ARGV, first, math.min(first + 499, #ARGV)))
  end
  redis.call("HINCRBY", KEYS[1], "renewals", 1)
  lives()
elseif ARGV[4] == "unseen" then
  redis.call("DEL", KEYS[1], KEYS[2])
else
  redis.call("DEL", KEYS[3], credit)
  if ARGV[4] == "gone" then
    redis.call("DEL", KEYS[1], KEYS[2])
  else
    redis.call("HSET", KEYS[1], "state", ARGV[4])
    if ARGV[4] == "too_long" then redis.call("DEL", KEYS[2]) end
    lives()
  end
end
return {"running", fingerprint, owner}
