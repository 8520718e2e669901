-- HAProxy looks at the length that a client announces. A body that comes without one is counted here, piece by piece,
-- and its request ends when it is longer than it may be.

local BodyLimit = {id = "body_limit", flags = filter.FLT_CFG_FL_HTX}
BodyLimit.__index = BodyLimit

function BodyLimit:new()
  return setmetatable({limit = self.limit, passed = 0}, BodyLimit)
end

function BodyLimit:http_headers(txn, message)
  -- Answers, and bodies whose length is known, are not looked at again. The headers themselves cannot be read here when
  -- the body has arrived already.
  if not message.channel:is_resp() and txn:get_var("txn.unknown_length") then
    filter.register_data_filter(self, message.channel)
  end
  return filter.CONTINUE
end

function BodyLimit:http_payload(txn, message)
  self.passed = self.passed + message:input()
  -- HAProxy counts the end of a body as one byte.
  if self.passed > self.limit + 1 then
    txn:set_var("txn.invalid", string.format("The request body is larger than %d bytes.", self.limit))
    txn:set_var("txn.invalid_code", "request_too_large")
    -- HAProxy takes filter.ERROR for a number of bytes here. Only this ends a request, and its message is logged.
    error("a body without a length was larger than edge_max_body_bytes", 0)
  end
end

core.register_filter("body_limit", BodyLimit, function(class, arguments)
  class.limit = tonumber(arguments[1])
  return class
end)
