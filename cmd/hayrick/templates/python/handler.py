# A handler of hayrick-handler/1: a JSON object a line on stdin and stdout.
# Change count(); the rest is the protocol.
import json, sys
out = sys.__stdout__; sys.stdout = sys.stderr        # prints become logs, never frames


def count(item):
    """One item in, its output rows out."""
    words = item["text"].split()
    return [{"id": item["id"], "words": len(words), "longest": max(words, key=len, default=None)}]


def send(**f):
    out.write(json.dumps(f) + "\n"); out.flush()


for line in sys.stdin:
    f = json.loads(line)
    if f["t"] == "hello":
        send(t="ready", proto=1, name="words")
    elif f["t"] == "item":
        try:
            for row in count(f["item"]):
                send(t="row", id=f["id"], row=row)
            send(t="ok", id=f["id"])
        except KeyError as e:
            print("no", e, "in", f["key"])
            send(t="err", id=f["id"], retry=False, **{"class": "no_text"}, msg="no " + str(e))
    elif f["t"] == "stop":
        break
send(t="bye")
