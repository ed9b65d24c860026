// npm install && node produce.mjs QUEUE
import { createClient } from "redis";

const [queue] = process.argv.slice(2);
const redis = await createClient({ url: process.env.REDIS_URL ?? "redis://127.0.0.1:6379" }).connect();
for (const title of ["Draft", "Hello"]) {
  const update = { $set: { title }, $inc: { edits: 1 } };
  const waiting = await redis.rPush(queue, JSON.stringify({ collection: "notes", id: "n1", update }));
  console.log(`accepted; ${waiting} in the queue`);
}
await redis.close();
