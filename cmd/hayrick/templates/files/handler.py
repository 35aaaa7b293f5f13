# A handler of hayrick-handler/1: a JSON object a line on stdin and stdout.
# Change look(); the rest is the protocol.
import hashlib, json, sys, urllib.parse
out = sys.__stdout__; sys.stdout = sys.stderr        # prints become logs, never frames


def look(item):
    """One file in, its output rows out."""
    path = urllib.parse.unquote(item["uri"].removeprefix("file://")) if item["uri"].startswith("file://") else item["uri"]
    lines, sha = 0, hashlib.sha256()
    with open(path, "rb") as f:
        for block in iter(lambda: f.read(1 << 20), b""):
            lines += block.count(b"\n")
            sha.update(block)
    return [{"name": item["name"], "bytes": item["size"], "lines": lines, "sha256": sha.hexdigest()}]


def send(**f):
    out.write(json.dumps(f) + "\n"); out.flush()


for line in sys.stdin:
    f = json.loads(line)
    if f["t"] == "hello":
        send(t="ready", proto=1, name="files")
    elif f["t"] == "item":
        try:
            for row in look(f["item"]):
                send(t="row", id=f["id"], row=row)
            send(t="ok", id=f["id"])
        except FileNotFoundError as e:
            send(t="err", id=f["id"], retry=False, **{"class": "gone"}, msg=str(e))
        except OSError as e:
            send(t="err", id=f["id"], retry=True, **{"class": "io"}, msg=str(e))
    elif f["t"] == "stop":
        break
send(t="bye")
