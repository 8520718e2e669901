-- Which of a gateway's models a request is for. The argument lists all of them, as a,b,c; txn.models those that the client
-- may use, as ,a,b, or nothing for all. The body's own model is in txn.model, where it was found.
--
-- txn.choice becomes chosen, with txn.model; or missing, refused (the client may not use it), unknown, or invalid, where
-- the body does name a model, but not once and as a text. A request for the list of models finds it in txn.model_list, one
-- for a single model in txn.found_model.

local function describe(name)
  return '{"id":"' .. name .. '","object":"model","created":0,"owned_by":"fleet"}'
end

core.register_action("choose_model", {"http-req"}, function(txn, all)
  local allowed = txn:get_var("txn.models") or ""
  local known, usable, list = {}, 0, {}
  local only
  for name in string.gmatch(all, "[^,]+") do
    known[name] = true
    if allowed == "" or string.find(allowed, "," .. name .. ",", 1, true) then
      usable, only = usable + 1, name
      list[#list + 1] = describe(name)
    end
  end

  local wanted = txn:get_var("txn.one_model")
  if wanted then
    if known[wanted] and (allowed == "" or string.find(allowed, "," .. wanted .. ",", 1, true)) then
      txn:set_var("txn.found_model", describe(wanted))
    end
    return
  end
  txn:set_var("txn.model_list", table.concat(list, ","))

  local model = txn:get_var("txn.model")
  local header = txn.http:req_get_headers()["x-model"]
  if model == nil and header and header[0] ~= "" then
    model = header[0]
  end
  if model == nil and usable == 1 then
    model = only
  end
  local choice = "chosen"
  local why = txn:get_var("txn.no_model")
  if why == "two" or why == "type" then
    choice = "invalid"
  elseif model == nil then
    choice = "missing"
  elseif allowed ~= "" and not string.find(allowed, "," .. model .. ",", 1, true) then
    choice = "refused"
  elseif not known[model] then
    choice = "unknown"
  end
  txn:set_var("txn.choice", choice)
  if model ~= nil then
    txn:set_var("txn.model", model)
  end
end, 1)
