-- No two requests alike: a fresh traceparent, a changing cookie, four hosts, and answers of 64 lengths by the path.
-- Arguments: the head's fixed lines in a file, then the hosts.
local fixed, hosts, count = "", {}, 0

init = function(args)
  local file = assert(io.open(args[1], "rb"))
  fixed = file:read("*a")
  file:close()
  for i = 2, #args do hosts[#hosts + 1] = args[i] end
  math.randomseed(os.time())
end

request = function()
  count = count + 1
  return string.format(
    "GET /v%d HTTP/1.1\r\nHost: %s\r\n%straceparent: 00-%08x%08x%08x%08x-%08x%08x-01\r\n"
      .. "Cookie: session=6f1d2a9c4b7e; seen=%08x; n=%d\r\n\r\n",
    count * 7 % 64, hosts[count % #hosts + 1], fixed,
    math.random(0, 0x7fffffff), math.random(0, 0x7fffffff), math.random(0, 0x7fffffff), count,
    math.random(0, 0x7fffffff), count, math.random(0, 0x7fffffff), count
  )
end
done = function(summary, latency, requests)
  local errors = summary.errors
  print(string.format(
    '{"requests": %d, "bytes": %d, "secs": %.6f, "errors": %d}',
    summary.requests, summary.bytes, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout
  ))
end
