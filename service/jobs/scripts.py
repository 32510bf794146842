"""The store's side of a job's life, as Lua: each script is one step that happens whole or not at all.

    t:<tenant>:jobs:job:<id>     hash: order, state, times, attempts, answer, which entry of which lane it has, its key
    t:<tenant>:jobs:index        sorted set of ids, all scored 0, so sorted by id and so by age
    t:<tenant>:jobs:expiry       sorted set of finished ids, scored by the millisecond in which they expire
    t:<tenant>:jobs:held         stream of lane HELD; consumer group `nodes`, as in the two others
    t:<tenant>:jobs:queued       stream of lane QUEUED
    t:<tenant>:jobs:finished     stream of lane FINISHED
    t:<tenant>:idem:<name>       `<fingerprint> <job id>`, expires with the key
    t:<tenant>:idem:<name>:job   the newest job of that key, as long as finished jobs are kept
    node:jobs:tenants            set of tenants that have these streams

Every entry of a stream has one field, `id`. Needs Redis 6.2 or any Valkey.
"""

GROUP = "nodes"

SUBMIT = """
local job, index, expiry, registry, lane, idem = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[9]
local id, order, created, lane_name, consumer, tenant = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local prefix, now_ms, fingerprint, ttl_ms, retention_ms = ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11]
local answered_ttl_ms = ARGV[12]
if idem then
    local known = redis.call('GET', idem)
    if known then
        local known_fingerprint, known_id = string.match(known, '^(%S+) (%S+)$')
        local state = known_id and redis.call('HGET', prefix .. known_id, 'state')
        if state and not (state == 'failed' and known_fingerprint ~= fingerprint) then
            return {'known', known_id, known_fingerprint}
        end
    end
end
redis.call('SADD', registry, tenant)
for i = 6, 8 do
    if redis.call('EXISTS', KEYS[i]) == 0 then redis.call('XGROUP', 'CREATE', KEYS[i], 'nodes', '0', 'MKSTREAM') end
end
local expired = redis.call('ZRANGE', expiry, '-inf', now_ms, 'BYSCORE', 'LIMIT', 0, 100)
if #expired > 0 then
    redis.call('ZREM', expiry, unpack(expired))
    redis.call('ZREM', index, unpack(expired))
end
local entry = redis.call('XADD', lane, '*', 'id', id)
redis.call('HSET', job, 'order', order, 'state', 'queued', 'created_at', created, 'attempts', 0,
    'lane', lane_name, 'entry', entry)
redis.call('ZADD', index, 0, id)
if idem then
    redis.call('HSET', job, 'idem', idem, 'answered_ttl_ms', answered_ttl_ms)
    redis.call('SET', idem, fingerprint .. ' ' .. id, 'PX', ttl_ms)
    redis.call('SET', KEYS[10], id, 'PX', retention_ms)
end
if lane_name == 'held' then
    redis.call('XREADGROUP', 'GROUP', 'nodes', consumer, 'COUNT', 1, 'STREAMS', lane, '>')
end
return {'created', id, entry}
"""
"""Accepts an order, or names the job that stands for its key. Of a failed job nothing was written, so its key may come
with another body: the caller has mended the order. Every entry of lane HELD is claimed by the call that adds it, so the
one new entry there is always its own."""

_IS_OPEN = """
local function is_open(job)
    local state = redis.call('HGET', job, 'state')
    return state == 'queued' or state == 'running'
end
"""

BEGIN = (
    _IS_OPEN
    + """
local job, stream = KEYS[1], KEYS[2]
local entry, now = ARGV[1], ARGV[2]
if not is_open(job) then
    redis.call('XACK', stream, 'nodes', entry)
    redis.call('XDEL', stream, entry)
    return false
end
redis.call('HSET', job, 'state', 'running', 'started_at', now)
redis.call('HINCRBY', job, 'attempts', 1)
return redis.call('HGETALL', job)
"""
)
"""Counts a try; what is final or gone only loses its entry."""

PUT_BACK = """
if redis.call('HGET', KEYS[1], 'state') ~= 'running' then return 0 end
redis.call('HSET', KEYS[1], 'state', 'queued')
redis.call('HINCRBY', KEYS[1], 'attempts', ARGV[1])
return 1
"""

FINISH = (
    _IS_OPEN
    + """
local job, expiry, finished, held, queued = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id, state, answer, now, dead_reason = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local now_ms, retention_ms, frees_key = ARGV[6], ARGV[7], ARGV[8]
if not is_open(job) then return false end
redis.call('HSET', job, 'state', state, 'answer', answer, 'finished_at', now)
if dead_reason ~= '' then redis.call('HSET', job, 'dead_reason', dead_reason) end
local place = redis.call('HMGET', job, 'lane', 'entry', 'idem')
local lane = place[1] == 'held' and held or queued
redis.call('XACK', lane, 'nodes', place[2])
redis.call('XDEL', lane, place[2])
redis.call('XADD', finished, '*', 'id', id)
redis.call('PEXPIRE', job, retention_ms)
redis.call('ZADD', expiry, now_ms + retention_ms, id)
if frees_key == '1' and place[3] then
    local known = redis.call('GET', place[3])
    if known and string.sub(known, -#id) == id then redis.call('DEL', place[3]) end
end
return redis.call('HGETALL', job)
"""
)
"""The one result of a job; a second one is refused."""

RENEW = (
    _IS_OPEN
    + """
local job, stream = KEYS[1], KEYS[2]
local entry, consumer = ARGV[1], ARGV[2]
if not is_open(job) then return 0 end
local holder = redis.call('XPENDING', stream, 'nodes', entry, entry, 1)
if #holder == 0 or holder[1][2] ~= consumer then return 0 end
redis.call('XCLAIM', stream, 'nodes', consumer, 0, entry, 'JUSTID')
return 1
"""
)
"""Keeps a claim fresh; 0 when the job is final or gone, or another node has taken it over."""

ANSWERED = """
local place = redis.call('HMGET', KEYS[1], 'idem', 'answered_ttl_ms')
local idem, ttl_ms = place[1], tonumber(place[2] or '')
local known = idem and ttl_ms and redis.call('GET', idem)
if not known or string.sub(known, -#ARGV[1]) ~= ARGV[1] then return 0 end
if redis.call('PTTL', idem) > ttl_ms then redis.call('PEXPIRE', idem, ttl_ms) end
return 1
"""
"""Shortens the life of the key that stands for a job, where its call asked for that."""
