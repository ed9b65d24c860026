// Two clients type into one document at once. Prints an event for each update, and at last what both see.
// Usage: node type.js EDITS SEED
import * as Y from 'yjs'

const [edits, seed] = process.argv.slice(2).map(Number)

// Numbers that a seed repeats (mulberry32).
let state = seed
const random = (below) => {
  state = (state + 0x6d2b79f5) | 0
  let t = Math.imul(state ^ (state >>> 15), 1 | state)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) % below
}

const clients = ['ann', 'bob'].map((name, n) => {
  const doc = new Y.Doc()
  doc.clientID = 100 + n
  const inbox = []
  return { name, doc, inbox, text: doc.getText('text'), meta: doc.getMap('meta') }
})
for (const client of clients) {
  client.doc.on('update', (update, origin) => {
    if (origin === 'remote') return
    const encoded = Buffer.from(update).toString('base64')
    console.log(JSON.stringify({ type: 'TYPED', page: 'p1', by: client.name, update: encoded }))
    for (const other of clients) if (other !== client) other.inbox.push(update)
  })
}

for (let n = 0; n < edits; n++) {
  const client = clients[random(2)]
  // What the other has typed arrives late, and several keystrokes at a time.
  while (client.inbox.length > 0 && random(4) > 0) Y.applyUpdate(client.doc, client.inbox.shift(), 'remote')
  const { doc, text, meta } = client
  const at = random(text.length + 1)
  switch (random(10)) {
    case 0:
      text.delete(at, Math.min(3, text.length - at))
      break
    case 1:
      text.format(Math.max(0, at - 4), Math.min(4, at), { bold: random(2) === 0 })
      break
    case 2:
      meta.set(`k${random(4)}`, { n, words: ['ü', '𝄞', null, 0.5], by: client.name })
      break
    default:
      doc.transact(() => text.insert(at, ['a', 'bc ', 'dé', '☃', '\n'][random(5)]))
  }
}
for (const client of clients) {
  for (const update of client.inbox) Y.applyUpdate(client.doc, update, 'remote')
}
const seen = clients.map(({ text, meta }) => JSON.stringify([text.toDelta(), Object.entries(meta.toJSON()).sort()]))
if (seen[0] !== seen[1]) throw new Error('the clients differ')
console.log(JSON.stringify({ seen: JSON.parse(seen[0]) }))
