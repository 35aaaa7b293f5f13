# The handler of the conformance suite: it does what the item's "do" says.
import collections, json, os, signal, sys, time

out = sys.__stdout__
sys.stdout = sys.stderr
frames = collections.deque()  # read while something else was waited for


def send(**f):
    out.write(json.dumps(f) + "\n")
    out.flush()


def read():
    line = sys.stdin.readline()
    return json.loads(line) if line else {"t": "stop"}


def wait_for(t, id):
    while True:
        f = read()
        if f["t"] == t and f.get("id") == id:
            return f
        frames.append(f)
        if f["t"] == "stop":
            return f


def run(f):
    id = f["id"]
    for cmd in f["item"]["do"].split(";"):
        w = cmd.split()
        if w[0] == "try":
            if f["attempt"] != int(w[1]):
                continue
            w = w[2:]
        if w[0] == "row":
            send(t="row", id=id, row={"key": f["key"], "n": int(w[1])})
        elif w[0] == "cursor":
            send(t="row", id=id, row={"key": f["key"], "n": int(f.get("cursor", "0"))})
        elif w[0] == "ok":
            send(t="ok", id=id)
        elif w[0] == "err":
            e = {"t": "err", "id": id, "class": w[1], "msg": "as told"}
            if len(w) > 2 and w[2] != "-":
                e["retry"] = w[2] == "retry"
            if len(w) > 3:
                e["after_ms"] = int(w[3])
            if len(w) > 4:
                e["status"] = int(w[4])
            send(**e)
            return
        elif w[0] == "need":
            send(t="need", id=id, rate=w[1], key=w[2], n=int(w[3]))
            g = wait_for("grant", id)
            send(t="row", id=id, row={"key": f["key"], "n": g["n"]})
        elif w[0] == "back":
            send(t="back", id=id, remaining=0, reset_ms=2000)
        elif w[0] == "beat":
            send(t="beat", id=id, done=int(w[1]), of=int(w[2]))
        elif w[0] == "mark":
            send(t="mark", id=id, cursor=w[1])
        elif w[0] == "metric":
            send(t="metric", id=id, name=w[2], **{w[1]: int(w[3])})
        elif w[0] == "log":
            print("log of", f["key"], w[1])
        elif w[0] == "crash":
            sys.stderr.write("about to die\n")
            sys.stderr.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        elif w[0] == "hang":
            wait_for("cancel", id)
            send(**{"t": "err", "id": id, "class": "cancelled", "msg": "as asked"})
            return
        elif w[0] == "stuck":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            send(t="beat", id=id, done=int(w[1]), of=int(w[2]))
            while True:
                signal.pause()


while True:
    f = frames.popleft() if frames else read()
    if f["t"] == "hello":
        send(t="ready", proto=1, name="conform.py")
    elif f["t"] == "list":
        for n in range(f.get("n", 3)):
            send(t="record", id=f["id"], item={"word": "l%d" % n, "params": 1})
        send(t="ok", id=f["id"])
    elif f["t"] == "item":
        run(f)
    elif f["t"] == "stop":
        break
send(t="bye")
