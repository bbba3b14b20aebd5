-- What wrk asks, and what it prints in the end: one line of JSON. Nothing is done per answer, unlike in
-- tests/cluster/load.lua: the generator shares the machine's cores with what it measures.

function init(arguments)
  local file = assert(io.open(arguments[1]))
  wrk.method, wrk.body = "POST", file:read("*a")
  wrk.headers["Content-Type"] = "application/json"
  file:close()
end

function done(summary, latency)
  local errors = summary.errors
  io.write(('{"requests": %d, "seconds": %.4f, "p50": %.3f, "p99": %.3f, "failed": %d}\n'):format(
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1000, latency:percentile(99) / 1000,
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
