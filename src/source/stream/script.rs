//! Holds the Lua scripts for streams. What `source::script` says of those for lists holds for these, too.
//!
//! Ids are never computed here. The hash `stream` holds:
//!
//! - `position`: the id at which tidegate put the group;
//! - `adopted`: the id at which it found the group, and behind which it has read everything itself;
//! - `epoch`: the last ownership's;
//! - `reader`: the epoch of the ownership that read what is unsettled;
//! - `fetched`: an id, and how many entries behind it were asked for last. They may kill whoever is answered, before
//!   any of them is used;
//! - `generation`: how many streams there were in the key's place, one after another;
//! - `seen`: what is known of the present stream. That is how many entries were added and removed, its last id, and its
//!   first entry's id with a digest.

use super::helpers::with_helpers;

/// How entries are acknowledged that were pending: whether they stay in the stream. What tidegate reads itself is never
/// pending, and trimmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acknowledge {
    /// They stay.
    Keep,
    /// They are deleted.
    Delete,
    /// They are deleted, in one step.
    DeleteAtOnce,
}

impl Acknowledge {
    /// The script's word for it.
    pub(super) const fn how(self) -> &'static str {
        match self {
            Acknowledge::Keep => "XACK",
            Acknowledge::Delete => "XDEL",
            Acknowledge::DeleteAtOnce => "XACKDEL",
        }
    }
}

/// The consumer in whose name pending entries are held.
pub(super) const CONSUMER: &str = "tidegate";

/// Tells of a queue that is not the caller's.
///
/// KEYS queue owner base read stream paused · ARGV group
pub(super) const STATE: &str = with_helpers!(
    r"
local length = redis.call('XLEN', KEYS[1])
local g = group(KEYS[1], ARGV[1])
local lag, pending = depth(KEYS[1], g)
return {
  redis.call('GET', KEYS[2]) or '', redis.call('GET', KEYS[3]) or '', redis.call('GET', KEYS[4]) or '',
  g and g['last-delivered-id'] or '',
  redis.call('HGET', KEYS[5], 'epoch') or '0', redis.call('HGET', KEYS[5], 'reader') or '0',
  g and lag + pending or length,
  redis.call('GET', KEYS[6]),
}"
);

/// What scripts answer where another stream is in the place of the one that was taken over.
pub(in crate::source) const ANOTHER: &str = "ANOTHERSTREAM";

