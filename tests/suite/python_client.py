"""What a program in Python does with etcd, by the package etcd3gw: each line says what came back."""

import sys
import threading

import etcd3gw

host, port = sys.argv[1].rsplit(":", 1)
client = etcd3gw.Etcd3Client(host=host, port=int(port), timeout=30)


def say(*what):
    print(*what, flush=True)


say("members", len(client.members()))
say("put", client.put("/py/a", "one"), client.put("/py/b", b"two\x00\xff"))
say("get", client.get("/py/a"), client.get("/py/b"), client.get("/py/none"))
value, kv = client.get("/py/a", metadata=True)[0]
say("metadata", value, kv["key"], int(kv["mod_revision"]) - int(kv["create_revision"]), kv["version"])
say("prefix", [value for value, _ in client.get_prefix("/py/", sort_order="descend", sort_target="key")])
say("create", client.create("/py/c", "three"), client.create("/py/c", "again"))
say("replace", client.replace("/py/c", "three", "four"), client.replace("/py/c", "three", "five"))
say("delete", client.delete("/py/c"), client.delete("/py/c"), client.get("/py/c"))

lease = client.lease(ttl=60)
client.put("/py/leased", "soon gone", lease=lease)
say("lease", 55 <= lease.ttl() <= 60, lease.keys(), lease.refresh())
say("revoked", lease.revoke(), client.get("/py/leased"))

lock = client.lock("py", ttl=60)
say("lock", lock.acquire(), lock.is_acquired(), client.lock("py", ttl=60).acquire())
say("unlock", lock.release(), lock.is_acquired())

events, cancel = client.watch("/py/w")
writer = threading.Thread(target=lambda: [client.put("/py/w", str(n)) for n in range(3)])
writer.start()
for _, event in zip(range(3), events):
    say("event", event["kv"]["key"], event["kv"]["value"], event["kv"]["version"])
writer.join()
cancel()

try:
    client.transaction({"success": [{"request_put": {"key": "", "value": "eA=="}}]})
except etcd3gw.exceptions.Etcd3Exception as error:
    say("refused", "key is not provided" in error.detail_text)
say("left", client.delete_prefix("/py/"), client.get_prefix("/py/"))
