# pip install -r requirements.txt && python3 produce.py QUEUE
import json, os, sys
import redis

client = redis.Redis.from_url(os.environ.get("REDIS_URL", "redis://127.0.0.1:6379"))
for title in ["Draft", "Hello"]:
    update = {"$set": {"title": title}, "$inc": {"edits": 1}}
    event = json.dumps({"collection": "notes", "id": "n1", "update": update})
    waiting = client.rpush(sys.argv[1], event)
    print(f"accepted; {waiting} in the queue")
