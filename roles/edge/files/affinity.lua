-- Reads a request's body, or as much of it as HAProxy's buffer holds, and sets
--   txn.model     the model that the body names; or else
--   txn.no_model  why there is none: cut (the buffer ends before it), none, two, type or invalid
--   txn.affinity  what two requests have in common that should meet the same cache, as 16 hexadecimal digits
-- A body that cannot be read gets no affinity: it goes to the server with the fewest requests.
-- Program choose_model.lua uses the reader, too.
--
-- Usage: http-request lua.affinity MODE
--   prefix  the header X-Session-ID, else prompt_cache_key of the body, else the beginning of the conversation
--   client  the client
--   none    only the model

local byte, find, gsub, sub = string.byte, string.find, string.gsub, string.sub

-- Bytes of the system prompt that count, and of the first message of the user.
local SYSTEM, USER = 4096, 1024
-- Of a picture's text the last bytes up to there count: what comes before are headers, which many pictures share.
local MEDIA_TO, MEDIA_SIZE = 5120, 1024
-- Longer names of sessions and models are not taken.
local NAME = 256
-- A body without an announced length is cut where it is longer than this, if it does not end as JSON does.
local SURELY_WHOLE = 4096
-- Escaped quotes that are looked at one by one.
local MANY = 100
-- Messages, and parts of one, that are looked at.
local ELEMENTS = 100
-- The lists and objects around a picture's text.
local MEDIA_DEPTH = 4

-- Where the parts of a prompt are, by path.
local SHAPES = {
  ["/v1/chat/completions"] = {list = "messages"},
  ["/v1/messages"] = {list = "messages", system = "system"},
  ["/v1/responses"] = {list = "input", system = "instructions"},
  ["/v1/completions"] = {prompt = "prompt"},
}
local OTHER = {}
-- Members of a message's part that say what it is, and not what is in it.
local DESCRIPTIONS = {type = true, detail = true, format = true, media_type = true, cache_control = true}
local SYSTEM_ROLES = {system = true, developer = true}

-- What ends the reading early: the end of what is there, what is no JSON, and that no more is needed.
local CUT, INVALID, ENOUGH = {}, {}, {}

local QUOTE, COLON, COMMA, BACKSLASH = 34, 58, 44, 92
local OBJECT, OBJECT_END, LIST, LIST_END = 123, 125, 91, 93

local ESCAPES = {b = "\b", f = "\f", n = "\n", r = "\r", t = "\t"}

-- The first position from p on that is no white space.
local function solid(text, p)
  return find(text.raw, "[^ \t\r\n]", p) or error(CUT)
end

-- A text that is read: raw as it is, and masked, once it has many escaped quotes, without any escapes, so that they are
-- not looked at one by one.
local function readable(raw)
  return {raw = raw, masked = nil, escaped = 0}
end

-- The position of the quote that ends the string that begins at p; nothing where it is not there before the limit.
local function find_end(text, p, limit)
  while true do
    local quote = find(text.masked or text.raw, '"', p + 1, true)
    if not quote or limit and quote > limit then
      return nil
    end
    if text.masked or byte(text.raw, quote - 1) ~= BACKSLASH then
      return quote
    end
    local before = quote - 1
    while byte(text.raw, before) == BACKSLASH do
      before = before - 1
    end
    if (quote - before) % 2 == 1 then
      return quote
    end
    p = quote
    text.escaped = text.escaped + 1
    if text.escaped == MANY then
      text.masked = gsub(text.raw, "\\.", "__")
    end
  end
end

local function string_end(text, p)
  return find_end(text, p) or error(CUT)
end

-- The position behind the list or object within which p is, or which begins at p.
local function leave(text, p)
  local depth = 1
  repeat
    p = find(text.raw, '["%[%]{}]', p + 1) or error(CUT)
    local found = byte(text.raw, p)
    if found == QUOTE then
      p = string_end(text, p)
    elseif found == OBJECT or found == LIST then
      depth = depth + 1
    else
      depth = depth - 1
    end
  until depth == 0
  return p + 1
end

-- The position behind the value that begins at p.
local function skip(text, p)
  local first = byte(text.raw, p)
  if first == QUOTE then
    return string_end(text, p) + 1
  end
  if first ~= OBJECT and first ~= LIST then
    local _, last = find(text.raw, "^[%w.+-]+", p)
    if not last then
      error(INVALID)
    end
    return last + 1
  end
  return leave(text, p)
end

-- What an escaped string means. Halves of a pair are joined; a half alone is left out.
local function unescaped(raw)
  if not find(raw, "\\", 1, true) then
    return raw
  end
  -- An escaped backslash escapes nothing; a byte that JSON has not holds its place.
  raw = gsub(raw, "\\\\", "\0")
  raw = gsub(raw, "\\u([dD][89abAB]%x%x)\\u([dD][c-fC-F]%x%x)", function(high, low)
    return utf8.char(0x10000 + ((tonumber(high, 16) - 0xD800) << 10) + tonumber(low, 16) - 0xDC00)
  end)
  raw = gsub(raw, "\\(u?)(.)(%x?%x?%x?)", function(unicode, first, rest)
    if unicode == "" then
      return (ESCAPES[first] or first) .. rest
    end
    local code = tonumber(first .. rest, 16)
    -- One control character is as good as another: no name has any.
    return code and (code < 0xD800 or code > 0xDFFF) and utf8.char(math.max(code, 1)) or ""
  end)
  return (gsub(raw, "\0", "\\"))
