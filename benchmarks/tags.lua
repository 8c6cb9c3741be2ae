-- For wrk: posts each line of a file, a body in JSON, in turn, and prints as its last line what it counted, as JSON.
--     wrk -t1 -c32 -d20s -s tags.lua URL -- bodies.jsonl

local requests, last = {}, 0

function init(arguments)
   local headers = { ["Content-Type"] = "application/json" }
   for body in io.lines(arguments[1]) do
      requests[#requests + 1] = wrk.format("POST", nil, headers, body)
   end
end

function request()
   last = last % #requests + 1
   return requests[last]
end

function done(summary, latency)
   local errors = summary.errors  -- status: answers of 400 and above
   io.write(string.format(
      '{"requests": %d, "seconds": %.3f, "p50_ms": %.1f, "p99_ms": %.1f, "refused": %d, "connect": %d, "read": %d, ' ..
      '"write": %d, "timeout": %d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, errors.status,
      errors.connect, errors.read, errors.write, errors.timeout))
end
