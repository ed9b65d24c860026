//! Runs the scripts that keep hot states fresh. What `source::script` says of scripts holds for these, too.

use redis::{RedisResult, Script};

use super::error::SourceError;
use super::lease::Lease;
use super::lua::whole;
use super::script;
use crate::hot_state::{Program, Refreshed, StateKeys};

/// Has fillers that may have read their documents before a write begin anew, and deletes the hashes that cannot be kept.
/// Answers for each document 0 where there is no hash, 1 where there is one, and 2 where there was.
///
/// KEYS owner, and of each document its hash and its token · ARGV epoch ttl-ms, and for each document 1 if it is to go
const LOOK: &str = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return { -1 } end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local found = {}
for i = 2, #KEYS, 2 do
  local n = i / 2
  local state, fill = KEYS[i], KEYS[i + 1]
  redis.call('DEL', fill)
  if ARGV[2 + n] == '1' then
    found[n] = 2 * redis.call('UNLINK', state)
  else
    found[n] = redis.call('EXISTS', state)
  end
end
return found";

/// Applies writes to the hashes that are there. What cannot be applied deletes its hash: what `refresh` returns nothing
/// for. Answers for each document 0 where there is no hash, 1 where the write was applied, 2 where it deleted the hash
/// and 3 where the hash had it already.
///
/// The field `_tidegate` says that the hash has no watermark of another queue; in a document it is an object, so no hash
/// that was just filled has it. Where it is missing, all fields are looked at, once.
///
/// A hash never has both a leaf and something below it. So where a leaf is at the very path of a write, nothing is above
/// or below, and it is all that has to be looked at.
///
/// A watermark from `beyond` on is of another numbering, and does not say what the hash has.
///
/// KEYS owner hash... · ARGV epoch ttl-ms watermark-field beyond. And for each hash: the offsets that it must not and must have
/// reached, its ttl in ms, the number of arguments, and those; see `Program`.
const APPLY: &str = r"
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return { -1 } end
local own, beyond = ARGV[3], ARGV[4]

