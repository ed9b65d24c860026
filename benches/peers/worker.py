"""The worker batched by hand, in Python: pop up to a thousand events, write them in bulk and in order, repeat."""

import json
import os
import sys

import redis
from pymongo import MongoClient, UpdateOne

environment = os.environ
queue, left = environment["QUEUE"], int(environment["EVENTS"])
connection = redis.Redis.from_url(environment["REDIS_URL"])
client = MongoClient(environment["MONGODB_URI"])
collection = client[environment["DATABASE"]][environment["COLLECTION"]]
connection.ping()
client.admin.command("ping")

print("ready", flush=True)
sys.stdin.readline()
while left > 0:
    elements = connection.lpop(queue, 1000)
    writes = []
    for element in elements:
        payload = json.loads(element)["payload"]
        update = {"$set": {"text": payload["text"], "updatedBy": payload["userId"]}, "$inc": {"edits": 1}}
        writes.append(UpdateOne({"_id": payload["docId"]}, update, upsert=True))
    collection.bulk_write(writes, ordered=True)
    left -= len(elements)
print("done", flush=True)
