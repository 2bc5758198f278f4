"""Reads a message of kvsync, of format 1, and prints what it tells as one line of JSON.

usage: read_message.py CONTENT_TYPE FILE

A message in JSON needs nothing but Python; one in MessagePack needs the package msgpack. A consumer in another
language does the same: the map of both forms has the same names.
"""

import base64
import json
import sys


def read(content_type, data):
    if content_type.endswith("+json"):
        message = json.loads(data)
        version = bytes.fromhex(message["version"])
        body = None if message["body"] is None else base64.b64decode(message["body"])
    else:
        import msgpack

        message = msgpack.unpackb(data)
        version, body = message["version"], message["body"]
    if message["kvsync"] != 1:
        raise ValueError(f"the format {message['kvsync']} is not known here")
    row = message.get("row")
    if row is None and body is not None and message["codec"] == 0:
        import msgpack

        row = msgpack.unpackb(body)
    return {
        "action": message["action"],
        "table": message["table"],
        "primary_key": message["primary_key"],
        # The higher one is the newer one, also as text.
        "version": version.hex(),
        "state": message["state"],
        "keys": [key["key"] for key in message["keys"]],
        "gone": [key["key"] for key in message["gone"]],
        "row": row,
    }


if __name__ == "__main__":
    with open(sys.argv[2], "rb") as file:
        print(json.dumps(read(sys.argv[1], file.read()), sort_keys=True))
