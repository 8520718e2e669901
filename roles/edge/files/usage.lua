-- What an answer used: prompt, cached and completion tokens, as the engine says at the end of its answer; the model that
-- it names; and when tokens came. The access log has all of it. The filter looks at answers for which txn.answer is set:
-- "whole" or "stream".
--
-- An answer can hold whatever a client wants it to. In a text each quote has a backslash before it, so a key is never
-- text; and only the answer's own keys count, not those of objects inside it, which may be a client's (its tools).

local find, sub, byte, match = string.find, string.sub, string.byte, string.match

-- Usage is at the end of an answer. In a stream it is in one of the last pieces.
local TAIL = 8192
-- The model is at the beginning, among the first keys.
local HEAD = 2048
-- In front of what the engine's usage report puts into streams.
local REPORT = ": usage "
-- The event of /v1/messages that has the tokens of the prompt. Its last one has those of the answer.
local FIRST_EVENT = '^data: ?{"type": ?"message_start"'
-- Objects around the one that an event is about: those of /v1/responses, and of /v1/messages.
local AROUND = {response = true, message = true}
-- What a name in the log may consist of.
local PLAIN = "^[%w._:/@+-]+$"

local QUOTE, BACKSLASH, OPEN, OPEN_LIST = 34, 92, 123, 91

-- The place of the quote that ends a string, from a place within it; nil if the text ends before.
local function end_of_string(text, place)
  local at = find(text, '["\\]', place)
  while at and byte(text, at) == BACKSLASH do
    at = find(text, '["\\]', at + 2)
  end
  return at
end

-- Calls visit(key, depth, around, place of the value) for each key. The depth of keys in the outermost object of the text
-- is 1. Returns the depth at the end.
local function walk(text, place, visit)
  local depth, names, key = 0, {}, nil
  while true do
    local at = find(text, '["{}%[%]]', place)
    if not at then
      return depth
    end
    local character = byte(text, at)
    place = at + 1
    if character == QUOTE then
      local last = end_of_string(text, place)
      if not last then
        return depth
      end
      place = last + 1
      local _, colon = find(text, "^%s*:%s*", place)
      if colon then
        key = sub(text, at + 1, last - 1)
        place = colon + 1
        if visit(key, depth, names[depth], place) then
          return depth
        end
      end
    elseif character == OPEN or character == OPEN_LIST then
      depth = depth + 1
      names[depth], key = key, nil
    else
      depth = depth - 1
      key = nil
    end
  end
end