end

-- The string that begins at p; nothing where another value does.
local function string_at(text, p)
  if byte(text.raw, p) == QUOTE then
    return unescaped(sub(text.raw, p + 1, string_end(text, p) - 1))
  end
end

-- Calls visit(name, position of the value) for each member of the object at p. Returns the position behind the object.
local function members(text, p, visit)
  p = solid(text, p + 1)
  if byte(text.raw, p) == OBJECT_END then
    return p + 1
  end
  while true do
    if byte(text.raw, p) ~= QUOTE then
      error(INVALID)
    end
    local quote = string_end(text, p)
    local name = unescaped(sub(text.raw, p + 1, quote - 1))
    p = solid(text, quote + 1)
    if byte(text.raw, p) ~= COLON then
      error(INVALID)
    end
    p = solid(text, p + 1)
    p = solid(text, visit(name, p) or skip(text, p))
    local found = byte(text.raw, p)
    if found == OBJECT_END then
      return p + 1
    elseif found ~= COMMA then
      error(INVALID)
    end
    p = solid(text, p + 1)
  end
end

-- Calls visit(position) for the first elements of the list at p, until it returns true. Returns the position behind the
-- list.
local function elements(text, p, visit)
  p = solid(text, p + 1)
  if byte(text.raw, p) == LIST_END then
    return p + 1
  end
  for _ = 1, ELEMENTS do
    local behind = visit(p)
    if behind == true then
      break
    end
    p = solid(text, behind or skip(text, p))
    local found = byte(text.raw, p)
    if found == LIST_END then
      return p + 1
    elseif found ~= COMMA then
      error(INVALID)
    end
    p = solid(text, p + 1)
  end
  return leave(text, p - 1)
end

-- Takes the beginning of a text into a list of pieces.
local Taker = {}
Taker.__index = Taker

local function taker(text, limit)
  return setmetatable({text = text, left = limit, pieces = {}}, Taker)
end

