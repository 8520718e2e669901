-- Looks at the bodies of requests and answers as they pass.
--
-- HAProxy looks at the length that a client announces. A body that comes without one is counted here, piece by piece, and
-- its request ends when it is longer than it may be.
--
-- What an answer used: prompt, cached and completion tokens, as the engine says at the end of its answer; the model that
-- it names; and when tokens came. The access log has all of it. The filter looks at answers for which txn.answer is set:
-- "whole" or "stream".
--
-- An answer can hold whatever a client wants it to. In a text each quote has a backslash before it, so a key is never
-- text; and only the answer's own keys count, not those of objects inside it, which may be a client's (its tools).
--
-- Usage: filter lua.bodies LIMIT [usage]
--   LIMIT  bytes of a request's body
--   usage  whether answers are looked at

local find, sub, byte, match = string.find, string.sub, string.byte, string.match
local gmatch, gsub = string.gmatch, string.gsub

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

-- The last usage of a text, if it is the answer's own and that is plain to see: nothing with an escape comes after it. The
-- second value is whether there is no usage at all.
local function plain_usage(text)
  local value, place = nil, 1
  while true do
    local at, last = find(text, '"usage"', place, true)
    if not at then
      break
    elseif at == 1 then
      -- The backslash before it may have been cut off.
      return nil, false
    end
    if byte(text, at - 1) ~= BACKSLASH then
      local _, brace = find(text, "^%s*:%s*{", last + 1)
      value = brace or value
    end
    place = last + 1
  end
  local usage = value and match(text, "^%b{}", value)
  if not usage then
    return nil, not value
  end
  local behind = sub(text, value + #usage)
  if not find(behind, "\\", 1, true) then
    behind = gsub(behind, '"[^"]*"', "")
    local _, opened = gsub(behind, "[{%[]", "")
    local _, closed = gsub(behind, "[}%]]", "")
    if closed - opened == 1 then
      return usage, false
    end
  end
  return nil, false
end

-- The last usage that belongs to the answer itself. The text is the end of a JSON document, or all of it.
local function own_usage(text)
  local usage, is_none = plain_usage(text)
  if usage or is_none then
    return usage
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
  local numbers = {}
  for name, number in gmatch(usage, '"([%w_]+)"%s*:%s*(%d+)') do
    numbers[name] = numbers[name] or tonumber(number)
  end
  local prompt, read = numbers.prompt_tokens, numbers.cache_read_input_tokens
  -- Anthropic's interface counts tokens of the cache beside the others.
  if not prompt and numbers.input_tokens then
    prompt = numbers.input_tokens + (read or 0) + (numbers.cache_creation_input_tokens or 0)
  end
  found.prompt = prompt or found.prompt
  found.cached = numbers.cached_tokens or read or found.cached
  found.completion = numbers.completion_tokens or numbers.output_tokens or found.completion
end

-- The model that the beginning of an answer names.
local function own_model(text)
  local start = find(text, "{", 1, true)
  if not start then
    return nil
  end
  -- Mostly no object, list or escape comes before it.
  local model
  local at, last = find(text, '"model"', start, true)
  local before = at and sub(text, start + 1, at - 1)
  if before and not (find(before, "{", 1, true) or find(before, "[", 1, true) or find(before, "\\", 1, true)) then
    model = match(text, '^%s*:%s*"([^"\\]*)"', last + 1)
  end
  if not model then
    walk(text, start, function(key, depth, around, value)
      if key == "model" and (depth == 1 or depth == 2 and AROUND[around]) then
        model = match(text, '^"([^"\\]*)"', value)
        return true
      end
    end)
  end
  return model and #model <= 128 and match(model, PLAIN) or nil
end

local function milliseconds(from, to)
  return (to.sec - from.sec) * 1000 + (to.usec - from.usec) // 1000
end

-- What is known of one answer.
local function answer_of(kind, path)
  return {
    kind = kind,
    began = core.now(),
    first = nil,
    -- Engines send comments while a client waits, and of /v1/responses a first event before there is a token.
    token = find(path, "^/v1/responses") and '.delta"' or "data:",
    -- The beginning, until what is needed of it has been read.
    head = "",
    report = nil,
    known = {},
  }
end

-- Reads the beginning, as soon as it has the answer's model, or all that may have it.
local function read_head(answer, is_all)
  local model = own_model(answer.head)
  if not model and not is_all then
    return
  end
  answer.model = model
  if answer.kind == "stream" then
    for line in gmatch(match(answer.head, "^(.*)\n") or "", "[^\n]+") do
      local usage = find(line, FIRST_EVENT) and own_usage(line)
      if usage then
        take(answer.known, usage)
        answer.known.completion = nil
      end
    end
  end
  answer.head = nil
end

local function look(answer, piece)
  if answer.kind == "stream" then
    if not answer.first and find(piece, answer.token, 1, true) then
      answer.first = core.now()
    end
    -- In a text line ends are escaped, and so are the quotes of a report.
    local report = sub(piece, 1, #REPORT) == REPORT and 0 or find(piece, "\n" .. REPORT, 1, true)
    if report then
      answer.report = sub(piece, report + 1, report + 512)
    end
  end
  if answer.head then
    answer.head = answer.head .. sub(piece, 1, HEAD)
    -- The first event of a stream often has it all.
    local is_all = #answer.head >= HEAD
    if is_all or answer.kind == "stream" and find(answer.head, "data:[^\n]*\n") then
      read_head(answer, is_all)
    end
  end
  answer.d, answer.c, answer.b = answer.c, answer.b, answer.a
  answer.a = #piece > TAIL and sub(piece, -TAIL) or piece
end

-- What came last counts. A line that was cut off counts for nothing.
local function read_stream(answer, tail)
  local report = answer.report and match(answer.report, "^: usage (%b{})\n")
  if report then
    take(answer.known, report)
  end
  for line in gmatch(tail, "\n([^\n]+)%f[\n]") do
    local usage = sub(line, 1, #REPORT) == REPORT and match(line, "%b{}") or own_usage(line)
    if usage and not find(line, FIRST_EVENT) then
      take(answer.known, usage)
    end
  end
end

-- Writes down what the answer used.
local function finish(answer, txn, complete)
  if answer.head then
    read_head(answer, true)
  end
  local tail = answer.a or ""
  if answer.b then
    tail = sub((answer.d or "") .. (answer.c or "") .. answer.b .. tail, -TAIL)
  end
  if answer.kind == "stream" then
    read_stream(answer, "\n" .. tail)
  elseif complete then
    local usage = own_usage(tail)
    if usage then
      take(answer.known, usage)
    end
  end
  if answer.model then
    txn:set_var("txn.answer_model", answer.model)
  end
  for name, value in pairs(answer.known) do
    txn:set_var("txn." .. name .. "_tokens", value)
  end
  if answer.first then
    txn:set_var("txn.first_token_ms", milliseconds(answer.began, answer.first))
    txn:set_var("txn.tokens_ms", milliseconds(answer.first, core.now()))
  end
end

-- The filter. For each callback HAProxy makes a dozen objects first, which takes ten times as long as all of the above
-- does with a piece of a stream. But it looks for the callback's function in the object of the request before that. So
-- the work is done in this look, with objects that the first callback has got, and what is found is no function. Of an
-- answer's piece it is a number, which HAProxy takes for the bytes that go on: more than there are.
local ALL = 0x7fffffff

local Bodies = {id = "bodies", flags = filter.FLT_CFG_FL_HTX}
local by_name = {}

-- Runs what must not fail: an error here would leave HAProxy without an answer. What is not read then is not known.
local function try(state, work, ...)
  local done, why = pcall(work, ...)
  if not done then
    state.answer = false
    core.Warning("bodies.lua: " .. tostring(why))
  end
end

local function begin_answer(state)
  local txn = state.txn
  local kind = txn:get_var("txn.answer")
  if kind then
    state.answer = answer_of(kind, txn:get_var("txn.path") or "")
    state.message = txn.http_res
    state.message.__filter = state.__filter
    -- Every piece of the answer comes by from here on.
    filter.register_data_filter(state, txn.res)
  end
end

local function end_answer(state, complete)
  local answer = state.answer
  state.answer = false
  finish(answer, state.txn, complete)
end

local function look_at_piece(state)
  local piece = state.message:body()
  if piece and piece ~= "" then
    look(state.answer, piece)
  end
end

-- What HAProxy calls as usual: once for each request, and for what has no length or no end.

function Bodies.http_headers(state, txn, message)
  if message.channel:is_resp() then
    return filter.CONTINUE
  end
  state.txn = txn
  -- The headers themselves cannot be read here when the body has arrived already.
  if txn:get_var("txn.unknown_length") then
    state.counts = true
    filter.register_data_filter(state, message.channel)
  end
  return filter.CONTINUE
end

function Bodies.http_payload(state, txn, message)
  if message.channel:is_resp() then
    if state.answer then
      try(state, look_at_piece, state)
    end
    return
  end
  state.passed = state.passed + message:input()
  -- HAProxy counts the end of a body as one byte.
  if state.passed > state.limit + 1 then
    txn:set_var("txn.invalid", string.format("The request body is larger than %d bytes.", state.limit))
    txn:set_var("txn.invalid_code", "request_too_large")
    -- HAProxy takes filter.ERROR for a number of bytes here. Only this ends a request, and its message is logged.
    error("a body without a length was larger than edge_max_body_bytes", 0)
  end
end

function Bodies.http_end(state, _, message)
  if message.channel:is_resp() and state.answer then
    try(state, end_answer, state, true)
  end
  return filter.CONTINUE
end

-- The client or the engine has gone; the line of the log is yet to be written.
function Bodies.end_analyze(state, _, channel)
  if channel:is_resp() and state.answer then
    try(state, end_answer, state, false)
  end
  return filter.CONTINUE
end

-- The request's come before the answer's.
function by_name.http_headers(state)
  if not state.txn then
    return Bodies.http_headers
  elseif state.reads then
    try(state, begin_answer, state)
  end
end

function by_name.http_payload(state)
  if state.counts then
    return Bodies.http_payload
  end
  if state.answer then
    try(state, look_at_piece, state)
  end
  return ALL
end

function by_name.http_end(state)
  if state.counts then
    return Bodies.http_end
  end
  if state.answer then
    try(state, end_answer, state, true)
  end
end

function by_name.end_analyze(state)
  if state.answer then
    return Bodies.end_analyze
  end
end

local State = {
  __index = function(state, name)
    local work = by_name[name]
    return work and work(state)
  end,
}

function Bodies:new()
  return setmetatable(
    {txn = false, message = false, answer = false, counts = false, reads = self.reads, limit = self.limit, passed = 0},
    State
  )
end

core.register_filter("bodies", Bodies, function(class, arguments)
  class.limit = tonumber(arguments[1])
  class.reads = arguments[2] == "usage"
  return class
end)
