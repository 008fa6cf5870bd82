-- Limits of all scopes of an organization, and its ledger, atomically: what the docstring of limiter.py promises, on
-- Redis' own clock. A call carries many operations (all that a gateway's requests wanted while the last call was on its
-- way); each is carried out at all its scopes or at none.
--
-- KEYS  1 "serin:{organization}:", the beginning of every name used here: one hash tag, so one slot
-- ARGV  1 operations, a JSON list   2 gateway (one life of one)   3 days that lines are kept   4 days that sums are kept
--
-- An operation: v "reserve" | "grow" | "renew" | "settle" | "reap", l lease, t and n tokens and nano-units still to be
-- reserved (g counts how often that changed), least {t, n, share} where these are loose bounds: what is needed at least, and the
-- part of what is left that bounds may hold (4: a quarter), ut and un used so far, kt and kn of these known to be counted (for a lease that is not known here any more),
-- s scopes {kind, name, requests/min, tokens/min, at once, tokens/day, nano-units/month; 0: no limit}, a what a reaper
-- needs to know, q number of a settlement, b lines {sum's name, prompt, cached, completion, nano-units, line as JSON; of
-- an answer that may be made anew elsewhere: the line if it is not billed, a line that takes it back}.
--
-- limit:<kind>:<name>  hash: R, T requests and tokens in the window; r<bucket>, t<bucket> the same by bucket of 1 s;
--                      L oldest and C latest bucket, lr and lt the latest with requests and tokens; O, M tokens and
--                      nano-units reserved; N leases
-- limit-leases         hash: lease -> {t, n, g, ut, un, h (scopes that count it), a, z (it lapsed)}
-- limit-expiry, limit-lapsed, limit-settled   sorted sets: lease -> millisecond it ends; lapsed or was claimed; was reaped
-- limit-applied:<gateway>   number of its last settlement
-- limit-superseded     sorted set: lease -> millisecond at which its answer was begun anew (answers.lua): it costs nothing
-- limit-credit:<lease> there while its answer may still be superseded: what was billed for it, empty until something was
-- limit-credits-due    set: leases that were superseded, and may have been billed before
-- spent:<month>        hash: <kind>:<name>:m nano-units of the month, <kind>:<name>:<day> tokens of the day
-- ledger:<date>        stream of lines; usage:<date>: hash of their sums

local BUCKET_MS, NUM_BUCKETS, LEASE_MS, DAY_MS = 1000, 61, 30000, 86400000
local TOMBSTONE_MS, CLAIM_MS, AT_ONCE = 86400000, 30000, 100
local P, gateway = KEYS[1], ARGV[2]
local LINES_S, SUMS_S = tonumber(ARGV[3]) * 86400, tonumber(ARGV[4]) * 86400

local time = redis.call("TIME")
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local current = math.floor(now / BUCKET_MS)

local function whole(number) return string.format("%.0f", number) end

-- Days since 1970 to a date and back (proleptic Gregorian calendar, UTC).
local function civil(days)
  local z = days + 719468
  local era = math.floor(z / 146097)
  local doe = z - era * 146097
  local yoe = math.floor((doe - math.floor(doe / 1460) + math.floor(doe / 36524) - math.floor(doe / 146096)) / 365)
  local doy = doe - (365 * yoe + math.floor(yoe / 4) - math.floor(yoe / 100))
  local mp = math.floor((5 * doy + 2) / 153)
  local month = mp < 10 and mp + 3 or mp - 9
  return yoe + era * 400 + (month <= 2 and 1 or 0), month, doy - math.floor((153 * mp + 2) / 5) + 1
end
local today = math.floor(now / DAY_MS)
local year, month, day = civil(today)
local date = string.format("%04d-%02d-%02d", year, month, day)
local spent_key = P .. string.format("spent:%04d-%02d", year, month)
local day_ends = (today + 1) * DAY_MS - now
local function month_ends()
  local days = today
  repeat days = days + 1 until select(3, civil(days)) == 1
  return days * DAY_MS - now
end

local LEASES, EXPIRY, LAPSED, SETTLED = P .. "limit-leases", P .. "limit-expiry", P .. "limit-lapsed", P .. "limit-settled"

