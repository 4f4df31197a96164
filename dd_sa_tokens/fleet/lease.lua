-- One report and one lease, in one step. All times are milliseconds on Redis' own clock, so clients' clocks do not
-- matter. The rules are those of one client's window (_ratelimit): the clients of a fleet are one client here.
--
-- KEYS[1]  the record of the limit
-- KEYS[2]  the record of the operation: the same key while the limit has no name, then it points to the limit's record
-- ARGV     record, window, finished, returned, needed, wanted, reserve,
--          probe ("answered", "failed" or ""), pause,
--          then, if the client has seen the current window: limit, period, remaining, ends_in, uncertainty
--
-- Fields   window     its number                       leased      permits that clients were given in this window
--          limit, period                               recent, older, aged_at  those whose requests have not ended,
--                                                                  by age: see KEEP_UNFINISHED
--          ends_at    when it ends                     strangers   what others have spent, at least
--          uncertain  of the end                       before      what of that is older than this window or record
--          remaining  the lowest that an answer gave
--          confirmed  1: an answer has come            factor, factor_1, factor_2  contention; of the two windows before
--          probing    1: a probe is in flight          clients, clients_before  that asked; in the window before
--          others_wait_until  for the probe            paused_until
--          record     where an operation's limit is
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local PROBE_TIMEOUT = 1000
local SETTLING = 500 -- until then, requests of the window before have ended
local NOISE = 50 -- of a report's way to Redis
local KEEP_UNFINISHED = 1000 -- after this, or twice this, a request has reached the server, or its client is gone
local KEEP_UNKNOWN = 60000 -- a record whose period is not known
local LEAST_CONTENDED, MOST_CONTENDED = 0.04, 8
local FIELDS = {
  'window', 'limit', 'period', 'ends_at', 'uncertain', 'confirmed', 'probing', 'others_wait_until',
  'leased', 'recent', 'older', 'aged_at', 'strangers', 'before', 'remaining', 'factor_1', 'factor_2', 'clients',
  'clients_before', 'paused_until',
}

local function read(key)
  local raw, record = redis.call('HGETALL', key), {}
  for i = 1, #raw, 2 do record[raw[i]] = tonumber(raw[i + 1]) or raw[i + 1] end
  return record, #raw > 0
end

local record, exists = read(KEYS[1])
if record.record then return {record.record} end
if KEYS[1] ~= KEYS[2] then
  local operation, known = read(KEYS[2])
  if known and not exists and not operation.record then record = operation end
  if operation.record ~= ARGV[1] then
    redis.call('DEL', KEYS[2])
    redis.call('HSET', KEYS[2], 'record', ARGV[1])
  end
end
for _, field in ipairs(FIELDS) do record[field] = record[field] or 0 end
if record.window == 0 then record.window = now end -- never a number that a lost record has had

local window, finished, returned = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local needed, wanted, reserve = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local probe, pause = ARGV[8], tonumber(ARGV[9])

-- Contention: how many times faster than by us the limit is spent; 1 if by us alone.
local function current_factor()
  local others = record.strangers - record.before
  if others < math.max(1, LEAST_CONTENDED * record.leased) then return 1 end
  return math.min(math.max(1 + others / math.max(record.leased, 1), 2), MOST_CONTENDED)
end

-- Requests that may be on their way, so that `remaining` does not show them yet.
if now - record.aged_at >= KEEP_UNFINISHED then
  record.older = (now - record.aged_at < 2 * KEEP_UNFINISHED) and record.recent or 0
  record.recent, record.aged_at = 0, now
end

local function unfinished()
  return record.recent + record.older
end

local function finish(count)
  local of_older = math.min(count, record.older)
  record.older = record.older - of_older
  record.recent = math.max(record.recent - (count - of_older), 0)
end

local function begin_window(windows, ends_at)
  local factor = current_factor()
  if windows > 2 then
    record.factor_1, record.factor_2 = 0, 0
  elseif factor > 1 or record.leased >= record.limit / 4 then
    record.factor_1, record.factor_2 = factor, record.factor_1
  end
  record.window, record.ends_at = record.window + windows, ends_at
  record.uncertain = record.uncertain + windows -- milliseconds: clocks drift
  record.clients_before, record.clients = (windows == 1) and record.clients or 0, 0
  -- What was in flight at the end may be counted in the new window, and is no stranger's. In a window that was spent,
  -- nothing is in flight: its requests have ended, though that was not reported yet.
  local is_spent = record.leased + record.strangers >= record.limit
  record.before = (windows == 1 and not is_spent) and unfinished() or 0
  record.leased, record.recent, record.older, record.strangers = 0, 0, 0, 0
  record.remaining, record.confirmed, record.probing, record.others_wait_until = record.limit, 0, 0, 0
end

if record.ends_at > 0 and now >= record.ends_at then
  local windows = 1 + math.floor((now - record.ends_at) / record.period)
  begin_window(windows, record.ends_at + windows * record.period)
end

-- What the client reports of its permits. Those of another window do not count any more.
local is_known = window == record.window
if is_known then
  record.leased = math.max(record.leased - returned, 0)
  finish(returned + finished)
