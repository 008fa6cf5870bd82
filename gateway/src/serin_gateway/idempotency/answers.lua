-- The answer of one name, atomically: what the docstring of store.py promises.
--
-- KEYS  1 claim: hash, fingerprint, owner, state       2 frames: list
-- ARGV  1 "claim" | "renew" | "finish"   2 owner   3 milliseconds that it lives on
--       claim: 4 fingerprint    renew: 4 frames that are kept already, 5.. further ones    finish: 4 state
-- Returns {state, fingerprint}.

local op, owner, lives_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])
local held = redis.call("HMGET", KEYS[1], "state", "fingerprint", "owner")
local state, fingerprint = held[1] or "gone", held[2] or ""

local function lives()
  redis.call("PEXPIRE", KEYS[1], lives_ms)
  redis.call("PEXPIRE", KEYS[2], lives_ms)
end

if op == "claim" then
  if state ~= "gone" then return {state, fingerprint} end
  redis.call("DEL", KEYS[2])
  redis.call("HSET", KEYS[1], "state", "running", "fingerprint", ARGV[4], "owner", owner)
  lives()
  return {"mine", ARGV[4]}
end

if held[3] ~= owner or state ~= "running" then return {state == "running" and "lost" or state, fingerprint} end

if op == "renew" then
  local at = tonumber(ARGV[4])
  if at == 0 then redis.call("DEL", KEYS[2]) else redis.call("LTRIM", KEYS[2], 0, at - 1) end
  for first = 5, #ARGV, 500 do
    redis.call("RPUSH", KEYS[2], unpack(ARGV, first, math.min(first + 499, #ARGV)))
  end
  lives()
elseif ARGV[4] == "gone" then
  redis.call("DEL", KEYS[1], KEYS[2])
else
  redis.call("HSET", KEYS[1], "state", ARGV[4])
  if ARGV[4] == "too_long" then redis.call("DEL", KEYS[2]) end
  lives()
end
return {"running", fingerprint}