local SUPERSEDED, CREDIT, CREDITS_DUE = P .. "limit-superseded", P .. "limit-credit:", P .. "limit-credits-due"

local function load_lease(id)
  local packed = redis.call("HGET", LEASES, id)
  return packed and cmsgpack.unpack(packed) or nil
end
local function save_lease(id, lease) redis.call("HSET", LEASES, id, cmsgpack.pack(lease)) end
local function forget_lease(id)
  redis.call("HDEL", LEASES, id)
  redis.call("ZREM", EXPIRY, id)
  redis.call("ZREM", LAPSED, id)
end

-- What one scope holds, brought up to date: buckets that have left the window are taken off its sums.
local function open_scope(kind, name)
  local key = P .. "limit:" .. kind .. ":" .. name
  local got = redis.call("HMGET", key, "R", "T", "L", "C", "lr", "lt", "O", "M", "N")
  local at = {key = key, kind = kind, name = name}
  at.R, at.T, at.L, at.C = tonumber(got[1] or 0), tonumber(got[2] or 0), tonumber(got[3] or current), tonumber(got[4] or 0)
  at.lr, at.lt = tonumber(got[5] or 0), tonumber(got[6] or 0)
  at.O, at.M, at.N = tonumber(got[7] or 0), tonumber(got[8] or 0), tonumber(got[9] or 0)
  local oldest = current - NUM_BUCKETS
  if at.C > current then -- the clock went back: what is in the future counts as now
    local fields, sums = redis.call("HGETALL", key), {r = 0, t = 0}
    for i = 1, #fields, 2 do
      local what, bucket = fields[i]:match("^([rt])(%d+)$")
      if what and tonumber(bucket) > oldest then
        sums[what] = sums[what] + tonumber(fields[i + 1])
        if tonumber(bucket) > current then
          redis.call("HDEL", key, fields[i])
          redis.call("HINCRBY", key, what .. whole(current), fields[i + 1])
        end
      elseif what then
        redis.call("HDEL", key, fields[i])
      end
    end
    at.R, at.T, at.L, at.C = sums.r, sums.t, oldest + 1, current
    at.lr, at.lt = math.min(at.lr, current), math.min(at.lt, current)
  elseif at.L <= oldest then
    if at.C <= oldest then
      if at.R > 0 or at.T > 0 then
        redis.call("DEL", key)
        redis.call("HSET", key, "O", whole(at.O), "M", whole(at.M), "N", whole(at.N))
      end
      at.R, at.T = 0, 0
    else
      for bucket = at.L, oldest do
        local r, t = "r" .. whole(bucket), "t" .. whole(bucket)
        local old = redis.call("HMGET", key, r, t)
        if old[1] then at.R = at.R - tonumber(old[1]) end
        if old[2] then at.T = at.T - tonumber(old[2]) end
        if old[1] or old[2] then redis.call("HDEL", key, r, t) end
      end
    end
    at.L = oldest + 1
  end
  return at
end

local function close_scope(at)
  redis.call("HSET", at.key, "R", whole(math.max(0, at.R)), "T", whole(math.max(0, at.T)), "L", whole(at.L),
    "C", whole(at.C), "lr", whole(at.lr), "lt", whole(at.lt), "O", whole(math.max(0, at.O)),
    "M", whole(math.max(0, at.M)), "N", whole(math.max(0, at.N)))
  redis.call("PEXPIRE", at.key, NUM_BUCKETS * BUCKET_MS)
end

local function count(at, what, amount)
  if amount == 0 then return end
  redis.call("HINCRBY", at.key, what .. whole(current), whole(amount))
  at.C = current
  if what == "r" then at.R, at.lr = at.R + amount, current else at.T, at.lt = at.T + amount, current end
end

-- Milliseconds until enough of a window has left it for `amount` to be free; the whole window at most.
local function wait_for(at, what, amount)
  local freed = 0
  for bucket = at.L, current do
    freed = freed + tonumber(redis.call("HGET", at.key, what .. whole(bucket)) or 0)
    if freed >= amount then return (bucket + NUM_BUCKETS) * BUCKET_MS - now end
  end
  return NUM_BUCKETS * BUCKET_MS
end

