-- Chooses the server of a request that has an affinity, and sets txn.home to its name, for use-server. Where it sets
-- nothing, the backend's own way of balancing decides.
--
-- The names of the servers decide, by a weighted rendezvous hash: every gateway chooses the same, a server that leaves
-- moves only what it had, and gets it back when it returns. What they are is in the hash, too, so that hosts and their
-- instances are chosen independently. A server that has more than its share to do is passed over for the next one in the
-- request's own order, which is the same each time.
--
-- HAProxy's own consistent hash does not do: its servers would need a second backend for a bound that lets few requests
-- at once stay together, and a backend that tracks another's servers has connections of its own to count, and takes no
-- server out that fails.
--
-- Usage: http-request lua.home BACKEND SERVER=WEIGHT,SERVER=WEIGHT,...

-- A server with fewer requests takes its own in any case. With more it may have this much of the mean.
local FREE, BOUND = 4, 1.5

local floor, log, max = math.floor, math.log, math.max

-- HAProxy's versions say yes in two ways.
local function is(answer)
  return answer and answer ~= 0
end

-- FNV-1a, of 64 bits.
local function hash(text)
  local value = 0xcbf29ce484222325
  for position = 1, #text do
    value = (value ~ string.byte(text, position)) * 0x100000001b3
  end
  return value
end

-- The last step of splitmix64, as a number between 0 and 1.
local function mixed(value)
  value = (value ~ (value >> 30)) * 0xbf58476d1ce4e5b9
  value = (value ~ (value >> 27)) * 0x94d049bb133111eb
  value = value ~ (value >> 31)
  return ((value >> 11) + 0.5) / (1 << 53)
end

-- The servers of a line in the configuration.
local function parse(backend, text)
  -- A host's port makes no difference.
  local level = string.match(backend, "^(instances)_%d+$") or backend
  local servers, sum = {}, 0
  for name, weight in string.gmatch(text, "([^=,]+)=(%d+)") do
    weight = tonumber(weight)
    sum = sum + weight
    servers[#servers + 1] = {
      name = name,
      weight = weight,
      seed = hash(level .. "/" .. name),
      server = core.backends[backend].servers[name],
    }
  end
  return {servers = servers, mean_weight = sum / #servers}
end

local parsed = {}

core.register_action("home", {"http-req"}, function(txn, backend, text)
  local key = tonumber(txn:get_var("txn.affinity") or "", 16)
  if not key then
    return
  end
  local known = parsed[backend]
  if not known then
    known = parse(backend, text)
    parsed[backend] = known
  end

  -- Servers by their names alone: where a backend's name is in front, HAProxy writes into Lua's own copy of it.
  local fetch = txn.f
  -- This request is among them.
  local requests = fetch:be_conn(backend)
  local share = requests / (max(fetch:nbsrv(backend), 1) * known.mean_weight)
  local scores = {}
  for number, server in ipairs(known.servers) do
    scores[number] = -server.weight / log(mixed(key ~ server.seed))
  end
  for _ = 1, #scores do
    local best = 1
    for number = 2, #scores do
      if scores[number] > scores[best] then
        best = number
      end
    end
    scores[best] = -1
    local server = known.servers[best]
    if is(fetch:srv_is_up(server.name)) and not is(server.server:is_draining()) then
      local had = fetch:srv_conn(server.name)
      local may = max(FREE, floor(BOUND * share * server.weight))
      local room = server.server:get_maxconn()
      if had < may and (room == 0 or had < room) then
        txn:set_var("txn.home", server.name)
        return
      end
    end
  end
end, 2)