-- The last usage that belongs to the answer itself. The text is the end of a JSON document, or all of it.
local function own_usage(text)
  if not find(text, '"usage"', 1, true) then
    return nil
  end
  -- The text may begin within a string: then it has an odd number of quotes.
  local quotes, place, first = 0, 1, nil
  while true do
    local at = end_of_string(text, place)
    if not at then
      break
    end
    first = first or at
    quotes, place = quotes + 1, at + 1
  end
  local candidates = {}
  local last = walk(text, quotes % 2 == 1 and first + 1 or 1, function(key, depth, around, value)
    if key == "usage" and byte(text, value) == OPEN then
      candidates[#candidates + 1] = {depth = depth, around = around, value = value}
    end
  end)
  -- A document ends at depth 0, so this is the depth at which the text begins.
  for index = #candidates, 1, -1 do
    local one = candidates[index]
    local depth = one.depth - last
    if depth == 1 or depth == 2 and (AROUND[one.around] or one.depth < 1) then
      return match(text, "^%b{}", one.value)
    end
  end
  -- It may begin within an escape, too.
  if byte(text) == BACKSLASH then
    return own_usage(match(text, "^\\+(.*)"))
  end
end

-- Takes what a usage says over what was known.
local function take(found, usage)
  local function number(name)
    return tonumber(match(usage, '"' .. name .. '"%s*:%s*(%d+)'))
  end
  local prompt, cached = number("prompt_tokens") or number("input_tokens"), number("cached_tokens")
  local read = number("cache_read_input_tokens")
  -- Anthropic's interface counts tokens of the cache beside the others.
  if prompt and not find(usage, '"prompt_tokens"', 1, true) then
    prompt = prompt + (read or 0) + (number("cache_creation_input_tokens") or 0)
  end
  found.prompt = prompt or found.prompt
  found.cached = cached or read or found.cached
  found.completion = number("completion_tokens") or number("output_tokens") or found.completion
end

-- The model that the beginning of an answer names.
local function own_model(text)
  local model
  local start = find(text, "{", 1, true)
  if start then
    walk(text, start, function(key, depth, around, value)
      if key == "model" and (depth == 1 or depth == 2 and AROUND[around]) then
        model = match(text, '^"([^"\\]*)"', value)
        return true
      end
    end)
  end
  return model and #model <= 128 and match(model, PLAIN)
end

local function milliseconds(from, to)
  return (to.sec - from.sec) * 1000 + (to.usec - from.usec) // 1000
end

local Usage = {id = "usage", flags = filter.FLT_CFG_FL_HTX}
Usage.__index = Usage

function Usage:new()
  return setmetatable({began = core.now(), head = "", known = {}}, Usage)
end

function Usage:http_headers(txn, message)
  -- HAProxy enters Lua for every piece of a message from here on, which costs more than what is done below.
  if message.channel:is_resp() then
    self.answer = txn:get_var("txn.answer")
    -- Engines send comments while a client waits, and of /v1/responses a first event before there is a token.
    self.token = match(txn:get_var("txn.path") or "", "^/v1/responses") and '.delta"' or "data:"
    if self.answer then
      filter.register_data_filter(self, message.channel)
    end
  end
  return filter.CONTINUE
end

function Usage:http_payload(txn, message)
  local piece = message:body()
  if not piece or piece == "" then
    return
  end
  if self.answer == "stream" then
    if not self.first and find(piece, self.token, 1, true) then
      self.first = core.now()
    end
    -- In a text line ends are escaped, and so are the quotes of a report.
    local report = sub(piece, 1, #REPORT) == REPORT and 0 or find(piece, "\n" .. REPORT, 1, true)
    if report then
      self.report = sub(piece, report + 1, report + 512)
    end
  end
  if #self.head < HEAD then
    self.head = self.head .. sub(piece, 1, HEAD)
  end
  self.d, self.c, self.b, self.a = self.c, self.b, self.a, sub(piece, -TAIL)
end

function Usage:http_end(txn, message)
  if message.channel:is_resp() then
    self:finish(txn, true)
  end
  return filter.CONTINUE
end

-- The client or the engine has gone; the line of the log is yet to be written.
function Usage:end_analyze(txn, channel)
  if channel:is_resp() then
    self:finish(txn, false)
  end
  return filter.CONTINUE
end

function Usage:finish(txn, complete)
  if not self.answer or self.done then
    return
  end
  self.done = true
  local tail = sub((self.d or "") .. (self.c or "") .. (self.b or "") .. (self.a or ""), -TAIL)
  if self.answer == "stream" then
    self:read_stream("\n" .. tail)
  elseif complete then
    local usage = own_usage(tail)
    if usage then
      take(self.known, usage)
    end
  end
  local model = own_model(self.head)
  if model then
    txn:set_var("txn.answer_model", model)
  end
  for name, value in pairs(self.known) do
    txn:set_var("txn." .. name .. "_tokens", value)
  end
  if self.first then
    txn:set_var("txn.first_token_ms", milliseconds(self.began, self.first))
    txn:set_var("txn.tokens_ms", milliseconds(self.first, core.now()))
  end
end

-- What came last counts. A line that was cut off counts for nothing.
function Usage:read_stream(tail)
  for line in string.gmatch(self.head, "([^\n]*)\n") do
    local usage = find(line, FIRST_EVENT) and own_usage(line)
    if usage then
      take(self.known, usage)
      self.known.completion = nil
    end
  end
  local report = self.report and match(self.report, "^: usage (%b{})\n")
  if report then
    take(self.known, report)
  end
  for line in string.gmatch(tail, "\n([^\n]+)%f[\n]") do
    local usage = sub(line, 1, #REPORT) == REPORT and match(line, "%b{}") or own_usage(line)
    if usage and not find(line, FIRST_EVENT) then
      take(self.known, usage)
    end
  end
end

core.register_filter("usage", Usage, function(class)
  return class
end)