-- Milliseconds until nothing is left in a window: its latest bucket has left it. What is held counts as if used now.
local function reset(bucket, held)
  if held > 0 then bucket = current end
  return bucket == 0 and 0 or math.max(0, (bucket + NUM_BUCKETS) * BUCKET_MS - now)
end

local function spent(scope, field) return tonumber(redis.call("HGET", spent_key, scope[1] .. ":" .. scope[2] .. ":" .. field) or 0) end
local function is_limited(scope) return scope[3] + scope[4] + scope[5] + scope[6] + scope[7] > 0 end

-- Which limit of a scope does not allow what is asked, its value, and in how many milliseconds it may, if `factor` times
-- what is reserved has to fit.
local function refusal(at, scope, op, mine, is_new, factor)
  if is_new and scope[3] > 0 and at.R + 1 > scope[3] then
    return "requests", scope[3], wait_for(at, "r", at.R + 1 - scope[3])
  end
  local tokens, nano = factor * (op.t + at.O - (mine and mine.t or 0)), factor * (op.n + at.M - (mine and mine.n or 0))
  if scope[4] > 0 and at.T + tokens > scope[4] then
    return "tokens", scope[4], wait_for(at, "t", at.T + tokens - scope[4])
  end
  if scope[6] > 0 then
    local used = spent(scope, day)
    if used + tokens > scope[6] then return "tokens_per_day", scope[6], used + op.t > scope[6] and day_ends or 1000 end
  end
  if scope[7] > 0 then
    local used = spent(scope, "m")
    if used + nano > scope[7] then return "money_per_month", scope[7], used + op.n > scope[7] and month_ends() or 1000 end
  end
  if is_new and scope[5] > 0 and at.N + 1 > scope[5] then return "concurrency", scope[5], 1000 end
  return nil
end

-- Where the tightest limits stand: of requests (a minute), and of tokens (a minute or a day).
local function standing(answer, at, scope)
  local function tightest(offset, limit, left, reset_ms)
    left = math.max(0, left)
    if answer[offset] == 0 or left < answer[offset + 1] then
      answer[offset], answer[offset + 1], answer[offset + 2], answer[offset + 3] = limit, left, reset_ms, scope[1]
    end
  end
  if scope[3] > 0 then tightest(5, scope[3], scope[3] - at.R, reset(at.lr, 0)) end
  if scope[4] > 0 then tightest(9, scope[4], scope[4] - at.T - at.O, reset(at.lt, at.O)) end
  if scope[6] > 0 then
    local taken = spent(scope, day) + at.O
    tightest(9, scope[6], scope[6] - taken, taken > 0 and day_ends or 0)
  end
end

-- Usage since the last post: into the windows of the scopes that count the lease, and into days and months of all.
local function post(op, mine, scopes)
  local tokens = op.ut - (mine and mine.ut or op.kt or 0)
  local nano = op.un - (mine and mine.un or op.kn or 0)
  for _, scope in ipairs(op.s) do
    local name = scope[1] .. ":" .. scope[2] .. ":"
    if tokens ~= 0 then redis.call("HINCRBY", spent_key, name .. day, whole(tokens)) end
    if nano ~= 0 then redis.call("HINCRBY", spent_key, name .. "m", whole(nano)) end
  end
  if tokens ~= 0 or nano ~= 0 then redis.call("EXPIRE", spent_key, 5356800) end
  for i, scope in ipairs(op.s) do
    if scopes[i] and scope[4] > 0 then count(scopes[i], "t", tokens) end
  end
  return tokens, nano
end

local function release(lease)
  for _, held in ipairs(lease.h) do
    local at = open_scope(held[1], held[2])
    at.O, at.M, at.N = at.O - lease.t, at.M - lease.n, at.N - 1
    close_scope(at)
  end
end

-- Leases that were not renewed in time end: what they had not used is free again, who settles them is left open.
local function lapse()
  for _, id in ipairs(redis.call("ZRANGEBYSCORE", EXPIRY, "-inf", now, "LIMIT", 0, AT_ONCE)) do
    redis.call("ZREM", EXPIRY, id)
    local lease = load_lease(id)
    if lease then
      release(lease)
      if lease.a == "" then
        redis.call("HDEL", LEASES, id)
      else
        lease.t, lease.n, lease.h, lease.z = 0, 0, {}, true
        save_lease(id, lease)
        redis.call("ZADD", LAPSED, now, id)
      end
    end
  end
  for _, ahead in ipairs(redis.call("ZRANGEBYSCORE", EXPIRY, now + LEASE_MS + 5000, "+inf", "LIMIT", 0, AT_ONCE)) do
    redis.call("ZADD", EXPIRY, now + LEASE_MS, ahead)
  end