/// Takes a queue over, if nobody else owns it or has paused it, and its state is still what the caller saw. Makes the group where there
/// is none. Where it was moved, puts it back.
///
/// Another stream in the place of the former is begun with, as the first one was. Dead letters of the former are moved
/// to their list, since their offsets mean nothing any more. Its parked events get numbers below all that the new one
/// can have. Else what is new would pass for applied behind them.
///
/// Answers, in this order:
///
/// - 1 if the group was moved, 2 if it is another stream;
/// - where the group is, and where it was found at first;
/// - base and read;
/// - the number of entries read, if it is known, and of those pending;
/// - the last of the entries fetched last;
/// - the stream's generation.
///
/// KEYS queue owner base read stream identity dead dead-list parked paused · ARGV epoch ttl-ms previous-epoch base read group
/// position first-base first-position identity former-id former-epoch id least-generation
pub(super) const TAKE: &str = with_helpers!(
    r"
local none = { -1, 0, '', '', '', '', -1, 0, '', 0 }
local function is_less(a, b)
  local is_negative = string.sub(a, 1, 1) == '-'
  if is_negative ~= (string.sub(b, 1, 1) == '-') then return is_negative end
  if is_negative then a, b = b, a end
  return #a < #b or (#a == #b and a < b)
end
local owner = redis.call('GET', KEYS[2])
if owner and owner ~= ARGV[3] then return none end
if redis.call('EXISTS', KEYS[10]) == 1 then return none end
if (redis.call('GET', KEYS[3]) or '') ~= ARGV[4] then return none end
if (redis.call('GET', KEYS[4]) or '') ~= ARGV[5] then return none end
local g = group(KEYS[1], ARGV[6])
if (g and g['last-delivered-id'] or '') ~= ARGV[7] then return none end
for i, field in ipairs({ 'identity', 'id', 'epoch' }) do
  if (redis.call('HGET', KEYS[6], field) or '') ~= ARGV[9 + i] then return none end
end
whole()
redis.call('DEL', KEYS[2])
redis.call('SET', KEYS[2], ARGV[1], 'PX', ARGV[2])
redis.call('HDEL', KEYS[6], 'new')
redis.call('HSET', KEYS[6], 'id', ARGV[13], 'epoch', ARGV[1])
local moved = 0
local position = ARGV[4] ~= '' and redis.call('HGET', KEYS[5], 'position')
local generation = math.max(tonumber(redis.call('HGET', KEYS[5], 'generation') or 1), tonumber(ARGV[14]))
local another = position and is_another(KEYS[1], KEYS[5], g)
if another then
  generation = generation + 1
  for _, offset in ipairs(redis.call('HKEYS', KEYS[7])) do
    redis.call('RPUSH', KEYS[8], redis.call('HGET', KEYS[7], offset))
    if redis.call('HEXISTS', KEYS[9], offset) == 1 then redis.call('HDEL', KEYS[9], offset) end
  end
  redis.call('DEL', KEYS[7])
  local offsets, parked = redis.call('HKEYS', KEYS[9]), {}
  table.sort(offsets, is_less)
  for i, offset in ipairs(offsets) do parked[i] = redis.call('HGET', KEYS[9], offset) end
  redis.call('DEL', KEYS[9])
  for i, event in ipairs(parked) do redis.call('HSET', KEYS[9], tostring(i - #parked - 1), event) end
  redis.call('HDEL', KEYS[5], 'fetched', 'seen')
end
redis.call('HSET', KEYS[5], 'generation', generation)
if another or not position then
  moved = another and 2 or 0
  position = ARGV[9]
  if not g then
    local s = info(KEYS[1])
    local trimmed = s['entries-added'] and s['entries-added'] - s['length'] or 0
    redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[6], position, 'MKSTREAM', 'ENTRIESREAD', trimmed)
  end
  redis.call('HSET', KEYS[5], 'position', position, 'adopted', position)
  redis.call('SET', KEYS[3], ARGV[8])
  redis.call('SET', KEYS[4], ARGV[8])
elseif not g then
  moved = 1
  redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[6], position, 'MKSTREAM')
elseif g['last-delivered-id'] ~= position then
  moved = 1
  redis.call('XGROUP', 'SETID', KEYS[1], ARGV[6], position)
end
remember(KEYS[1], KEYS[5])
redis.call('HSET', KEYS[5], 'epoch', ARGV[1])
local base, read = redis.call('GET', KEYS[3]), redis.call('GET', KEYS[4])
if base == read then redis.call('HSET', KEYS[5], 'reader', ARGV[1]) end
g = group(KEYS[1], ARGV[6])
local past, count = string.match(redis.call('HGET', KEYS[5], 'fetched') or '', '^(%S+) (%d+)$')
local fetched, left = '', tonumber(count) or 0
while left > 0 do
  -- Only ids matter, but entries come whole, and may be large by now: so a few at a time.
  local some = redis.call('XRANGE', KEYS[1], '(' .. past, '+', 'COUNT', math.min(left, 16))
  left = #some == 16 and left - 16 or 0
  for _, entry in ipairs(some) do
    local ms, seq = string.match(entry[1], '^(%d+)-(%d+)$')
    -- Those that do not fit, and what is behind, were not to be used at once.
    if tonumber(ms) >= 2 ^ 43 or tonumber(seq) >= 2 ^ 20 then
      left = 0
      break
    end
    fetched, past = entry[1], entry[1]
  end
end
return {
  1, moved, position, redis.call('HGET', KEYS[5], 'adopted') or position, base, read,
  g['entries-read'] or -1, g['pending'], fetched, generation,
}"
);

