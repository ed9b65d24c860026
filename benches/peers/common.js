// What the Node workers share: connections, and the conversation with the benchmark. It is told "ready" when all is
// connected, says "go", and is told "done" when as many events as were asked for are in MongoDB.

import { once } from 'node:events';
import { MongoClient } from 'mongodb';

export const { QUEUE, EVENTS, REDIS_URL, MONGODB_URI, DATABASE, COLLECTION } = process.env;

export async function documents() {
  const mongo = await MongoClient.connect(MONGODB_URI);
  return mongo.db(DATABASE).collection(COLLECTION);
}

export async function ready() {
  console.log('ready');
  await once(process.stdin, 'data');
}

export function done() {
  console.log('done');
  process.exit(0);
}

/// What every worker makes of an event: filter and update.
export function change(event) {
  const { docId, text, userId } = event.payload;
  return [{ _id: docId }, { $set: { text, updatedBy: userId }, $inc: { edits: 1 } }];
}
