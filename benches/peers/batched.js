// The same, batched by hand: pop up to a thousand events, write them in bulk and in order, repeat.

import { createClient } from 'redis';
import { EVENTS, QUEUE, REDIS_URL, change, documents, done, ready } from './common.js';

const redis = await createClient({ url: REDIS_URL }).connect();
const collection = await documents();
await ready();
for (let left = Number(EVENTS); left > 0; ) {
  const elements = await redis.lPopCount(QUEUE, 1000);
  const writes = elements.map((element) => {
    const [filter, update] = change(JSON.parse(element));
    return { updateOne: { filter, update, upsert: true } };
  });
  await collection.bulkWrite(writes, { ordered: true });
  left -= elements.length;
}
done();
