-- What wrk asks and what it notes: load.py starts it, with one connection per thread, so that each thread knows exactly
-- which request was sent and never answered.
--
-- Arguments: file with the request's body, milliseconds between an answer and the next request, more headers.
-- Output: "progress <thread> <answers>", "failure <JSON>" and, at the end, "report <JSON>", one per line.

local ffi = require("ffi")
ffi.cdef [[
  struct timespec { long seconds; long nanoseconds; };
  int clock_gettime(int clock, struct timespec *time);
]]

local REALTIME = 0
local PROGRESS_SECONDS = 0.1
local SHOWN_BODY = 200
local HUNG_SECONDS = 10

local clock = ffi.new("struct timespec")
local function now()
  ffi.C.clock_gettime(REALTIME, clock)
  return tonumber(clock.seconds) + tonumber(clock.nanoseconds) / 1e9
end

local function quoted(text)
  local escaped = text:sub(1, SHOWN_BODY):gsub('[%c"\\\128-\255]', function(character)
    return ("\\u%04x"):format(character:byte())
  end)
  return '"' .. escaped .. '"'
end

local function say(line)
  -- In one piece: each piece takes the stream's lock, and another thread could write between two.
  io.stdout:write(line .. "\n")
  io.stdout:flush()
end

local function fail(what, text, sent_at, at)
  say(('failure {"what": %s, "text": %s, "sent": %.3f, "at": %.3f}'):format(quoted(what), quoted(text), sent_at, at))
end

-- in the main state

local threads = {}

function setup(thread)
  threads[#threads + 1] = thread
  thread:set("number", #threads)
end

function done(summary, latency)
  local asked, answered, at = 0, 0, now()
  local versions = {}
  for _, thread in ipairs(threads) do
    asked, answered = asked + thread:get("asked"), answered + thread:get("answered")
    if thread:get("waiting") and at - thread:get("sent_at") > HUNG_SECONDS then
      fail("no answer", "", thread:get("sent_at"), at)
    end
    for version in thread:get("seen"):gmatch("%S+") do
      versions[version] = (versions[version] or 0) + thread:get("version " .. version)
    end
  end
  local counts = {}
  for version, count in pairs(versions) do
    counts[#counts + 1] = ("%s: %d"):format(quoted(version), count)
  end
  local errors = summary.errors
  say(('report {"asked": %d, "answered": %d, "versions": {%s}, "p50": %.2f, "p99": %.2f, "longest": %.2f, '
    .. '"seconds": %.2f, "socket_errors": %d}'):format(
    asked, answered, table.concat(counts, ", "),
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, latency.max / 1000,
    summary.duration / 1e6, errors.connect + errors.read + errors.write + errors.timeout))
end

-- in each thread; globals, because `done` reads them

asked, answered, waiting, sent_at, seen = 0, 0, false, 0, ""
local text, pause, shown_at, checked = "", 0, 0, false

function init(arguments)
  local file = assert(io.open(arguments[1]))
  local headers = { ["Content-Type"] = "application/json" }
  for index = 3, #arguments do
    local name, value = arguments[index]:match("^([^:]+): (.*)$")
    headers[name] = value
  end
  text = wrk.format("POST", nil, headers, file:read("*a"))
  file:close()
  pause = tonumber(arguments[2])
  if pause > 0 then
    delay = function() return pause end
  end
end

function request()
  if number == 1 and not checked then
    -- wrk looks at one request of the first thread before it sends any.
    checked = true
    return text
  end
  if waiting then
    -- wrk opened another connection: the one before was refused, reset or closed without an answer.
    fail("connection lost", "", sent_at, now())
  end
  asked, waiting, sent_at = asked + 1, true, now()
  return text
end

function response(status, _, body)
  local at = now()
  answered, waiting = answered + 1, false
  if status ~= 200 then
    fail(tostring(status), body, sent_at, at)
  end
  local version = body:match('"model_version":"([^"%s]+)"') or "unknown"
  local key = "version " .. version
  if not _G[key] then
    _G[key], seen = 0, seen .. " " .. version
  end
  _G[key] = _G[key] + 1
  if at - shown_at > PROGRESS_SECONDS then
    shown_at = at
    say(("progress %d %d"):format(number, answered))
  end
end
