-- Chooses the server of a request that has an affinity, and sets txn.home to its name, for use-server. Where it sets
-- nothing, the backend's own way of balancing decides.
--
-- The names of the servers decide, by a weighted rendezvous hash: every gateway chooses the same, a server that leaves
-- moves only what it had, and gets it back when it returns. What they are is in the hash, too, so that hosts and their
-- instances are chosen independently. A server that has more than its share to do is passed over for the next one in the
-- request's own order, which is the same each time.
--
-- Chance gives some servers a third more sessions than others. What a server has had of late says so, and it then leaves
-- some of its sessions to their next servers: always the same ones, as far as it goes, so that these have a cache, too.
--
-- HAProxy's own consistent hash does not do: its servers would need a second backend for a bound that lets few requests
-- at once stay together, and a backend that tracks another's servers has connections of its own to count, and takes no
-- server out that fails.
--
-- Usage: http-request lua.home BACKEND SERVER=WEIGHT,SERVER=WEIGHT,...

-- A server may have this much of the mean, and FREE more: where few are in flight, chance alone gives one server twice
-- the mean, and a session that leaves its cache for that gains nothing.
local BOUND, FREE = 1.5, 4
-- How many seconds an average goes back: many requests, which take some seconds each, and no more than sessions last.
local MEMORY = 60
-- How many seconds one look is enough, which asks for all servers.
local LOOK = 0.05
-- A server with a tenth more than the mean leaves GAIN tenths of its sessions; with fewer requests than BUSY it has no
-- reason to. An average is one when it has seen this part of what it remembers.
local GAIN, BUSY, ENOUGH = 2, 2, 0.2

local exp, floor, log, max = math.exp, math.floor, math.log, math.max

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
      -- Which sessions it leaves has nothing to do with which ones it has.
      leaving = hash("leaves " .. level .. "/" .. name),
      server = core.backends[backend].servers[name],
      average = 0,
      served = false,
    }
  end
  return {servers = servers, mean_weight = sum / #servers, seen = nil, filled = 0, mean = 0}
end

local function serves(fetch, server)
  return is(fetch:srv_is_up(server.name)) and not is(server.server:is_draining())
end

-- Notes what the servers have to do.
local function look(known, fetch, now)
  local kept = exp(((known.seen or now) - now) / MEMORY)
  known.seen = now
  known.filled = known.filled * kept + 1 - kept
  local sum, weights = 0, 0
  for _, server in ipairs(known.servers) do
    server.average = server.average * kept + fetch:srv_conn(server.name) * (1 - kept)
    server.served = serves(fetch, server)
    if server.served then
      sum = sum + server.average
      weights = weights + server.weight
    end
  end
  known.mean = sum / max(weights, 1)
  for _, server in ipairs(known.servers) do
    if not server.served then
      -- When it returns the others have not had too much.
      server.average = known.mean * server.weight
    end
  end
end

-- Whether the server has had so much that this session is one of those that it leaves to others.
local function leaves(known, server, key)
  if known.filled < ENOUGH or server.average < BUSY * known.filled then
    return false
  end
  local excess = server.average / (known.mean * server.weight) - 1
  return mixed(key ~ server.leaving) < GAIN * excess
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
  local clock = core.now()
  local now = clock.sec + clock.usec / 1000000
  if not known.seen or now - known.seen >= LOOK then
    look(known, fetch, now)
  end
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
    if serves(fetch, server) and not leaves(known, server, key) then
      local had = fetch:srv_conn(server.name)
      local may = floor(BOUND * share * server.weight) + FREE
      local room = server.server:get_maxconn()
      if had < may and (room == 0 or had < room) then
        txn:set_var("txn.home", server.name)
        return
      end
    end
  end
end, 2)
