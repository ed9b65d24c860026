//! Holds the Lua scripts that change dead letters for a person. Each checks that the caller holds them.

/// What scripts have in common that take letters out of their list. It is looked first whether all are where they were.
///
/// KEYS queue dead-list dead-owner
macro_rules! taking {
    ($push:literal) => {
        concat!(
            r"
if redis.call('GET', KEYS[3]) ~= ARGV[1] then return -1 end
local at, letters, last = 3, 0, 0
while at <= #ARGV do
  local letter = redis.call('LINDEX', KEYS[2], ARGV[at])
  if not letter or redis.sha1hex(letter) ~= ARGV[at + 1] then return -2 end
  letters, last = letters + 1, math.max(last, tonumber(ARGV[at]))
  at = at + 3 + ARGV[at + 2]
end
whole()
redis.call('PEXPIRE', KEYS[3], ARGV[2])
at = 3
while at <= #ARGV do
  local words = tonumber(ARGV[at + 2])
",
            $push,
            r"
  if last >= letters then redis.call('LSET', KEYS[2], ARGV[at], 'taken') end
  at = at + 3 + words
end
if last < letters then
  redis.call('LTRIM', KEYS[2], letters, -1)
else
  redis.call('LREM', KEYS[2], 0, 'taken')
end
return 1"
        )
    };
}

/// Takes letters out of their list, if they are where they were, and drops them. Each is named by its place and its
/// SHA-1, and has no words.
///
/// KEYS queue dead-list dead-owner · ARGV token ttl-ms place sha1 words...
pub(super) const DROP: &str = taking!("");

/// The same, and appends the event of each, which is its word, to the list.
///
/// KEYS queue dead-list dead-owner · ARGV token ttl-ms place sha1 words word...
pub(super) const REPLAY: &str = taking!("  redis.call('RPUSH', KEYS[1], ARGV[at + 3])");

/// The same, and adds an entry of its words to the stream.
///
/// KEYS queue dead-list dead-owner · ARGV token ttl-ms place sha1 words word...
pub(super) const REPLAY_ENTRY: &str =
    taking!("  redis.call('XADD', KEYS[1], '*', unpack(ARGV, at + 3, at + 2 + words))");

/// What scripts have in common that put back what MongoDB keeps. It is noted first: MongoDB is told afterwards.
///
/// KEYS queue dead-taken dead-owner
macro_rules! returning {
    ($push:literal) => {
        concat!(
            r"
if redis.call('GET', KEYS[3]) ~= ARGV[1] then return -1 end
whole()
redis.call('PEXPIRE', KEYS[3], ARGV[2])
local at = 3
while at <= #ARGV do
  local words = tonumber(ARGV[at + 1])
  redis.call('HSET', KEYS[2], ARGV[at], '')
",
            $push,
            r"
  at = at + 2 + words
end
return 1"
        )
    };
}

/// Appends events of letters that MongoDB keeps to the list.
///
/// KEYS queue dead-taken dead-owner · ARGV token ttl-ms letter words word...
pub(super) const RETURN: &str = returning!("  redis.call('RPUSH', KEYS[1], ARGV[at + 2])");

/// The same for the stream, each as an entry of its words.
///
/// KEYS queue dead-taken dead-owner · ARGV token ttl-ms letter words word...
pub(super) const RETURN_ENTRY: &str =
    returning!("  redis.call('XADD', KEYS[1], '*', unpack(ARGV, at + 2, at + 1 + words))");

/// Forgets that events were put back, which MongoDB knows by now. KEYS dead-taken dead-owner · ARGV token
pub(super) const KNOWN: &str = r"
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return -1 end
return redis.call('DEL', KEYS[1])";

/// Appends letters to their list.
///
/// KEYS dead-list dead-owner · ARGV token ttl-ms letter...
pub(super) const IMPORT: &str = r"
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return -1 end
redis.call('PEXPIRE', KEYS[2], ARGV[2])
for i = 3, #ARGV do redis.call('RPUSH', KEYS[1], ARGV[i]) end
return 1";

/// Holds on to the letters. KEYS dead-owner · ARGV token ttl-ms
pub(super) const KEEP: &str = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])";

/// Lets them go. KEYS dead-owner · ARGV token
pub(super) const LET_GO: &str = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return -1 end
return redis.call('DEL', KEYS[1])";
