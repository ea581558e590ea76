"""Servers on loopback that speak the protocols of the archives and can misbehave on demand."""

import hashlib
import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class Server(ThreadingHTTPServer):
    """A server on a free port of this machine; `address` is its URL."""

    daemon_threads = True

    def __init__(self, handler):
        super().__init__(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.lock = threading.Lock()

    def handle_error(self, request, client_address):
        """A client that hangs up is part of the tests."""


@contextmanager
def serving(server):
    """The server, answering until the block ends."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer_json(self, status, values):
        self.answer(status, json.dumps(values).encode(), Content_Type="application/json")


class DataNode(Server):
    """A THREDDS file server: ranges, and faults by path.

    `faults[path]` is a list of names, one for each request to come: ``"busy"`` (503 with
    Retry-After), ``"cut"`` (the connection ends in the middle), ``"slow"`` (no answer within
    `patience`), ``"page"`` (an HTML page with status 200), ``"no range"`` (the whole file,
    whatever was asked), ``"gone"`` (404), ``"chunked"`` and ``"chunked page"`` (in pieces,
    without a length), ``"endless"`` (without a length, 20 MB more than the file has).
    """

    def __init__(self, *, patience=2.0, retry_after="1"):
        super().__init__(_DataHandler)
        self.files, self.faults, self.served = {}, {}, {}
        self.requests, self.times = [], []
        self.patience, self.retry_after = patience, retry_after
        self.now, self.most = 0, 0  # requests at once

    def put(self, path, content):
        """Offer a file; returns its URL."""
        self.files[path] = content
        return f"{self.address}/{path}"


class _DataHandler(_Handler):
    def do_GET(self):
        node = self.server
        path = self.path.lstrip("/")
        with node.lock:
            node.requests.append((path, self.headers.get("Range"), self.headers.get("If-Range")))
            node.times.append(time.monotonic())
            node.now += 1
            node.most = max(node.most, node.now)
            faults = node.faults.get(path, [])
            fault = faults.pop(0) if faults else None
        try:
            self._serve(node, path, fault)
        finally:
            with node.lock:
                node.now -= 1

    def _serve(self, node, path, fault):
        if fault == "busy":
            return self.answer(503, Retry_After=node.retry_after)
        if fault == "page":
            return self.answer(200, b"<html>maintenance</html>", Content_Type="text/html")
        if fault == "gone" or path not in node.files:
            return self.answer(404)
        if fault == "slow":
            time.sleep(node.patience)
            self.close_connection = True
            return None
        content = node.files[path]
        tag = f'"{hashlib.md5(content).hexdigest()}"'
        first, status = 0, 200
        asked = self.headers.get("Range")
        same = self.headers.get("If-Range", tag) == tag
        if asked and same and fault not in ("no range", "chunked page"):
            first, status = int(asked.removeprefix("bytes=").rstrip("-")), 206
        rest = content[first:]
        self.send_response(status)
        self.send_header("ETag", tag)
        if status == 206:
            last = len(content) - 1
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        if fault in ("chunked", "chunked page"):
            if fault == "chunked page":
                self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Transfer-Encoding", "chunked")
            rest = b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest)
        elif fault == "endless":
            rest += bytes(20_000_000)
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if fault == "cut":
            rest = rest[: len(rest) // 2]
            self.close_connection = True
        with node.lock:
            node.served[path] = node.served.get(path, 0) + len(rest)
        self.wfile.write(rest)
        return None


class IndexNode(Server):
    """The search service of ESGF over `records`, in pages of at most `page`."""

    def __init__(self, *, page=2):
        super().__init__(_IndexHandler)
        self.address += "/esg-search/search"
        self.records, self.queries, self.page = [], [], page
        # "page": HTML instead of JSON; "down": status 503; "odd": JSON of another kind
        self.broken = None


class _IndexHandler(_Handler):
    def do_GET(self):
        index = self.server
        query = {key: values for key, values in parse_qs(urlsplit(self.path).query).items()}
        with index.lock:
            index.queries.append(query)
        if index.broken == "page":
            return self.answer(200, b"<html>moved</html>", Content_Type="text/html")
        if index.broken == "down":
            return self.answer(503)
        if index.broken == "odd":
            return self.answer_json(200, {"response": {"numFound": "many", "docs": {}}})
        paging = {"offset", "limit", "format", "type"}
        found = [
            record
            for record in index.records
            if not isinstance(record, dict)
            or all(
                _solr(record.get(key)) == values[-1]
                for key, values in query.items()
                if key not in paging
            )
        ]
        first = int(query["offset"][0])
        size = min(int(query["limit"][0]), index.page)
        docs = found[first : first + size]
        answer = {"numFound": len(found), "start": first, "docs": docs}
        return self.answer_json(200, {"responseHeader": {"status": 0}, "response": answer})


def _solr(value):
    value = value[0] if isinstance(value, list) else value
    return str(value).lower() if isinstance(value, bool) else str(value)


def record(file_name, content, url, *, institution="TEST", version="20190101", **changes):
    """The record of a file as an index holds it: most fields are lists of one."""
    variable, table, source, experiment, member, grid, _ = file_name.split("_")
    activity = "CMIP" if experiment == "historical" else "ScenarioMIP"
    name = [activity, institution, source, experiment, member, table, variable, grid]
    node = urlsplit(url).netloc
    return {
        "project": ["CMIP6"],
        "title": file_name,
        "dataset_id": f"CMIP6.{'.'.join(name)}.v{version}|{node}",
        "version": "1",
        "latest": True,
        "replica": False,
        "activity_id": [activity],
        "institution_id": [institution],
        "source_id": [source],
        "experiment_id": [experiment],
        "variant_label": [member],
        "member_id": [member],
        "table_id": [table],
        "variable_id": [variable],
        "grid_label": [grid],
        "data_node": node,
        "size": len(content),
        "checksum": [hashlib.sha256(content).hexdigest()],
        "checksum_type": ["SHA256"],
        "tracking_id": [f"hdl:21.14100/{hashlib.md5(content).hexdigest()}"],
        "url": [
            f"{url.replace('fileServer', 'dodsC')}.html|application/opendap-html|OPENDAP",
            f"{url}|application/netcdf|HTTPServer",
        ],
    } | changes


class ClimateDataStore(Server):
    """The retrieve API of the Climate Data Store, as cdsapi 0.7 uses it.

    `refuse` (status, title, detail) answers a request at once; `fail` (title, traceback) makes
    its job fail. Either is a function of the request's inputs that gives None where all is well.
    """

    def __init__(self, key):
        super().__init__(_StoreHandler)
        self.key, self.inputs, self.polls = key, {}, {}
        self.refuse = self.fail = lambda inputs: None
        self.content = lambda inputs: b"CDF\x01" + json.dumps(inputs).encode()
        self.catalogue = (200, {"messages": []})  # asked for first, and refused without harm
        self.node = None  # a DataNode that serves the results


class _StoreHandler(_Handler):
    def _job(self, number, status):
        url = f"{self.server.address}/retrieve/v1/jobs/{number}"
        links = [{"rel": "monitor", "href": url}, {"rel": "self", "href": url}]
        if status in ("successful", "failed"):
            links.append({"rel": "results", "href": f"{url}/results"})
        return {"jobID": str(number), "status": status, "metadata": {}, "links": links}

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        store = self.server
        if self.headers.get("PRIVATE-TOKEN") != store.key:
            return self.answer_json(
                401, {"title": "authentication failed", "detail": "operation not allowed"}
            )
        refusal = store.refuse(body["inputs"])
        if refusal:
            status, title, detail = refusal
            return self.answer_json(status, {"type": "error", "title": title, "detail": detail})
        with store.lock:
            number = str(len(store.inputs))
            store.inputs[number] = body["inputs"]
        return self.answer_json(201, self._job(number, "accepted"))

    def do_GET(self):
        store = self.server
        parts = urlsplit(self.path).path.strip("/").split("/")
        if parts[0] == "catalogue":
            return self.answer_json(*store.catalogue)
        if parts[:3] == ["retrieve", "v1", "processes"]:
            return self.answer_json(200, {"id": parts[3], "links": []})
        number = parts[3]
        failure = store.fail(store.inputs[number])
        if parts[-1] != "results":
            polls = store.polls[number] = store.polls.get(number, 0) + 1
            if polls < 3:
                return self.answer_json(200, self._job(number, ["accepted", "running"][polls - 1]))
            return self.answer_json(200, self._job(number, "failed" if failure else "successful"))
        if failure:
            title, traceback = failure
            return self.answer_json(400, {"title": title, "traceback": traceback})
        content = store.content(store.inputs[number])
        url = store.node.put(f"cache/{number}.nc", content)
        asset = {
            "type": "application/netcdf",
            "href": url,
            "file:size": len(content),
            "file:checksum": hashlib.md5(content).hexdigest(),
        }
        return self.answer_json(200, {"asset": {"value": asset}})
