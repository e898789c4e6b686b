-- The same request again and again: wrk sends what the command line says; the last line of output is for the program.
done = function(summary, latency, requests)
  local errors = summary.errors
  print(string.format(
    '{"requests": %d, "bytes": %d, "secs": %.6f, "errors": %d}',
    summary.requests, summary.bytes, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout
  ))
end
