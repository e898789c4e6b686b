-- Uploads of 10 MiB.
wrk.method = "POST"
wrk.body = string.rep("0123456789abcdef", 655360)

done = function(summary, latency, requests)
  local errors = summary.errors
  print(string.format(
    '{"requests": %d, "bytes": %d, "secs": %.6f, "errors": %d}',
    summary.requests, summary.bytes, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout
  ))
end
