"""Servers on loopback that speak the protocols of the archives and can misbehave on demand."""

import hashlib
import json
import re
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


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

    def answer(self, status, body=b"", kind="application/octet-stream"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def answer_json(self, status, values):
        self.answer(status, json.dumps(values).encode(), "application/json")

    def body(self):
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))


class FileServer(Server):
    """Files over HTTP: a folder below `root`, and single files; with faults by path.

    `faults[path]` is a list of names, one for each request to come: ``"busy"`` (503), ``"cut"``
    (the connection ends in the middle), ``"stalled"`` (no answer within `patience`), ``"page"``
    (an HTML page with status 200), ``"gone"`` (404), ``"refused"`` (403), ``"wrong"`` (as many
    other bytes).
    """

    def __init__(self, root=None, *, patience=2.0):
        super().__init__(_FileHandler)
        self.root, self.files, self.faults, self.requests = root, {}, {}, []
        self.patience = patience

    def put(self, path, content):
        """Offer a file; returns its URL."""
        self.files[path] = content
        return f"{self.address}/{path}"

    def content(self, path):
        """What lies at a path, or None."""
        if path in self.files or self.root is None:
            return self.files.get(path)
        file = self.root / path
        return file.read_bytes() if file.is_file() else None


class _FileHandler(_Handler):
    def do_GET(self):
        server, path = self.server, urlsplit(self.path).path.lstrip("/")
        with server.lock:
            server.requests.append(path)
            fault = server.faults[path].pop(0) if server.faults.get(path) else None
        content = server.content(path)
        if content is None or fault == "gone":
            return self.answer(404)
        if fault in ("busy", "refused"):
            return self.answer({"busy": 503, "refused": 403}[fault])
        if fault == "page":
            return self.answer(200, b"<html>maintenance</html>", "text/html")
        if fault == "stalled":
            time.sleep(server.patience)
            self.close_connection = True
            return None
        if fault == "wrong":
            content = bytes(255 - byte for byte in content)
        if fault != "cut":
            return self.answer(200, content)
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.close_connection = True
        return None


class Index(Server):
    """The index of ESGF at Globus Search, as intake-esgf asks it: `records`, and `status`."""

    def __init__(self):
        super().__init__(_IndexHandler)
        self.records, self.queries, self.status = [], [], 200

    def publish(self, name, content, *urls, version="20190101", **changes):
        """Put a file and its data set into the index."""
        variable, table, source, experiment, member, grid, _ = name.split("_")
        activity = "CMIP" if experiment == "historical" else "ScenarioMIP"
        folders = [activity, "TEST", source, experiment, member, table, variable, grid]
        dataset = f"CMIP6.{'.'.join(folders)}.v{version}|{urlsplit(urls[0]).netloc}"
        facets = ["activity_drs", "institution_id", "source_id", "experiment_id", "member_id"]
        facets += ["table_id", "variable_id", "grid_label"]
        common = {facet: [value] for facet, value in zip(facets, folders)}
        common |= {"project": ["CMIP6"], "mip_era": ["CMIP6"], "retracted": False, "latest": True}
        common |= {"data_node": urlsplit(urls[0]).netloc, "version": version}
        template = "%(root)s/%(mip_era)s/" + "/".join(f"%({facet})s" for facet in facets)
        file = {
            "type": "File",
            "title": name,
            "dataset_id": dataset,
            "directory_format_template_": [f"{template}/%(version)s"],
            "size": len(content),
            "checksum": [hashlib.sha256(content).hexdigest()],
            "checksum_type": ["SHA256"],
            "url": [f"{url}|application/netcdf|HTTPServer" for url in urls],
        }
        size = {"type": "Dataset", "size": len(content), "number_of_files": 1}
        self.records.append((dataset, common | size | changes))
        self.records.append((f"{dataset}.{name}", common | file | changes))


class _IndexHandler(_Handler):
    def do_POST(self):
        index, query = self.server, self.body()
        wanted = {one["field_name"]: one["values"] for one in query["filters"]}
        with index.lock:
            index.queries.append(wanted)
        if index.status != 200:
            return self.answer_json(index.status, {"code": "X", "message": "closed for repairs"})
        found = [
            {"subject": subject, "entries": [{"content": content}]}
            for subject, content in dict(index.records).items()
            if all(_plain(content.get(key)) in values for key, values in wanted.items())
        ]
        answer = {"gmeta": found, "count": len(found), "total": len(found)}
        return self.answer_json(200, answer | {"has_next_page": False, "marker": None})


def _plain(value):
    return value[0] if isinstance(value, list) else value


class ClimateDataStore(Server):
    """The retrieve API of the Climate Data Store, as cdsapi 0.7 uses it.

    `refuse` (status, title, detail) answers a request at once; `fail` (title, traceback) makes
    its job fail. Either is a function of the request's inputs that gives None where all is well.
    A job is made after `queue` questions for it, at most two.
    """

    def __init__(self, key, files):
        super().__init__(_StoreHandler)
        self.key, self.files, self.inputs, self.polls = key, files, {}, {}
        self.queue = 0
        self.refuse = self.fail = lambda inputs: None
        self.content = lambda inputs: b"CDF\x01" + json.dumps(inputs).encode()
        self.catalogue = (200, {"messages": []})  # asked for first, and refused without harm


class _StoreHandler(_Handler):
    def _job(self, number, status):
        url = f"{self.server.address}/retrieve/v1/jobs/{number}"
        links = [{"rel": "monitor", "href": url}, {"rel": "self", "href": url}]
        if status in ("successful", "failed"):
            links.append({"rel": "results", "href": f"{url}/results"})
        return {"jobID": str(number), "status": status, "metadata": {}, "links": links}

    def do_POST(self):
        inputs, store = self.body()["inputs"], self.server
        if self.headers.get("PRIVATE-TOKEN") != store.key:
            refusal = 401, "authentication failed", "operation not allowed"
        else:
            refusal = store.refuse(inputs)
        if refusal:
            status, title, detail = refusal
            return self.answer_json(status, {"type": "error", "title": title, "detail": detail})
        with store.lock:
            number = str(len(store.inputs))
            store.inputs[number] = inputs
        return self.answer_json(201, self._job(number, "accepted"))

    def do_GET(self):
        store = self.server
        parts = urlsplit(self.path).path.strip("/").split("/")
        if parts[0] == "catalogue":
            return self.answer_json(*store.catalogue)
        if not re.match("/retrieve/v1/(processes|jobs)/", self.path):
            return self.answer(404)
        if parts[2] == "processes":
            return self.answer_json(200, {"id": parts[3], "links": []})
        number = parts[3]
        failure = store.fail(store.inputs[number])
        if parts[-1] != "results":
            polls = store.polls[number] = store.polls.get(number, 0) + 1
            if polls <= store.queue:
                return self.answer_json(200, self._job(number, ["accepted", "running"][polls - 1]))
            return self.answer_json(200, self._job(number, "failed" if failure else "successful"))
        if failure:
            title, traceback = failure
            return self.answer_json(400, {"title": title, "traceback": traceback})
        content = store.content(store.inputs[number])
        asset = {
            "type": "application/netcdf",
            "href": store.files.put(f"cache/{number}.nc", content),
            "file:size": len(content),
            "file:checksum": hashlib.md5(content).hexdigest(),
        }
        return self.answer_json(200, {"asset": {"value": asset}})
