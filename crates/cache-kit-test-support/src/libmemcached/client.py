"""A libmemcached client for a test: a request a line, an answer a line, keys and values in hex."""

import sys

import pylibmc


class Raw(pylibmc.Client):
    """Whatever the flags say, a value is the bytes that are stored."""

    def deserialize(self, value, flags):
        return value


def answer(command, key, value=b""):
    if command == "set":
        return "yes" if client.set(key, value) else "no"
    if command == "delete":
        return "yes" if client.delete(key) else "no"
    found = client.get(key)
    return "no" if found is None else "yes " + found.hex()


client = Raw(sys.argv[2:], behaviors={sys.argv[1]: True})
for line in sys.stdin:
    command, *fields = line.rstrip("\n").split(" ")
    try:
        reply = answer(command, *map(bytes.fromhex, fields))
    except pylibmc.Error as error:
        reply = "error " + repr(error)
    print(reply, flush=True)
