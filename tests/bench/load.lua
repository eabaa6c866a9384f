-- Plays a file of traffic.py once, as Twilio does: the cookie that a conversation got comes back with its next
-- message. The answer names the number texted, so that it is known whose cookie it carries.
--
--   wrk ... -s load.lua URL -- FILE COOKIE PAUSE_MS
--
-- COOKIE: what is sent while a conversation has none, or "-". PAUSE_MS: how long a connection waits on average before
-- its next message; 0 for not at all.

local head = table.concat({
  "POST /sms HTTP/1.1",
  "Host: sms.example.com",
  "User-Agent: TwilioProxy/1.1",
  "Accept: */*",
  "Content-Type: application/x-www-form-urlencoded; charset=UTF-8",
  "I-Twilio-Idempotency-Token: 4b1c4c2e-8d6a-4a60-8a55-6a5d7d3f8a11",
  "X-Home-Region: us1",
  "",
}, "\r\n")
local threads = {}
local cookies, answers = {}, {}
local source, default_cookie
local asked = false -- wrk asks once for a request that it does not send

-- globals, since `done` can only read those
sent, good, shed, bad, rewound, cookie_bytes, counted, off = 0, 0, 0, 0, 0, 0, 0, 0
first_bad = ""

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  source = assert(io.open(args[1], "r"))
  default_cookie = args[2] ~= "-" and args[2] or nil
  local pause_ms = tonumber(args[3] or 0)
  if pause_ms > 0 then
    math.randomseed(1)
    delay = function() return math.floor(-pause_ms * math.log(1 - math.random()) + 0.5) end
  end
end

function request()
  if not asked then
    asked = true
    return "GET / HTTP/1.1\r\nHost: sms.example.com\r\n\r\n"
  end
  local line = source:read("*l")
  if not line then -- from the start again: fine for servers that remember nothing
    rewound = rewound + 1
    source:seek("set")
    line = source:read("*l")
  end
  local signature, to, form = line:match("^(%S+) (%S+) (.*)$")
  local cookie = cookies[to] or default_cookie
  sent = sent + 1
  return head .. "X-Twilio-Signature: " .. signature .. "\r\n"
    .. (cookie and ("Cookie: " .. cookie .. "\r\n") or "")
    .. "Content-Length: " .. #form .. "\r\n\r\n" .. form
end

function response(status, headers, body)
  if status == 503 then
    shed = shed + 1
    return
  end
  if status ~= 200 or not body:find("</Response>", 1, true) then
    bad = bad + 1
    if first_bad == "" then first_bad = status .. " " .. body:sub(1, 200):gsub("[\"\r\n]", " ") end
    return
  end
  good = good + 1
  local to, count = body:match("has messaged (%S+) (%d+) times")
  if not to then return end
  counted = counted + 1
  local cookie = (headers["Set-Cookie"] or headers["set-cookie"] or ""):match("^[^;]+")
  if cookie then
    cookies[to] = cookie
    cookie_bytes = cookie_bytes + #cookie
  end
  -- n answers with the numbers 1 to n, each once: nothing is off at the end but what is under way
  answers[to] = (answers[to] or 0) + 1
  off = off + count - answers[to]
end

function done(summary, latency, requests)
  local thread = threads[1]
  local function of(name) return thread:get(name) end
  io.write(string.format(
    '{"seconds": %.6f, "answers": %d, "socket_errors": %d, "sent": %d, "good": %d, "shed": %d, "bad": %d, "counted": %d, '
      .. '"rewound": %d, "off": %d, "cookie_bytes": %d, "first_bad": "%s", "p50_ms": %.3f, "p99_ms": %.3f, "p999_ms": %.3f, "most_ms": %.3f}\n',
    summary.duration / 1e6, summary.requests,
    summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    of("sent"), of("good"), of("shed"), of("bad"), of("counted"), of("rewound"), of("off"), of("cookie_bytes"), of("first_bad"),
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, latency:percentile(99.9) / 1000, latency.max / 1000))
end
