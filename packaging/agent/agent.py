#!/usr/bin/env python3
"""A local agent in Python: tells margay the routes of a file, `PREFIX INTERFACE` a line; first all of them, then what changes.
Usage: agent.py NAME FILE [SOCKET]"""
import http.client, json, select, socket, sys, time

NAME, FILE, SOCKET = (sys.argv[1:] + ["/run/margay/margay.sock"])[:3]

def table():
    return dict(line.split()[:2] for line in open(FILE) if len(line.split()) > 1)

def converse(margay):
    margay.sock = socket.socket(socket.AF_UNIX)
    margay.sock.connect(SOCKET)
    margay.putrequest("POST", f"/v1/agents/{NAME}")
    margay.putheader("Transfer-Encoding", "chunked")
    margay.endheaders()
    answers, told, words = margay.getresponse(), {}, [{"word": "begin"}]
    while True:
        old, told = told, table()
        words += [{"word": "upsert", "prefix": prefix, "dev": dev} for prefix, dev in told.items() if old.get(prefix) != dev]
        words += [{"word": "remove", "prefix": prefix} for prefix in old if prefix not in told]
        if words:
            text = "".join(json.dumps(word) + "\n" for word in words + [{"word": "end"}]).encode()
            margay.send(b"%x\r\n%s\r\n" % (len(text), text))  # a chunk of the request's body
        words = []
        while select.select([margay.sock], [], [], 0.5)[0]:
            line = answers.readline().decode()  # {"answer":"end",…}, or an error that names the line
            if not line:
                return  # margay is gone: come back, tell everything
            print(line, end="", flush=True)

while True:
    try:
        converse(http.client.HTTPConnection("margay"))
    except (OSError, http.client.HTTPException) as error:
        print(error, file=sys.stderr)
    time.sleep(1)
