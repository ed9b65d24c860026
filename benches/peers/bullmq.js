// BullMQ: jobs in place of a list, and a worker as its guide shows it under "Concurrency", with jobs removed as under
// "Auto-removal of jobs". Fifty jobs at a time are its example, and do not keep the order of a document's events.

import { Queue, Worker } from 'bullmq';
import Redis from 'ioredis';
import { EVENTS, QUEUE, REDIS_URL, change, documents, done, ready } from './common.js';

const connection = new Redis(REDIS_URL, { maxRetriesPerRequest: null });
const name = 'bench';
const queue = new Queue(name, { connection });
for (let first = 0; first < Number(EVENTS); first += 1000) {
  const events = await connection.lrange(QUEUE, first, first + 999);
  await queue.addBulk(events.map((event) => ({ name: 'event', data: JSON.parse(event) })));
}
const collection = await documents();
const worker = new Worker(
  name,
  async (job) => {
    const [filter, update] = change(job.data);
    await collection.updateOne(filter, update, { upsert: true });
  },
  { connection, concurrency: 50, autorun: false, removeOnComplete: { count: 1000 }, removeOnFail: { count: 5000 } },
);
let left = Number(EVENTS);
worker.on('completed', () => {
  left -= 1;
  if (left === 0) done();
});
worker.on('failed', (job, error) => {
  console.error(error);
  process.exit(1);
});
await worker.waitUntilReady();
await ready();
await worker.run();
