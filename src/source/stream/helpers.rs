//! Holds what the Lua scripts for streams have in common.

/// What scripts have in common: the group's `XINFO`, the stream's, whether it is another, how many entries are behind
/// the group's position, and acknowledging entries, or a range of them. How that is done is what [`Acknowledge`](super::script::Acknowledge) says.
macro_rules! with_helpers {
    ($script:literal) => {
        concat!(
            r"
local function group(queue, name)
  for _, fields in ipairs(redis.pcall('XINFO', 'GROUPS', queue)) do
    local g = {}
    for i = 1, #fields, 2 do g[fields[i]] = fields[i + 1] end
    if g['name'] == name then return g end
  end
end
local function info(queue)
  local fields, s = redis.pcall('XINFO', 'STREAM', queue), {}
  for i = 1, #fields, 2 do s[fields[i]] = fields[i + 1] end
  return s
end
local function less(a, b)
  local function padded(id)
    local ms, seq = string.match(id, '^(%d+)-(%d+)$')
    return ms and string.rep('0', 20 - #ms) .. ms .. string.rep('0', 20 - #seq) .. seq or ''
  end
  return padded(a) < padded(b)
end
local function digest(entry) return redis.sha1hex(table.concat(entry[2], '\0')) end
-- What is told of the stream: how many entries were added and removed, the last id, and the first entry's with its digest.
local function recall(known)
  local pattern = '^(%S+) (%S+) (%S+) ?(%S*) ?(%S*)$'
  local added, removed, last, id, sha1 = string.match(redis.call('HGET', known, 'seen') or '', pattern)
  return tonumber(added), tonumber(removed), last, id, sha1
end
-- Keeps what is told of the stream. A full Redis may refuse that.
local function remember(queue, known)
  local s = info(queue)
  if not s['entries-added'] then return end
  local first, _, _, _, id, sha1 = s['first-entry'], recall(known)
  local seen = s['entries-added'] .. ' ' .. s['entries-added'] - s['length'] .. ' ' .. s['last-generated-id']
  if first then seen = seen .. ' ' .. first[1] .. ' ' .. (first[1] == id and sha1 or digest(first)) end
  if redis.call('HGET', known, 'seen') ~= seen then redis.pcall('HSET', known, 'seen', seen) end
end
-- Whether another stream is in the queue's place: only such a one has lost the group, or has it somewhere else. But a group
-- may also be moved, or destroyed. In one stream, ids and counts never go back, and the first entry stays until it is removed.
local function is_another(queue, known, g)
  local position = redis.call('HGET', known, 'position')
  if not position or g and g['last-delivered-id'] == position then return false end
  local s = info(queue)
  local now = s['last-generated-id'] or '0-0'
  if less(now, position) then return true end
  local added, removed, last, id, sha1 = recall(known)
  if not added or not s['entries-added'] then return false end
  local gone, first = s['entries-added'] - s['length'], s['first-entry']
  if less(now, last) or s['entries-added'] < added or gone < removed then return true end
  -- What is added to an empty one comes behind its last.
  if id == '' then return first and not less(last, first[1]) or false end
  if first and first[1] == id then return digest(first) ~= sha1 end
  return gone == removed or first and less(first[1], id) or false
end
-- Entries behind the position, pending ones, and all that were ever added, if that is known. Redis does not tell
-- the first where an entry behind the position was deleted.
local function depth(queue, g)
  if not g then return 0, 0, -1 end
  local read, lag = g['entries-read'], g['lag']
  if not lag then
    local s = info(queue)
    lag = read and math.max(0, s['entries-added'] - read) or s['length'] or 0
  end
  return lag, g['pending'], read and read + lag or -1
end
local function acknowledge_ids(queue, name, ids, how)
  if how == 'XACKDEL' then
    redis.call('XACKDEL', queue, name, 'IDS', #ids, unpack(ids))
    return
  end
  redis.call('XACK', queue, name, unpack(ids))
  if how == 'XDEL' then redis.call('XDEL', queue, unpack(ids)) end
end
local function acknowledge(queue, name, from, to, how, consumer)
  local pending
  repeat
    if consumer then
      pending = redis.call('XPENDING', queue, name, from, to, 500, consumer)
    else
      pending = redis.call('XPENDING', queue, name, from, to, 500)
    end
    local ids = {}
    for i, entry in ipairs(pending) do ids[i] = entry[1] end
    if #ids > 0 then acknowledge_ids(queue, name, ids, how) end
  until #pending < 500
end
",
            $script
        )
    };
}

pub(super) use with_helpers;
