// The worker that this architecture usually begins with: pop an event, update its document, repeat.

import { createClient } from 'redis';
import { EVENTS, QUEUE, REDIS_URL, change, documents, done, ready } from './common.js';

const redis = await createClient({ url: REDIS_URL }).connect();
const collection = await documents();
await ready();
for (let left = Number(EVENTS); left > 0; left--) {
  const { element } = await redis.blPop(QUEUE, 0);
  const [filter, update] = change(JSON.parse(element));
  await collection.updateOne(filter, update, { upsert: true });
}
done();
