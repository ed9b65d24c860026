//! Holds the Lua scripts. Each checks that the caller still owns the queue before it does anything.
//!
//! A Redis that has reached `maxmemory` refuses what may take memory, and a queue grows to there while MongoDB is away.
//! It must be possible to drain it. A script is refused nothing once it has written, so each begins with a write that
//! frees memory or takes none. For most that is extending the lease.
//!
//! A command that is refused undoes nothing of what a script has written before it. So a script that writes more than
//! once either may be cut short anywhere, or says `whole()` first (`lua.rs`). These texts, and the `KEYS` in the
//! comments on them, tell which rights are needed (`rights.rs`).
//!
//! Offsets pass 2^53 and numbers in Redis' Lua are doubles. So the client computes offsets, and scripts take and
//! compare them as strings. Where a script must add to one, it is passed in two halves.

/// Answers of the fenced scripts.
pub(super) const FENCED: i64 = -1;
/// Renumberings that are kept: a number older than these means nothing any more.
pub(super) const RENUMBERED_KEPT: usize = 1000;
/// Offsets of dead letters that are kept.
pub(super) const REFUSED_KEPT: usize = 1000;

/// An offset as it is kept in a sorted set: texts sort as the numbers do, which doubles would not keep apart.
pub(super) fn padded(offset: i64) -> String {
    format!("{offset:019}")
}

/// An element is not the one that was there.
pub(super) const FOREIGN: i64 = -2;

/// Takes a queue over, if nobody else owns it or has paused it, and its state is still what the caller saw.
///
/// Answers -2 where elements that were read are gone or moved, so that numbers given out mean nothing any more. Then
/// the second value is where the former head is now: its index, -1 if it is not among the first, -2 if it is not known.
///
/// KEYS queue owner base read head identity paused · ARGV epoch ttl-ms previous-epoch base read read-minus-base
/// identity former-id former-epoch id
pub(super) const TAKE: &str = r"
local owner = redis.call('GET', KEYS[2])
if owner and owner ~= ARGV[3] then return { -1, 0 } end
if redis.call('EXISTS', KEYS[7]) == 1 then return { -1, 0 } end
if (redis.call('GET', KEYS[3]) or '') ~= ARGV[4] then return { -1, 0 } end
if (redis.call('GET', KEYS[4]) or '') ~= ARGV[5] then return { -1, 0 } end
for i, field in ipairs({ 'identity', 'id', 'epoch' }) do
  if (redis.call('HGET', KEYS[6], field) or '') ~= ARGV[6 + i] then return { -1, 0 } end
end
local head, marks = string.gsub(redis.call('GET', KEYS[5]) or '', '^!+', '')
local moved, place = marks > 0 or redis.call('LLEN', KEYS[1]) < tonumber(ARGV[6]), -2
if head ~= '' then
  local first = redis.call('LINDEX', KEYS[1], 0)
  moved = moved or not first or redis.sha1hex(first) ~= head
  local total, element = 0, first
  for i = 0, moved and 999 or -1 do
    element = total <= 1048576 and redis.call('LINDEX', KEYS[1], i)
    place = element and redis.sha1hex(element) == head and i or -1
    if not element or place >= 0 then break end
    total = total + #element
  end
end
whole()
redis.call('DEL', KEYS[2])
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
redis.call('HDEL', KEYS[6], 'new')
redis.call('HSET', KEYS[6], 'id', ARGV[10], 'epoch', ARGV[1])
return { moved and -2 or 1, place }";

/// Checks that the caller owns the queue, and that the head is the element that was there. Sets `read` to the end of
/// the elements that the `LRANGE` before it answered, if it answered any.
///
/// Answers the length of the list, and how large elements behind the window are: the bytes of the largest one looked
/// at. It looks at every `stride`th from a random one on and at the last, until it has looked at 1 MiB.
///
/// `read` must be exact. Once Redis has lost data, an offset that was never given out may belong to another event than
/// the one applied under it. So no more is asked for than is known to be there.
///
/// KEYS queue owner base read head · ARGV epoch ttl-ms base elements-needed read stride first-sample last-sample
pub(super) const READ: &str = r"
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return { -1, 0 } end
if redis.call('GET', KEYS[3]) ~= ARGV[3] then return { -1, 0 } end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
local length = redis.call('LLEN', KEYS[1])
local head = redis.call('GET', KEYS[5])
if length < tonumber(ARGV[4]) then
  redis.call('SET', KEYS[5], '!' .. (head or ''))
  return { -2, 0 }
end
local first = redis.call('LINDEX', KEYS[1], 0)
if head and head ~= '' then
  if not first or redis.sha1hex(first) ~= head then
    redis.call('SET', KEYS[5], '!' .. head)
    return { -2, 0 }
  end
elseif first then
  redis.call('SET', KEYS[5], redis.sha1hex(first))
end
if ARGV[5] ~= '' then redis.call('SET', KEYS[4], ARGV[5]) end
local largest, total, last = 0, 0, math.min(tonumber(ARGV[8]), length - 1)
local function look(i)
  local bytes = total <= 1048576 and #redis.call('LINDEX', KEYS[1], i) or 0
  largest, total = math.max(largest, bytes), total + bytes