end

local function write(lines)
  for _, line in ipairs(lines or {}) do
    local stream, sums = P .. "ledger:" .. date, P .. "usage:" .. date
    redis.call("XADD", stream, "*", "line", line[6])
    redis.call("EXPIRE", stream, LINES_S)
    redis.call("HINCRBY", sums, line[1] .. "\31lines", 1)
    for i, what in ipairs({"prompt", "cached", "completion", "nano"}) do
      if line[i + 1] ~= 0 then redis.call("HINCRBY", sums, line[1] .. "\31" .. what, whole(line[i + 1])) end
    end
    redis.call("EXPIRE", sums, SUMS_S)
  end
end

-- Take off days and months what counts no more; of an earlier day or month nothing is left to take it off.
local function refund(scopes, tokens, nano)
  for _, scope in ipairs(scopes) do
    for what, amount in pairs({[day] = tokens, m = nano}) do
      local field = scope[1] .. ":" .. scope[2] .. ":" .. what
      local less = math.min(amount, tonumber(redis.call("HGET", spent_key, field) or 0))
      if less > 0 then redis.call("HINCRBY", spent_key, field, whole(-less)) end
    end
  end
end

-- The end of a lease's account: its lines are written and count. Those of an answer that was begun anew meanwhile, as
-- its gateway was taken for dead, cost nothing; what is billed now is remembered while that may still happen.
local function bill(op, mine, scopes)
  local lines, credits = op.b or {}, {}
  if redis.call("ZSCORE", SUPERSEDED, op.l) then
    refund(op.s, mine and mine.ut or op.kt or 0, mine and mine.un or op.kn or 0)
    for _, line in ipairs(lines) do
      if line[7] then line[5], line[6] = 0, line[7] end
    end
  else
    post(op, mine, scopes)
    for _, line in ipairs(lines) do
      if line[8] then credits[#credits + 1] = {line[1], 0, 0, 0, -line[5], line[8]} end
    end
    if #credits > 0 then
      local known = cmsgpack.pack({s = op.s, t = op.ut, n = op.un, b = credits})
      redis.call("SET", CREDIT .. op.l, known, "XX", "PX", TOMBSTONE_MS + 3600000)
    end
  end
  write(lines)
end

-- What was billed before it was superseded is taken back.
local function pay_credits()
  for _, id in ipairs(redis.call("SPOP", CREDITS_DUE, AT_ONCE)) do
    local known = redis.call("GET", CREDIT .. id)
    if known and known ~= "" then
      local credit = cmsgpack.unpack(known)
      refund(credit.s, credit.t, credit.n)
      write(credit.b)
    end
    redis.call("DEL", CREDIT .. id)
  end
  redis.call("ZREMRANGEBYSCORE", SUPERSEDED, "-inf", now - TOMBSTONE_MS)
end

local function open_all(op)
  local scopes = {}
  for i, scope in ipairs(op.s) do
    if is_limited(scope) then scopes[i] = open_scope(scope[1], scope[2]) else scopes[i] = false end
  end
  return scopes
end

local function keep(op, mine, scopes)
  local held = {}
  for i, scope in ipairs(op.s) do
    local at = scopes[i]
    if at then
      if mine and not mine.z then at.O, at.M = at.O - mine.t, at.M - mine.n else at.N = at.N + 1 end
      at.O, at.M = at.O + op.t, at.M + op.n
      close_scope(at)
      held[#held + 1] = {scope[1], scope[2]}
    end
  end
  save_lease(op.l, {t = op.t, n = op.n, g = op.g, ut = op.ut, un = op.un, h = held, a = op.a, z = false})
  redis.call("ZADD", EXPIRY, now + LEASE_MS, op.l)
  redis.call("ZREM", LAPSED, op.l)
end

-- A call that a later one has overtaken does not take back what that one has reserved.
local function not_overtaken(op, mine, tokens, nano)
  if mine and not mine.z and op.g < (mine.g or 0) then
    op.t = math.max(op.t, mine.t - math.max(0, tokens))
    op.n = math.max(op.n, mine.n - math.max(0, nano))
    op.g = mine.g
  end
end

-- Which limit of all scopes refuses longest: its name, the scope's kind, its value, milliseconds.
local function refusal_of_all(op, mine, scopes, is_new, factor)
  local found
  for i, scope in ipairs(op.s) do
    if scopes[i] then
      local limit, value, wait_ms = refusal(scopes[i], scope, op, mine and not mine.z and mine or nil, is_new, factor)
      if limit and (not found or wait_ms > found[4]) then found = {limit, scope[1], value, wait_ms} end
    end
  end
  return found
end

local verbs = {}

function verbs.admit(op, is_new)
  local mine, scopes = load_lease(op.l), open_all(op)
  local answer = {"", "", 0, 0, 0, 0, 0, "", 0, 0, 0, "", 0}
  local refused = refusal_of_all(op, mine, scopes, is_new, op.least and op.least[3] or 1)
  if refused and op.least then -- nothing is reserved before its tokens are counted, if at least these would fit
    op.t, op.n, answer[13] = op.least[1], op.least[2], 1
    refused = refusal_of_all(op, mine, scopes, is_new, 1)
    op.t, op.n = 0, 0
  end
  if not refused then
    for i, scope in ipairs(op.s) do
      if scopes[i] and is_new and scope[3] > 0 then count(scopes[i], "r", 1) end
    end
    if not is_new then not_overtaken(op, mine, post(op, mine, scopes)) end
    keep(op, mine, scopes)
  else
    for i = 1, 4 do answer[i] = refused[i] end
    for _, at in ipairs(scopes) do if at then close_scope(at) end end
  end
  for i, scope in ipairs(op.s) do
    if scopes[i] then standing(answer, scopes[i], scope) end
  end
  return answer
end

function verbs.reserve(op) return verbs.admit(op, true) end
function verbs.grow(op) return verbs.admit(op, false) end

function verbs.renew(op)
  if redis.call("ZSCORE", SETTLED, op.l) then return {"settled"} end
  local mine, scopes = load_lease(op.l), open_all(op)
  not_overtaken(op, mine, post(op, mine, scopes))
  keep(op, mine, scopes)
  return {"kept"}
end

function verbs.settle(op)
  local applied = P .. "limit-applied:" .. gateway
  if op.q <= tonumber(redis.call("GET", applied) or 0) then return {"known"} end
  redis.call("SET", applied, whole(op.q), "EX", 86400)
  if redis.call("ZSCORE", SETTLED, op.l) then return {"settled"} end
  local mine, scopes = load_lease(op.l), open_all(op)
  bill(op, mine, scopes)
  for _, at in ipairs(scopes) do if at then close_scope(at) end end
  if mine then release(mine) end
  forget_lease(op.l)
  return {"written"}
end

-- The account of a lease whose gateway is gone, by whoever found out: once, whatever the gateway says if it comes back.
function verbs.reap(op)
  local mine = load_lease(op.l)
  if not (mine and mine.z) then return {"settled"} end
  bill(op, mine, {})
  forget_lease(op.l)
  redis.call("ZADD", SETTLED, now, op.l)
  redis.call("ZREMRANGEBYSCORE", SETTLED, "-inf", now - TOMBSTONE_MS)
  return {"written"}
end

-- Lapsed leases that nobody looks into now; they are the caller's for a while.
function verbs.claim(op)
  pay_credits()
  local found = {}
  for _, id in ipairs(redis.call("ZRANGEBYSCORE", LAPSED, "-inf", now, "LIMIT", 0, AT_ONCE)) do
    local lease = load_lease(id)
    if lease then
      redis.call("ZADD", LAPSED, now + CLAIM_MS, id)
      found[#found + 1] = {id, lease.a, lease.ut, lease.un}
    else
      redis.call("ZREM", LAPSED, id)
    end
  end
  return found
end

lapse()
local answers = {}
for i, op in ipairs(cjson.decode(ARGV[1])) do answers[i] = verbs[op.v](op) end
return answers
