-- Which of a gateway's models a request is for; affinity.lua, which reads the request, is loaded before. txn.models lists
-- those that the client may use, as ,a,b, or is nothing for all of them.
--
-- txn.choice becomes chosen, with txn.model; or missing, refused (the client may not use it), unknown, or invalid, where
-- the body does name a model, but not once and as a text. A request for the list of models finds it in txn.model_list, one
-- for a single model in txn.found_model.
--
-- Usage: http-request lua.choose_model MODE MODELS
--   MODE    as for lua.affinity, which it takes the place of
--   MODELS  all of them, as a,b,c

local find, gmatch = string.find, string.gmatch

-- The models of a line in the configuration.
local lines = {}

local function parse(all)
  local names, known = {}, {}
  for name in gmatch(all, "[^,]+") do
    names[#names + 1] = name
    known[name] = true
  end
  return {names = names, known = known}
end

local function is_allowed(name, allowed)
  return allowed == "" or find(allowed, "," .. name .. ",", 1, true)
end

local function describe(name)
  return '{"id":"' .. name .. '","object":"model","created":0,"owned_by":"fleet"}'
end

local function list(line, allowed)
  local models = {}
  for _, name in ipairs(line.names) do
    if is_allowed(name, allowed) then
      models[#models + 1] = describe(name)
    end
  end
  return table.concat(models, ",")
end

-- The only model that the client may use.
local function only_one(line, allowed)
  local only
  for _, name in ipairs(line.names) do
    if is_allowed(name, allowed) then
      if only then
        return nil
      end
      only = name
    end
  end
  return only
end

core.register_action("choose_model", {"http-req"}, function(txn, mode, all)
  local line = lines[all]
  if not line then
    line = parse(all)
    lines[all] = line
  end
  local allowed = txn:get_var("txn.models") or ""
  local wanted = txn:get_var("txn.one_model")
  if wanted then
    if line.known[wanted] and is_allowed(wanted, allowed) then
      txn:set_var("txn.found_model", describe(wanted))
    end
    return
  end

  local fetch = txn.f
  local method = fetch:method()
  if method == "GET" then
    txn:set_var("txn.model_list", list(line, allowed))
  end
  local model, why
  if method == "POST" then
    model, why = read_request(txn, mode)
  end
  if not model then
    model = fetch:req_fhdr("x-model", 1)
    if not model or model == "" then
      model = only_one(line, allowed)
    end
  end
  local choice = "chosen"
  if why == "two" or why == "type" then
    choice = "invalid"
  elseif not model then
    choice = "missing"
  elseif not is_allowed(model, allowed) then
    choice = "refused"
  elseif not line.known[model] then
    choice = "unknown"
  end
  txn:set_var("txn.choice", choice)
  if model then
    txn:set_var("txn.model", model)
  end
end, 2)