function Taker:take(first, last)
  self.pieces[#self.pieces + 1] = sub(self.text.raw, first, last)
end

-- The position behind the part that counts of the string at p; it may go on behind the end of what is there.
function Taker:find_end(p, enough)
  return find_end(self.text, p, enough) or enough < #self.text.raw and enough + 1 or error(CUT)
end

-- The string at p, as far as it counts.
function Taker:string(p)
  local enough = p + self.left
  local quote = self:find_end(p, enough)
  local last = math.min(quote - 1, enough)
  self:take(p + 1, last)
  self.left = self.left - (last - p)
  if self.left <= 0 then
    error(ENOUGH)
  end
  return quote + 1
end

-- The text of a picture, or where it is.
function Taker:medium(p)
  local enough = p + MEDIA_TO
  local quote = self:find_end(p, enough)
  local last = math.min(quote - 1, enough)
  self:take(math.max(p + 1, last - MEDIA_SIZE + 1), last)
end

-- Whatever a part of a message has beside text.
function Taker:media(p, depth)
  local first = byte(self.text.raw, p)
  if first == QUOTE then
    self:medium(p)
  elseif first == OBJECT and depth > 0 then
    return members(self.text, p, function(name, value)
      if not DESCRIPTIONS[name] then
        return self:media(value, depth - 1)
      end
    end)
  end
end

-- A message's content: a string, or a list of parts.
function Taker:content(p)
  local first = byte(self.text.raw, p)
  if first == QUOTE then
    self:string(p)
  elseif first == LIST then
    elements(self.text, p, function(part)
      local kind = byte(self.text.raw, part)
      if kind == QUOTE then
        return self:string(part)
      elseif kind == OBJECT then
        return members(self.text, part, function(name, value)
          if name == "text" and byte(self.text.raw, value) == QUOTE then
            return self:string(value)
          elseif not DESCRIPTIONS[name] then
            return self:media(value, MEDIA_DEPTH)
          end
        end)
      end
    end)
  end
end

-- A prompt: a string, a list of them, or of tokens.
function Taker:prompt(p)
  local first = byte(self.text.raw, p)
  if first == QUOTE then
    return self:string(p)
  elseif first ~= LIST then
    return
  end
  local next = solid(self.text, p + 1)
  if byte(self.text.raw, next) == QUOTE then
    return self:string(next)
  end
  local last = math.min(p + self.left, #self.text.raw)
  local _, numbers = find(self.text.raw, "^[%d%s,%[]+", p)
  if numbers and (numbers >= last or byte(self.text.raw, numbers + 1) == LIST_END) then
    self:take(p, math.min(numbers, last))
  end
end

-- Runs a reader. Returns nothing where all was read, else what ended it. Faults of the program itself are passed on.
local function ended_by(read, ...)
  local whole, why = pcall(read, ...)
  if whole then
    return nil
  end
  if why ~= CUT and why ~= INVALID and why ~= ENOUGH then
    error(why, 0)
  end
  return why
end

-- What a body says, by the positions of its parts.
local function find_parts(text, shape, found)
  local p = solid(text, 1)
  if byte(text.raw, p) ~= OBJECT then
    error(INVALID)
  end

  -- Nothing that counts comes any more. Other beginnings of these names would be found more often.
  local function is_enough(behind)
    return found.user
      and not find(text.raw, 'model"', behind, true)
      and not find(text.raw, '_cache_key"', behind, true)
  end

  local function message(at)
    if found.user then
      return true
    elseif byte(text.raw, at) ~= OBJECT then
      return nil
    end
    -- Noted at once: the end of what is there may come within it.
    local role, content
    local function note()
      if role == "user" and content then
        found.user = content
      elseif SYSTEM_ROLES[role] and content then
        found.system[#found.system + 1] = content
        content = nil
      end
    end
    local behind = members(text, at, function(name, value)
      if name == "role" then
        role = string_at(text, value)
        note()
      elseif name == "content" then
        content = value
        note()
      end
      if found.user and is_enough(value) then
        error(ENOUGH)
      end
    end)
    return behind
  end

  members(text, p, function(name, value)
    local first = byte(text.raw, value)
    if name == "model" then
      found.models = found.models + 1
      if first == QUOTE then
        found.model = string_at(text, value)
      end
    elseif name == "prompt_cache_key" then
      found.session = string_at(text, value)
    elseif name == shape.system and not found.user then
      -- Behind the messages it would be cut as soon as they are long enough, and the same conversation be another one.
      found.system[#found.system + 1] = value
    elseif name == shape.prompt then
      found.prompt = value
    elseif name == shape.list and first == LIST then
      return elements(text, value, message)
    elseif name == shape.list and first == QUOTE then
      found.user = value
    end
  end)
end

-- What the beginning of a conversation is, as far as it is there; nothing where too little of it is.
local function beginning(text, found)
  local user, system = taker(text, USER), taker(text, SYSTEM)
  for _, place in ipairs(found.system) do
    if ended_by(system.content, system, place) then
      break
    end
  end
  if found.user then
    ended_by(user.content, user, found.user)
  elseif found.prompt then
    ended_by(user.prompt, user, found.prompt)
  end
  if #user.pieces == 0 and system.left > 0 then
    return nil
  end
  return table.concat(system.pieces, "\0") .. "\0\0" .. table.concat(user.pieces, "\0")
end

local function is_name(value)
  return value and value ~= "" and #value <= NAME and utf8.len(value) and not find(value, "%c")
end

-- Whether the buffer holds the whole body.
local function is_whole(txn, length)
  local announced = tonumber(txn.f:req_hdr("content-length"))
  if announced then
    return announced <= length
  end
  return length <= SURELY_WHOLE
end

-- Reads a POST, and sets txn.affinity. Returns the model that the body names, else nothing and why there is none.
function read_request(txn, mode)
  local fetch = txn.f
  local function keep(kind, value)
    local client = txn:get_var("txn.client") or ""
    txn:set_var("txn.affinity", string.format("%016x", txn.c:xxh64(client .. "\0" .. kind .. "\0" .. value)))
  end

  if mode == "client" then
    keep("client", "")
  end
  local session = mode == "prefix" and fetch:req_fhdr("x-session-id")
  local has_session = is_name(session)
  if has_session then
    keep("session", session)
  end

  local body = readable(fetch:req_body() or "")
  local encoding = fetch:req_fhdr("content-encoding") or "identity"
  local found = {models = 0, system = {}}
  local ended = INVALID
  if encoding == "identity" then
    ended = ended_by(find_parts, body, SHAPES[fetch:path()] or OTHER, found)
  end
  local is_cut = ended and not is_whole(txn, #body.raw)
  if ended == INVALID or ended == CUT and not is_cut then
    return nil, "invalid"
  end

  if mode == "prefix" and not has_session then
    local words = is_name(found.session) and found.session or nil
    local prefix = not words and beginning(body, found)
    if words then
      keep("session", words)
    elseif prefix then
      keep("prefix", prefix)
    end
  end

  if found.models > 1 then
    return nil, "two"
  elseif is_name(found.model) then
    return found.model
  elseif found.models == 1 then
    return nil, "type"
  end
  return nil, is_cut and "cut" or "none"
end

core.register_action("affinity", {"http-req"}, function(txn, mode)
  if txn.f:method() == "POST" then
    local model, why = read_request(txn, mode)
    txn:set_var(model and "txn.model" or "txn.no_model", model or why)
  end
end, 1)