/// Claims pending entries up to `adopted`. Those of other consumers are late once tidegate has read what is behind.
/// Answers the last one looked at, those claimed, and those that are late.
///
/// KEYS queue owner · ARGV epoch ttl-ms group from adopted has-read consumer
pub(super) const CLAIM: &str = r"
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return { -1, '', {}, {} } end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
local last, claimed, late = '', {}, {}
for _, entry in ipairs(redis.call('XPENDING', KEYS[1], ARGV[3], ARGV[4], ARGV[5], 1000)) do
  last = entry[1]
  if ARGV[6] == '1' and entry[2] ~= ARGV[7] then
    late[#late + 1] = last
  else
    claimed[#claimed + 1] = last
  end
end
if #claimed > 0 then
  -- Those that no longer exist leave the pending list.
  claimed[#claimed + 1] = 'JUSTID'
  claimed = redis.call('XCLAIM', KEYS[1], ARGV[3], ARGV[7], 0, unpack(claimed))
end
return { 1, last, claimed, late }";

/// Acknowledges a pending entry that never takes effect, and keeps its dead letter.
///
/// KEYS queue owner dead-list · ARGV epoch ttl-ms group how id letter...
pub(super) const REFUSE: &str = with_helpers!(
    r"
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return -1 end
whole()
redis.call('PEXPIRE', KEYS[2], ARGV[2])
acknowledge_ids(KEYS[1], ARGV[3], { ARGV[5] }, ARGV[4])
for i = 6, #ARGV do redis.call('RPUSH', KEYS[3], ARGV[i]) end
return 1"
);

/// Checks that the caller owns the queue. Sets `read` to the end of a window that the caller is about to use.
///
/// Answers how many entries are behind the group's position, how many are pending, and how many were ever added. Then
/// how large entries are: the bytes of the largest at or behind the ids given, looking at no more than 1 MiB of them.
///
/// Unlike a list's, `read` is known before the script is sent: the window is used only when the next one is fetched.
///
/// KEYS queue owner read stream · ARGV epoch ttl-ms group read fetched id...
pub(super) const READ: &str = with_helpers!(
    r"
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return { -1, 0, 0, 0, -1 } end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
local g = group(KEYS[1], ARGV[3])
if is_another(KEYS[1], KEYS[4], g) then return redis.error_reply('ANOTHERSTREAM is in the place') end
if ARGV[4] ~= '' then
  redis.call('SET', KEYS[3], ARGV[4])
  redis.call('HSET', KEYS[4], 'reader', ARGV[1])
end
if ARGV[5] ~= '' then redis.call('HSET', KEYS[4], 'fetched', ARGV[5]) end
-- What is read of a stream that was empty is known before it is committed: else another could not be told from it.
local _, _, _, id = recall(KEYS[4])
if not id or id == '' then remember(KEYS[1], KEYS[4]) end
local largest, total = 0, 0
for i = 6, #ARGV do
  local entry = redis.call('XRANGE', KEYS[1], ARGV[i], '+', 'COUNT', 1)[1]
  if not entry or total > 1048576 then break end
  local bytes = 0
  for _, text in ipairs(entry[2]) do bytes = bytes + #text end
  largest, total = math.max(largest, bytes), total + bytes
end
return { 1, largest, depth(KEYS[1], g) }"
);

/// Puts the group behind what is settled, moves its dead letters to their list, and trims. With no position, what is
/// settled was pending: it is acknowledged up to `to`, as `trim` says then. Answers whether the group was not where it
/// was put.
///
/// KEYS queue owner base stream dead dead-list tries · ARGV epoch ttl-ms base new-base group position entries-read
/// to consumer trim bound offsets offset... letter...
pub(super) const COMMIT: &str = with_helpers!(
    r"
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return { -1, 0, 0, 0, -1 } end
if redis.call('GET', KEYS[3]) ~= ARGV[3] then return { -1, 0, 0, 0, -1 } end
whole()
redis.call('PEXPIRE', KEYS[2], ARGV[2])
local g = group(KEYS[1], ARGV[5])
local is_moved = not g or g['last-delivered-id'] ~= redis.call('HGET', KEYS[4], 'position')
-- A stream that has never had what was read of it is another.
local is_short = is_moved and ARGV[6] ~= '' and less(info(KEYS[1])['last-generated-id'] or '0-0', ARGV[6])
if is_short or is_another(KEYS[1], KEYS[4], g) then return redis.error_reply('ANOTHERSTREAM is in the place') end
local offsets = tonumber(ARGV[12])
for i = 13, 12 + offsets do
  local letter = redis.call('HGET', KEYS[5], ARGV[i])
  if letter then
    redis.call('RPUSH', KEYS[6], letter)
    redis.call('HDEL', KEYS[5], ARGV[i])
  end
end
for i = 13 + offsets, #ARGV do redis.call('RPUSH', KEYS[6], ARGV[i]) end
local queue, name, position, moved = KEYS[1], ARGV[5], ARGV[6], 0
if position == '' then
  if g then acknowledge(queue, name, '-', ARGV[8], ARGV[10], ARGV[9]) end
  redis.call('DEL', KEYS[7])
else
  if not g then
    moved = 1
    redis.call('XGROUP', 'CREATE', queue, name, position, 'MKSTREAM', 'ENTRIESREAD', ARGV[7])
  else
    if g['last-delivered-id'] ~= redis.call('HGET', KEYS[4], 'position') then moved = 1 end
    redis.call('XGROUP', 'SETID', queue, name, position, 'ENTRIESREAD', ARGV[7])
    -- Only another consumer can have put something there.
    if g['pending'] > 0 then
      acknowledge(queue, name, '(' .. redis.call('HGET', KEYS[4], 'adopted'), position, 'XACK')
    end
  end
  redis.call('HSET', KEYS[4], 'position', position)
  redis.call('SET', KEYS[3], ARGV[4])
  if ARGV[10] == 'minid' then
    redis.call('XTRIM', queue, 'MINID', ARGV[11])
  elseif ARGV[10] == 'maxlen' then
    local lag = group(queue, name)['lag']
    if lag then redis.call('XTRIM', queue, 'MAXLEN', '~', math.max(lag, tonumber(ARGV[11]))) end
  end
  remember(queue, KEYS[4])
end
return { 1, moved, depth(queue, group(queue, name)) }"
);

/// Extends the lease, and looks at the queue. Where everything is settled, as many entries must have been read as were added. If not, some
/// were removed unread, or the number was not known. Answers that, and the first entry behind `from`.
///
/// KEYS queue owner stream dead-list · ARGV epoch ttl-ms group from
pub(super) const LOOK: &str = with_helpers!(
    r"
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return { -1, 0, 0, 0, -1, 0, 0, '' } end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
local g = group(KEYS[1], ARGV[3])
local removed = 0
if is_another(KEYS[1], KEYS[3], g) then return redis.error_reply('ANOTHERSTREAM is in the place') end
remember(KEYS[1], KEYS[3])
if g then
  local s, last = info(KEYS[1]), g['last-delivered-id']
  if s['last-generated-id'] == last and redis.call('HGET', KEYS[3], 'position') == last
    and s['entries-added'] ~= g['entries-read'] then
    if g['entries-read'] then removed = math.max(0, s['entries-added'] - g['entries-read']) end
    redis.call('XGROUP', 'SETID', KEYS[1], ARGV[3], last, 'ENTRIESREAD', s['entries-added'])
    g = group(KEYS[1], ARGV[3])
  end
end
local lag, pending, added = depth(KEYS[1], g)
local oldest = redis.call('XRANGE', KEYS[1], ARGV[4], '+', 'COUNT', 1)[1]
return {
  1, lag, pending, added, g and g['entries-read'] or -1, removed,
  redis.call('LLEN', KEYS[4]), oldest and oldest[1] or '',
}"
);

/// The id of the n-th entry of a range, or of the n-th that is pending there.
///
/// KEYS queue owner · ARGV epoch ttl-ms group from to count consumer
pub(super) const NTH: &str = r"
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return { -1, '' } end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
local entries
if ARGV[7] ~= '' then
  entries = redis.call('XPENDING', KEYS[1], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7])
else
  entries = redis.call('XRANGE', KEYS[1], ARGV[4], ARGV[5], 'COUNT', ARGV[6])
end
local last = entries[#entries]
return { 1, last and last[1] or '' }";

/// Makes a dead letter of an entry, which never leaves Redis: it may be what kills its readers. With no new base, it
/// is pending, and acknowledged.
///
/// KEYS queue owner base stream dead-list tries · ARGV epoch ttl-ms base new-base group id entries-read field
/// rest-of-letter how
pub(super) const SET_ASIDE: &str = with_helpers!(
    r#"
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return -1 end
if redis.call('GET', KEYS[3]) ~= ARGV[3] then return -1 end
local entry = redis.call('XRANGE', KEYS[1], ARGV[6], ARGV[6])[1]
if not entry then return -2 end
whole()
redis.call('PEXPIRE', KEYS[2], ARGV[2])
local fields = entry[2]
local text = nil
for i = 1, #fields, 2 do
  if ARGV[8] ~= '' and fields[i] == ARGV[8] then text = text or fields[i + 1] end
end
text = text or table.concat(fields, ' ')
redis.call('RPUSH', KEYS[5], '{"event_text":' .. cjson.encode(text) .. ',' .. ARGV[9])
if ARGV[4] == '' then
  acknowledge_ids(KEYS[1], ARGV[5], { ARGV[6] }, ARGV[10])
else
  redis.call('XGROUP', 'SETID', KEYS[1], ARGV[5], ARGV[6], 'ENTRIESREAD', ARGV[7])
  redis.call('HSET', KEYS[4], 'position', ARGV[6])
  redis.call('SET', KEYS[3], ARGV[4])
end
redis.call('DEL', KEYS[6])
return 1"#
);