local function padded(offset) return string.rep('0', 19 - #offset) .. offset end
local function starts(text, start) return string.sub(text, 1, #start) == start end
-- The path above a path, up to a dot behind `from`, and where that dot is.
local function above(path, from)
  local dot = string.find(path, '.', from, true)
  if dot then return string.sub(path, 1, dot - 1), dot + 1 end
end

local function refresh(state, first, last, ttl, at, stop)
  -- Others wait while its fields are looked at.
  if redis.call('HLEN', state) > 10000 then return end
  -- Other queues, and whether it has the write.
  local fields
  local function all()
    if not fields then
      fields = {}
      for _, field in ipairs(redis.call('HKEYS', state)) do fields[field] = true end
    end
    return fields
  end
  if redis.call('HGET', state, '_tidegate') ~= own then
    for field in pairs(all()) do
      if field == '_tidegateDeleted' or field ~= own and starts(field, '_tidegate.') then return end
    end
  end
  local reached = redis.call('HGET', state, own)
  if reached then
    if not string.find(reached, '^%d+$') or #reached > 19 then return end
    reached = padded(reached)
    if beyond ~= '' and reached >= padded(beyond) then return end
    if reached >= padded(last) then return 3 end
    if reached >= padded(first) then return end
  end

  local left = redis.call('PTTL', state)
  if left < 0 or left > ttl then left = ttl end
  local function set(field, value)
    redis.call('HSET', state, field, value)
    if fields then fields[field] = true end
  end
  local function remove(field)
    redis.call('HDEL', state, field)
    if fields then fields[field] = nil end
  end
  -- First, so that the hash never becomes empty, which would end it.
  set(own, last)
  set('_tidegate', own)

  local function below(path)
    local found = {}
    for field in pairs(all()) do
      if starts(field, path .. '.') then found[#found + 1] = field end
    end
    return found
  end
  -- Whether there can be something at a path that is none of the leaves. An empty object above it is a leaf no more.
  local function open(path)
    local up, from = above(path, 1)
    while up do
      local leaf = redis.call('HGET', state, up)
      if leaf == '{}' then remove(up) elseif leaf then return false end
      up, from = above(path, from)
    end
    return true
  end
  local function take()
    at = at + 1
    return ARGV[at - 1]
  end
  local function leaves()
    for _ = 1, tonumber(take()) do
      local path = take()
      set(path, take())
    end
  end

  while at < stop do
    local op = take()
    if op == 'S' then
      local path = take()
      if redis.call('HEXISTS', state, path) == 1 then
        -- Unless it is overwritten.
        if ARGV[at] ~= '1' or ARGV[at + 1] ~= path then remove(path) end
      else
        if not open(path) then return end
        for _, field in ipairs(below(path)) do remove(field) end
      end
      leaves()
    elseif op == 'U' then
      local path = take()
      local gone = redis.call('HEXISTS', state, path) == 1
      if gone then
        remove(path)
      else
        local up, from = above(path, 1)
        while up do
          local leaf = redis.call('HGET', state, up)
          if leaf and leaf ~= '{}' then return end
          up, from = above(path, from)
        end
        for _, field in ipairs(below(path)) do
          gone = true
          remove(field)
        end
      end
      local parent = string.match(path, '^(.*)%.[^.]*$')
      if gone and parent and #below(parent) == 0 then set(parent, '{}') end
    elseif op == 'I' then
      local path, by = take(), take()
      if redis.call('HEXISTS', state, path) == 1 then
        local sum = redis.pcall('HINCRBY', state, path, by)
        if type(sum) == 'table' then return end
      else
        if not open(path) or #below(path) > 0 then return end
        set(path, by)
      end
    elseif op == 'M' then
      local path = take()
      local leaf = redis.call('HGET', state, path)
      if leaf then
        -- An object that is kept as one leaf is one already, and cannot be looked into.
        if leaf ~= '{}' and starts(leaf, '{') then return end
        set(path, '{}')
      else
        if not open(path) then return end
        if #below(path) == 0 then set(path, '{}') end
      end
    elseif op == 'P' then
      local path, elements = take(), take()
      local array = redis.call('HGET', state, path)
      if array then
        if not string.find(array, '^%[.*%]$') then return end
        if string.find(array, '^%[%s*%]$') then
          set(path, '[' .. elements .. ']')
        elseif elements ~= '' then
          set(path, string.sub(array, 1, -2) .. ',' .. elements .. ']')
        end
      else
        if not open(path) or #below(path) > 0 then return end
        set(path, '[' .. elements .. ']')
      end
    elseif op == 'R' then
      redis.call('UNLINK', state)
      fields = {}
      set(own, last)
      set('_tidegate', own)
      leaves()
    else
      return
    end
  end
  redis.call('PEXPIRE', state, left)
  return 1
end

whole()
redis.call('PEXPIRE', KEYS[1], ARGV[2])
local outcomes, at = {}, 5
for i = 2, #KEYS do
  local state, stop = KEYS[i], at + 4 + tonumber(ARGV[at + 3])
  local kind = redis.call('TYPE', state)['ok']
  local outcome = 0
  if kind ~= 'none' then
    outcome = kind == 'hash' and refresh(state, ARGV[at], ARGV[at + 1], tonumber(ARGV[at + 2]), at + 4, stop)
    if not outcome then
      redis.call('UNLINK', state)
      outcome = 2
    end
  end
  outcomes[i - 1] = outcome
  at = stop
end
return outcomes";

/// The scripts.
#[derive(Debug)]
pub(super) struct HotStateScripts {
    look: Script,
    apply: Script,
}

impl HotStateScripts {
    pub(super) fn new() -> Self {
        HotStateScripts { look: Script::new(LOOK), apply: Script::new(&whole(APPLY)) }
    }
}

/// Whether there is a hot state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looked {
    /// There is none.
    Absent,
    /// There is one.
    There,
    /// There was one.
    Deleted,
}

/// A write to apply to a hot state.
#[derive(Debug)]
pub(crate) struct Refresh<'a> {
    /// Its key.
    pub(crate) key: &'a str,
    /// It must not have reached this offset.
    pub(crate) first: i64,
    /// It has reached this one then.
    pub(crate) last: i64,
    /// How long it lives at most.
    pub(crate) ttl_ms: u64,
    /// What to do. None: delete it.
    pub(crate) program: Option<Program>,
}

impl Lease {
    /// Has those begin anew who are about to fill hot states, and deletes those of which the second says so. Answers
    /// what there is of each.
    pub(crate) async fn look_at_hot_states(
        &self,
        states: &[(&StateKeys, bool)],
    ) -> Result<Vec<Looked>, SourceError> {
        let mut call = self.hot_states().look.prepare_invoke();
        call.key(&self.keys().owner).arg(self.args());
        for (keys, delete) in states {
            call.key(&keys.state).key(&keys.fill).arg(u8::from(*delete));
        }
        let found = answers(call.invoke_async(&mut self.connection()).await, states.len())?;
        let look = |found| match found {
            0 => Looked::Absent,
            2 => Looked::Deleted,
            _ => Looked::There,
        };
        Ok(found.into_iter().map(look).collect())
    }

    /// Applies writes to the hot states that are there, those of one document in order. `watermark` is the field of the
    /// queue's own; those from `beyond` on are of another numbering. Answers what became of each; nothing where there is none.
    pub(crate) async fn refresh_hot_states(
        &self,
        (watermark, beyond): (&str, Option<i64>),
        states: &[Refresh<'_>],
    ) -> Result<Vec<Option<Refreshed>>, SourceError> {
        let mut call = self.hot_states().apply.prepare_invoke();
        call.key(&self.keys().owner).arg(self.args()).arg(watermark);
        call.arg(beyond.map(|beyond| beyond.to_string()).unwrap_or_default());
        for state in states {
            call.key(state.key).arg(state.first).arg(state.last).arg(state.ttl_ms);
            match &state.program {
                Some(program) => call.arg(program.args().len()).arg(program.args()),
                // No operation has that name.
                None => call.arg(1).arg("-"),
            };
        }
        let outcomes = answers(call.invoke_async(&mut self.connection()).await, states.len())?;
        let outcome = |outcome| match outcome {
            1 => Some(Refreshed::Applied),
            2 => Some(Refreshed::Deleted),
            3 => Some(Refreshed::Skipped),
            _ => None,
        };
        Ok(outcomes.into_iter().map(outcome).collect())
    }
}

/// One answer for each document.
fn answers(answer: RedisResult<Vec<i64>>, documents: usize) -> Result<Vec<i64>, SourceError> {
    let answers = answer?;
    match answers.first() {
        Some(&script::FENCED) => Err(SourceError::Fenced),
        _ if answers.len() != documents => Err(SourceError::Lost("a script's answer is no answer".into())),
        _ => Ok(answers),
    }
}