elseif wanted > 0 then
  record.clients = record.clients + 1
end
local was_confirmed = record.confirmed == 1
local own_probe = is_known and probe ~= ''
if own_probe then
  record.probing = 0
  if probe == 'answered' then record.confirmed = 1 end
end
if pause > 0 then record.paused_until = math.max(record.paused_until, now + pause) end

-- What the headers say.
local function observe(limit, remaining, ends_at, uncertain)
  local contradicts = math.abs(ends_at - record.ends_at) > uncertain + record.uncertain + NOISE
  local is_earlier = uncertain == record.uncertain and ends_at < record.ends_at -- it took less time to come here
  if uncertain < record.uncertain or contradicts or is_earlier then
    record.ends_at, record.uncertain = ends_at, uncertain
  end
  record.limit = limit
  record.remaining = math.min(record.remaining, remaining)
  local strangers = limit - remaining - record.leased
  record.strangers = math.max(record.strangers, strangers)
  record.confirmed = 1
end

if #ARGV > 9 then
  local limit, period, remaining = tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
  local ends_at, uncertain = now + tonumber(ARGV[13]), tonumber(ARGV[14])
  local later = (record.ends_at == 0) and 0 or math.floor((ends_at - record.ends_at) / period + 0.5)
  if record.ends_at == 0 then
    record.ends_at, record.uncertain, record.period, record.remaining = ends_at, uncertain, period, limit
    record.before = math.max(limit - remaining - record.leased, 0)
  end
  record.period = period
  if later > 0 then
    begin_window(later, ends_at)
    was_confirmed = false
  end
  if later >= 0 then
    observe(limit, remaining, ends_at, uncertain)
  elseif own_probe and not was_confirmed then -- the probe came too early: the window before is still there
    record.ends_at, record.uncertain = ends_at, uncertain
    record.strangers = math.max(limit - record.leased, 0)
    record.before = record.strangers
  end
end

-- What is left, and how much of it this client gets.
local granted, left, is_probe, is_probing, is_far, is_tight = 0, -1, 0, 0, 0, 0
if record.limit > 0 then
  left = math.max(record.limit - record.leased - record.strangers, 0)
end
local reserved = math.min(math.floor(record.limit * reserve), math.max(record.limit - 1, 0))
local is_paused = now < record.paused_until
if is_paused then
  granted = 0
elseif record.confirmed == 0 and (record.others_wait_until == 0 or now < record.others_wait_until) then
  if record.probing == 0 and needed > 0 and (left < 0 or left > reserved) then
    granted, is_probe, record.probing = 1, 1, 1
    if record.others_wait_until == 0 then record.others_wait_until = now + PROBE_TIMEOUT end
  else
    is_probing = 1
  end
elseif left >= 0 then
  local free = left - reserved
  if now < record.ends_at - record.period + SETTLING then
    -- What was in flight when the window began may count in it, and is not in `remaining` yet.
    free = free - math.max(record.before - record.strangers, 0)
    if free <= 0 then is_probing = 1 end
  end
  local factor = math.max(current_factor(), record.factor_1 > 1 and record.factor_1 or record.factor_2)
  if factor > 1 then
    -- What is left was counted half a round trip ago: the others have used some of it since.
    local room = math.floor((record.remaining - reserved) / (2 * factor)) - unfinished()
    if room < math.min(free, wanted) then free, is_tight = room, 1 end
    if room + unfinished() <= 0 then left = 0 end -- the last few are the others'
  end
  local clients = math.max(record.clients, record.clients_before, 1)
  if record.factor_1 == 0 and now < record.others_wait_until and free < 8 * clients * wanted then
    -- A first window begins slowly: others may spend it, too.
    local room = math.max(2 * (record.leased - unfinished()), 3) - unfinished()
    if room < math.min(free, wanted) then free, is_tight = room, 1 end
  end
  if free > 0 then
    local ahead = math.floor(free / (8 * clients))
    local fair = (clients == 1) and free or math.max(math.floor(free / (2 * clients)), 1)
    granted = math.min(math.max(needed, math.min(wanted, ahead)), fair, wanted)
    if ahead >= wanted and is_tight == 0 then is_far = 1 end
  end
end
if left >= 0 then left = left - granted end
record.leased = record.leased + granted
record.recent = record.recent + granted

local values = {}
for _, field in ipairs(FIELDS) do
  values[#values + 1] = field
  values[#values + 1] = string.format('%.14g', record[field])
end
redis.call('HSET', KEYS[1], unpack(values))
local keep = (record.period > 0) and 2 * record.period or KEEP_UNKNOWN
redis.call('PEXPIRE', KEYS[1], string.format('%.0f', keep))
if KEYS[1] ~= KEYS[2] then redis.call('PEXPIRE', KEYS[2], string.format('%.0f', keep)) end

local ends_in = (record.ends_at > 0) and record.ends_at - now or 0
return {
  ARGV[1], record.window, granted, left, ends_in, record.limit, record.period, is_probe, is_probing,
  is_paused and record.paused_until - now or 0, is_far, is_tight, math.max(record.clients, record.clients_before),
}