end
if last >= tonumber(ARGV[4]) then look(last) end
for i = tonumber(ARGV[7]), last, tonumber(ARGV[6]) do look(i) end
return { length, largest }";

/// Remembers that elements are not where they were, for the next takeover.
///
/// KEYS owner head · ARGV epoch ttl-ms
pub(super) const MARK: &str = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.call('SET', KEYS[2], '!' .. (redis.call('GET', KEYS[2]) or ''))
return 1";

/// Trims what is settled and moves its dead letters to their list. Compares the last element it would
/// trim with the one that was read: if they differ, trimming would lose events that were never read.
///
/// KEYS queue owner base head dead dead-list refused · ARGV epoch ttl-ms base new-base count sha1 kept offset...
pub(super) const COMMIT: &str = r"
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return -1 end
if redis.call('GET', KEYS[3]) ~= ARGV[3] then return -1 end
local last = redis.call('LINDEX', KEYS[1], tonumber(ARGV[5]) - 1)
local is_there = last and redis.sha1hex(last) == ARGV[6]
whole()
redis.call('PEXPIRE', KEYS[2], ARGV[2])
if not is_there then
  redis.call('SET', KEYS[4], '!' .. (redis.call('GET', KEYS[4]) or ''))
  return -2
end
for i = 8, #ARGV do
  local letter = redis.call('HGET', KEYS[5], ARGV[i])
  if letter then
    redis.call('RPUSH', KEYS[6], letter)
    redis.call('HDEL', KEYS[5], ARGV[i])
  end
  redis.call('ZADD', KEYS[7], 0, string.rep('0', 19 - #ARGV[i]) .. ARGV[i])
end
if #ARGV > 7 then redis.call('ZREMRANGEBYRANK', KEYS[7], 0, -1 - ARGV[7]) end
redis.call('LTRIM', KEYS[1], ARGV[5], -1)
redis.call('SET', KEYS[3], ARGV[4])
local first = redis.call('LINDEX', KEYS[1], 0)
redis.call('SET', KEYS[4], first and redis.sha1hex(first) or '')
return redis.call('LLEN', KEYS[1])";

/// Gives every element a new number: base and read become the epoch's first offset. Dead letters not yet
/// committed lose their offsets' meaning, so they are moved to their list; parked events keep their numbers, and so do
/// the dead letters of these. What became of how many numbers is put on record, for those who ask by an old one; `to` is
/// the new base, or nothing where elements are not where they were.
///
/// KEYS queue owner base read head dead dead-list renumbered parked · ARGV epoch ttl-ms base new-base from to kept
pub(super) const RENUMBER: &str = r"
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return -1 end
if (redis.call('GET', KEYS[3]) or '') ~= ARGV[3] then return -1 end
local count = redis.call('LLEN', KEYS[1])
whole()
redis.call('PEXPIRE', KEYS[2], ARGV[2])
for _, offset in ipairs(redis.call('HKEYS', KEYS[6])) do
  if redis.call('HEXISTS', KEYS[9], offset) == 0 then
    redis.call('RPUSH', KEYS[7], redis.call('HGET', KEYS[6], offset))
    redis.call('HDEL', KEYS[6], offset)
  end
end
redis.call('RPUSH', KEYS[8], ARGV[5] .. ' ' .. ARGV[6] .. ' ' .. count)
redis.call('LTRIM', KEYS[8], -ARGV[7], -1)
redis.call('SET', KEYS[3], ARGV[4])
redis.call('SET', KEYS[4], ARGV[4])
local first = redis.call('LINDEX', KEYS[1], 0)
redis.call('SET', KEYS[5], first and redis.sha1hex(first) or '')
return 1";

/// Records dead letters until they are committed.
///
/// KEYS owner dead · ARGV epoch ttl-ms offset letter offset letter ...
pub(super) const BURY: &str = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
for i = 3, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
return 1";

/// Parks events that MongoDB does not take now, so that the queue can go on without them.
///
/// KEYS owner parked · ARGV epoch ttl-ms offset event offset event ...
pub(super) const PARK: &str = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
for i = 3, #ARGV, 2 do redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1]) end
return 1";

/// Forgets parked events that are settled. The first `dead` of them are dead letters that the queue has gone on
/// without: these are moved to their list. Those that are still in the queue are moved when that is committed.
///
/// KEYS owner parked dead dead-list refused · ARGV epoch ttl-ms kept dead offset ...
pub(super) const UNPARK: &str = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
whole()
redis.call('PEXPIRE', KEYS[1], ARGV[2])
for i = 5, #ARGV do
  if i < 5 + ARGV[4] then
    local letter = redis.call('HGET', KEYS[3], ARGV[i])
    if letter then
      redis.call('RPUSH', KEYS[4], letter)
      redis.call('HDEL', KEYS[3], ARGV[i])
    end
    redis.call('ZADD', KEYS[5], 0, string.rep('0', 19 - #ARGV[i]) .. ARGV[i])
    redis.call('ZREMRANGEBYRANK', KEYS[5], 0, -1 - ARGV[3])
  end
  redis.call('HDEL', KEYS[2], ARGV[i])
end
return 1";

/// Extends the lease, and looks how many elements there are, and dead letters in their list.
///
/// KEYS queue owner dead-list · ARGV epoch ttl-ms
pub(super) const LOOK: &str = r"
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return { -1, 0 } end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
return { redis.call('LLEN', KEYS[1]), redis.call('LLEN', KEYS[3]) }";

/// Looks for the mark of a process that worked on what is unsettled, and takes that process for dead. The caller's own
/// mark does not count. Nor does a process count that is still heard of; it may count later, since a dead process is
/// heard of for a while.
///
/// Answers three values, all since the base was put where it is. First, how many processes died. Second, where the part
/// ends that the last of them worked on, if it worked on a part. Third, how many died over that part while it was a
/// single event.
///
/// KEYS owner base tries instances · ARGV epoch ttl-ms process
pub(super) const TRIES: &str = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return { -1, '', 0 } end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local base = redis.call('GET', KEYS[2]) or ''
if redis.call('HGET', KEYS[3], 'base') ~= base then
  redis.call('DEL', KEYS[3])
  redis.call('HSET', KEYS[3], 'base', base)
end
local worker = redis.call('HGET', KEYS[3], 'worker')
if worker then
  local part = redis.call('HGET', KEYS[3], 'works-to') or ''
  if worker ~= ARGV[3] and #redis.call('HKEYS', KEYS[3]) < 100 then
    local alone = redis.call('HGET', KEYS[3], 'works-alone') == '1'
    redis.call('HSET', KEYS[3], 'died:' .. worker, alone and part or '')
    if part ~= '' then redis.call('HSET', KEYS[3], 'suspect', part) end
  end
  redis.call('HDEL', KEYS[3], 'worker', 'works-to', 'works-alone')
end
local time, heard = redis.call('TIME'), {}
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local instances = redis.call('ZRANGE', KEYS[4], 0, -1, 'WITHSCORES')
for i = 1, #instances, 2 do
  if tonumber(instances[i + 1]) > now then heard['died:' .. instances[i]] = true end
end
local suspect = redis.call('HGET', KEYS[3], 'suspect') or ''
local died, alone = 0, 0
for _, field in ipairs(redis.call('HKEYS', KEYS[3])) do
  if string.sub(field, 1, 5) == 'died:' and not heard[field] then
    died = died + 1
    if suspect ~= '' and redis.call('HGET', KEYS[3], field) == suspect then alone = alone + 1 end
  end
end
return { died, suspect, alone }";

/// Marks that the caller works on what is unsettled: on all of it, or on the elements from base to `part` alone.
///
/// KEYS owner base tries · ARGV epoch ttl-ms process part alone
pub(super) const WORK: &str = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local base = redis.call('GET', KEYS[2]) or ''
if redis.call('HGET', KEYS[3], 'base') ~= base then redis.call('DEL', KEYS[3]) end
redis.call('HSET', KEYS[3], 'base', base, 'worker', ARGV[3], 'works-to', ARGV[4], 'works-alone', ARGV[5])
return 1";

/// Says that a process lives and works on nothing of the queue: its mark goes, and what was taken for its death. This
/// is about the caller alone, so it is fenced by its name.
///
/// KEYS tries · ARGV process
pub(super) const LIVES: &str = r"
if redis.call('HGET', KEYS[1], 'worker') == ARGV[1] then
  redis.call('HDEL', KEYS[1], 'worker', 'works-to', 'works-alone')
end
redis.call('HDEL', KEYS[1], 'died:' .. ARGV[1])
return 1";

/// Makes a dead letter of the element at base, which never leaves Redis: it may be what kills its readers.
///
/// KEYS queue owner base head dead-list tries refused · ARGV epoch ttl-ms base new-base rest-of-letter offset kept
pub(super) const SET_ASIDE: &str = r#"
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return -1 end
if redis.call('GET', KEYS[3]) ~= ARGV[3] then return -1 end
local element = redis.call('LINDEX', KEYS[1], 0)
if not element then return -2 end
whole()
redis.call('PEXPIRE', KEYS[2], ARGV[2])
redis.call('RPUSH', KEYS[5], '{"event_text":' .. cjson.encode(element) .. ',' .. ARGV[5])
redis.call('LTRIM', KEYS[1], 1, -1)
redis.call('SET', KEYS[3], ARGV[4])
local first = redis.call('LINDEX', KEYS[1], 0)
redis.call('SET', KEYS[4], first and redis.sha1hex(first) or '')
redis.call('DEL', KEYS[6])
redis.call('ZADD', KEYS[7], 0, ARGV[6])
redis.call('ZREMRANGEBYRANK', KEYS[7], 0, -1 - ARGV[7])
return 1"#;

/// Gives the queue up. KEYS owner · ARGV epoch
pub(super) const RELEASE: &str = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
redis.call('DEL', KEYS[1])
return 1";
