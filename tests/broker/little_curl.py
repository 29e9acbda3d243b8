"""As much of curl as the examples of docs/http-api.md use, for machines without it."""

import argparse
import sys
import urllib.error
import urllib.parse
import urllib.request


def main() -> int:
    """Prints the answer's body, whatever its status, as curl does."""
    parser = argparse.ArgumentParser(prog="curl")
    parser.add_argument("-s", action="store_true")
    parser.add_argument("-G", action="store_true", dest="in_url")
    parser.add_argument("-H", action="append", default=[], dest="headers")
    parser.add_argument("-d", dest="body")
    parser.add_argument("--data-urlencode", action="append", default=[], dest="pairs")
    parser.add_argument("url")
    asked = parser.parse_args()
    query = urllib.parse.urlencode(dict(pair.split("=", 1) for pair in asked.pairs))
    url = f"{asked.url}?{query}" if asked.in_url else asked.url
    body = asked.body.encode() if asked.body is not None else None
    headers = dict(header.split(": ", 1) for header in asked.headers)
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=20)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        sys.stdout.buffer.write(answer.read())
    return 0


if __name__ == "__main__":
    sys.exit(main())
