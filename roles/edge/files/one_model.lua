-- Finds one model in the list of all of them, which engines and LiteLLM answer /v1/models with. What the list says of the
-- model that txn.one_model names becomes txn.found_model; if it is not there, nothing does.

core.register_action("one_model", {"http-res"}, function(txn)
  local list = string.match(txn.f:res_body() or "", '"data"%s*:%s*(%b[])') or ""
  for model in string.gmatch(list, "%b{}") do
    -- What is nested in it, such as its permissions, has names of its own.
    local own = string.gsub(string.sub(model, 2, -2), "%b{}", "")
    if string.match(own, '"id"%s*:%s*"([^"]*)"') == txn:get_var("txn.one_model") then
      txn:set_var("txn.found_model", model)
      return
    end
  end
end)
