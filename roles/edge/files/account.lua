-- Asks the accountant whether a request of a client with limits on tokens may go on, and books what it may use. Sets
--   txn.finding  ok; tokens, budget or reserved, where it may not; away, where no accountant answers
--   txn.wait     after how many seconds another try makes sense, where that is known
--
-- What it may use is as much as can be known before it is answered. No token is shorter than a byte, so the bytes of all
-- texts bound the prompt. Where the buffer ends within a picture, and an answer without a bound, count as the arguments
-- say.
--
-- Usage: http-request lua.account SOCKET PROMPT OUTPUT MEDIA
--   SOCKET  of the accountant, as HAProxy sees it
--   PROMPT  tokens of what is behind a picture that the buffer does not show whole
--   OUTPUT  tokens of an answer whose request does not bound it
--   MEDIA   tokens of a picture, a video or a sound

local find, gmatch, gsub, match, sub = string.find, string.gmatch, string.gsub, string.match, string.sub

-- Tokens that a chat template adds at most.
local TEMPLATE = 512
-- Seconds for an answer; Redis has less.
local PATIENCE = 1
-- Seconds for which an accountant that did not answer in time is not asked: each request would wait for it.
local SILENCE = 2
-- Longer numbers are none of tokens.
local MOST = 1000000000
-- A body without an announced length is cut where it is longer than this, if it does not end as JSON does.
local SURELY_WHOLE = 4096

local LENGTHS = {"max_tokens", "max_completion_tokens", "max_output_tokens"}
local CHOICES = {"n", "best_of"}
-- What has no answer to be written.
local READING = {"embeddings", "rerank", "score", "classify", "pooling"}
local MEDIA = {"image", "video", "audio", "file"}

-- The largest number that a body gives for one of these names. In a text quotes are escaped, so it has none of them.
local function most(body, names)
  local found
  for _, name in ipairs(names) do
    local key, place = '"' .. name .. '"', 1
    while true do
      local _, last = find(body, key, place, true)
      if not last then
        break
      end
      local number = tonumber(match(body, '^%s*:%s*"?([%w.+-]+)', last + 1))
      if number and number > 0 and (not found or number > found) then
        found = number
      end
      place = last + 1
    end
  end
  return found and math.floor(math.min(found, MOST))
end

-- A body without what is in pictures and the like, and how many of them there are.
local function without_media(body)
  local count = 0
  for kind in gmatch(body, '"type"%s*:%s*"([%w_]+)"') do
    for _, word in ipairs(MEDIA) do
      if find(kind, word, 1, true) then
        count = count + 1
        break
      end
    end
  end
  if count == 0 then
    return body, 0
  end
  body = gsub(body, '"data:[^"]*', '"')
  -- As /v1/messages and sounds have it.
  body = gsub(body, '"data"%s*:%s*"[%w+/=]*', '"data":"')
  return body, count
end

-- How many prompts a request has.
local function prompts(body)
  local list = match(body, '"prompt"%s*:%s*(%[.*)')
  if not list then
    return 1
  end
  local _, several
  if find(list, "^%[%s*%[") then
    _, several = gsub(list, "%]%s*,%s*%[", "")
  elseif find(list, '^%[%s*"') then
    _, several = gsub(list, '"%s*,%s*"', "")
  end
  return 1 + (several or 0)
end

local function estimate(txn, default_prompt, default_output, media_tokens)
  local body = txn.f:req_body() or ""
  local announced = tonumber(txn.f:req_hdr("content-length"))
  local is_cut = announced and announced > #body or not announced and #body > SURELY_WHOLE and not find(body, "}%s*$")
  local texts, media = without_media(body)
  local prompt = TEMPLATE + #texts + media * media_tokens
  if is_cut then
    local last = find(body, '"[^"]*$') or 1
    local in_medium = media > 0 and (find(body, '^"data:', last) or find(sub(body, 1, last - 1), '"data"%s*:%s*$'))
    prompt = prompt + (announced and not in_medium and announced - #body or default_prompt)
  end

  local path = txn:get_var("txn.path") or ""
  for _, word in ipairs(READING) do
    if find(path, word, 1, true) then
      return prompt, 0
    end
  end
  -- An escaped name is one, too.
  if find(body, '\\u00[2-7]%x[%w_\\]*"%s*:') then
    body = gsub(body, "\\u00([2-7]%x)", function(code)
      return string.char(tonumber(code, 16))
    end)
  end
  local output = most(body, LENGTHS)
  -- What is not shown may have a larger number.
  if not output or is_cut then
    output = math.max(output or 0, default_output)
  end
  return prompt, output * (most(body, CHOICES) or 1) * prompts(body)
end

local silent_until = 0

core.register_action("account", {"http-req"}, function(txn, place, default_prompt, default_output, media_tokens)
  txn:set_var("txn.finding", "away")
  if core.now().sec < silent_until then
    return
  end
  local prompt, completion =
    estimate(txn, tonumber(default_prompt), tonumber(default_output), tonumber(media_tokens))
  local connection = core.tcp()
  connection:settimeout(PATIENCE)
  if not connection:connect("unix@" .. place) then
    return
  end
  local model = txn:get_var("txn.model") or "-"
  connection:send(
    string.format("%s %s %s %d %d\n", txn.f:unique_id(), txn:get_var("txn.client"), model, prompt, completion)
  )
  local answer = connection:receive("*l")
  connection:close()
  local finding, wait = match(answer or "", "^(%l+) (%d+)$")
  if not finding then
    silent_until = core.now().sec + SILENCE
    return
  end
  txn:set_var("txn.finding", finding)
  if wait ~= "0" then
    txn:set_var("txn.wait", tonumber(wait))
  end
end, 4)
