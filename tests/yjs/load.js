// Loads a document from its updates, an array of base64 texts on standard input; prints what it sees.
import * as Y from 'yjs'
import { readFileSync } from 'node:fs'

const doc = new Y.Doc()
const [text, meta] = [doc.getText('text'), doc.getMap('meta')]
for (const update of JSON.parse(readFileSync(0, 'utf8'))) Y.applyUpdate(doc, Buffer.from(update, 'base64'))
console.log(JSON.stringify([text.toDelta(), Object.entries(meta.toJSON()).sort()]))
