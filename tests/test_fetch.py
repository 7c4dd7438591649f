"""Downloads from a server that does what servers do: cuts, stalls, other files, wrong pages, redirects to anywhere."""

import fcntl
import hashlib
import http.server
import io
import json
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from test_data import CUT, TERMINAL, TIMEOUT, make, raw

from experiments import fetch as command
from jaxrl_suite import data, envs
from jaxrl_suite.data import d4rl, fetch
from jaxrl_suite.envs.scores import REFERENCES
from jaxrl_suite.errors import UserError

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
QUICK = fetch.Limits(stall=0.5, deadline=20.0, attempts=3, backoff=0.01, spare=0)


class Server(http.server.ThreadingHTTPServer):
    """Answers each request by the next function of `script`; the last one answers all others."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.requests, self.content, self.etag = [whole], [], CONTENT, '"one"'
        self.released = threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/file.hdf5"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        server.requests.append({key.lower(): value for key, value in self.headers.items()} | {"path": self.path})
        answer = server.script.pop(0) if len(server.script) > 1 else server.script[0]
        self.close_connection = True
        answer(self, server)

    def log_message(self, *args):
        pass

    def head(self, code, **headers):
        self.send_response(code)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), str(value))
        self.send_header("Connection", "close")
        self.end_headers()


def start_of(handler, server):
    """The first byte asked for: of the same file only."""
    asked = handler.headers.get("Range", "")
    same = handler.headers.get("If-Range") in (None, server.etag)
    return int(asked.removeprefix("bytes=").rstrip("-")) if asked and same else 0


def send(handler, server, count=None, headers=None):
    """The file from where it is asked for, but at most `count` bytes of it."""
    first, length = start_of(handler, server), len(server.content)
    if first >= length:
        handler.head(416, Content_Range=f"bytes */{length}", Content_Length=0)
        return
    extra = {"ETag": server.etag} | (headers or {}) if server.etag else (headers or {})
    if first:
        handler.head(206, Content_Length=length - first, Content_Range=f"bytes {first}-{length - 1}/{length}", **extra)
    else:
        handler.head(200, Content_Length=length, **extra)
    handler.wfile.write(server.content[first : None if count is None else first + count])


def whole(handler, server):
    send(handler, server)


def cut(handler, server):
    send(handler, server, 100_000)


def stall(handler, server):
    send(handler, server, 100_000)
    handler.wfile.flush()
    server.released.wait(5)


def silent(handler, server):
    server.released.wait(5)


def ignores_range(handler, server):
    handler.head(200, Content_Length=len(server.content), ETag=server.etag)
    handler.wfile.write(server.content)


def status(code, **headers):
    def answer(handler, server):
        handler.head(code, Content_Length=4, **headers)
        handler.wfile.write(b"oops")

    return answer


def redirect(to, code=302):
    return lambda handler, server: handler.head(code, Location=to, Content_Length=0)


def raw_bytes(text):
    return lambda handler, server: handler.wfile.write(text)


def chunked(ends):
    def answer(handler, server):
        handler.head(200, Transfer_Encoding="chunked")
        for i in range(0, len(CONTENT), 100_000):
            block = CONTENT[i : i + 100_000]
            handler.wfile.write(b"%x\r\n" % len(block) + block + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n" if ends else b"")

    return answer


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("JAXRL_SUITE_OFFLINE", raising=False)
    running = Server()
    thread = threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield running
    running.released.set()
    running.shutdown()
    running.server_close()
    thread.join(5)


def get(server, folder, **options):
    return fetch.fetch(server.url, folder, "file.hdf5", **{"limits": QUICK} | options)


def names(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


# --- Downloads ---
def test_a_download_is_whole_and_its_checksum_recorded(server, tmp_path):
    seen = []
    path = get(server, tmp_path / "new" / "folder", progress=lambda done, total: seen.append((done, total)))
    assert path.read_bytes() == CONTENT and fetch.recorded(path) == SHA256
    assert seen[-1] == (len(CONTENT), len(CONTENT)) and [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert names(path.parent) == ["file.hdf5", "file.hdf5.sha256"]
    assert (path.parent / "file.hdf5.sha256").read_text() == f"{SHA256}  file.hdf5\n"  # `sha256sum -c` reads it
    get(server, path.parent)
    assert len(server.requests) == 1  # what is there is not asked for again


@pytest.mark.parametrize("trouble", [cut, stall, silent])
def test_a_download_goes_on_where_it_broke_off(server, tmp_path, trouble):
    server.script = [trouble, trouble, whole]
    assert get(server, tmp_path).read_bytes() == CONTENT
    ranges = [request.get("range") for request in server.requests]
    assert ranges == [None, None, None] if trouble is silent else [None, "bytes=100000-", "bytes=200000-"]
    assert all(request["if-range"] == '"one"' for request in server.requests if "range" in request)


def test_a_later_process_goes_on_too(server, tmp_path):
    server.script = [cut, status(404)]
    with pytest.raises(UserError, match="404"):
        get(server, tmp_path)
    assert (tmp_path / ".file.hdf5.part").stat().st_size == 100_000
    server.script = [whole]
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert server.requests[-1]["range"] == "bytes=100000-"


def test_a_whole_part_is_not_downloaded_again(server, tmp_path):
    server.script = [cut, status(404)]
    with pytest.raises(UserError):
        get(server, tmp_path)
    (tmp_path / ".file.hdf5.part").write_bytes(CONTENT)  # as after a kill just before the move
    server.script, server.requests = [whole], []
    assert get(server, tmp_path).read_bytes() == CONTENT and len(server.requests) == 1


def test_another_file_on_the_server_is_not_mixed_with_the_old_part(server, tmp_path):
    def renewed(handler, running):
        running.content, running.etag = CONTENT[::-1], '"two"'
        send(handler, running)

    server.script = [cut, renewed]
    assert get(server, tmp_path).read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_without_a_validator_it_starts_over(server, tmp_path, etag):
    server.etag = etag
    server.script = [cut, whole]
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert [request.get("range") for request in server.requests] == [None, None]


def test_a_server_that_ignores_ranges(server, tmp_path):
    server.script = [cut, ignores_range]
    assert get(server, tmp_path).read_bytes() == CONTENT and server.requests[1]["range"]


def test_a_part_of_another_address_is_not_continued(server, tmp_path):
    (tmp_path / ".file.hdf5.part").write_bytes(b"x" * 1000)
    (tmp_path / ".file.hdf5.part.json").write_text(json.dumps({"url": "http://other/", "validator": '"one"'}))
    assert get(server, tmp_path).read_bytes() == CONTENT and "range" not in server.requests[0]


@pytest.mark.parametrize("note", ["", "[]", "{", '{"url": 1}', "null"])
def test_a_broken_note_starts_over(server, tmp_path, note):
    (tmp_path / ".file.hdf5.part").write_bytes(b"x" * 1000)
    (tmp_path / ".file.hdf5.part.json").write_text(note)
    assert get(server, tmp_path).read_bytes() == CONTENT


def test_chunked_answers_end_with_their_mark(server, tmp_path):
    server.script = [chunked(ends=False), chunked(ends=True)]
    assert get(server, tmp_path).read_bytes() == CONTENT and len(server.requests) == 2


@pytest.mark.parametrize("code", [500, 502, 503, 429, 408])
def test_troubles_that_pass(server, tmp_path, code):
    server.script = [status(code, Retry_After="0"), status(code, Retry_After="soon"), whole]
    assert get(server, tmp_path).read_bytes() == CONTENT


# --- Refusals ---
@pytest.mark.parametrize(
    ("answer", "requests", "message"),
    [
        (status(404), 1, "the server answered 404 Not Found; check the address"),
        (status(403), 1, "403 Forbidden"),
        (status(500), 3, "cannot be downloaded .the server answered 500"),
        (status(503, Retry_After="999"), 1, "cannot be downloaded .the server answered 503"),  # beyond the deadline
        (silent, 3, "cannot be downloaded .timed out"),
        (raw_bytes(b""), 3, "cannot be downloaded"),
        (raw_bytes(b"\x00" * 100), 3, "cannot be downloaded"),
        (raw_bytes(b"HTTP/1.1 200 OK\r\n\r\nall of it"), 1, "does not state the length"),
        (raw_bytes(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\nx"), 1, "does not state the length"),
        (
            raw_bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nx"),
            1,
            "has 99,999,999,999 bytes, the limit",
        ),
        (raw_bytes(b"HTTP/1.1 206 P\r\nContent-Range: bytes 5-9/10\r\nContent-Length: 5\r\n\r\n12345"), 1, "not asked"),
        (status(200, Content_Encoding="gzip"), 1, "the server packs the file .gzip."),
        (redirect("file:///etc/passwd"), 1, "'file:///etc/passwd' is no address of the web"),
        (redirect("file:///etc/passwd", 308), 1, "'file:///etc/passwd' is no address of the web"),
        (redirect("ftp://127.0.0.1/x"), 1, "is no address of the web"),
        (redirect("data:text/plain,x"), 1, "is no address of the web"),
        (redirect("http://["), 1, "is no address"),
        (redirect("/again"), 3, "the server answered 302"),
    ],
)
def test_what_cannot_be_had_is_one_line(server, tmp_path, answer, requests, message):
    server.script = [answer]
    with pytest.raises(UserError, match=message) as caught:
        get(server, tmp_path, limits=QUICK._replace(stall=0.2, deadline=10.0))
    assert "\n" not in str(caught.value) and "file.hdf5" not in names(tmp_path)
    assert len(server.requests) == requests or "again" in server.requests[-1]["path"]


def test_redirects_within_the_web_are_followed_and_resumed(server, tmp_path):
    server.script = [redirect("/elsewhere"), cut, redirect("/elsewhere", 307), whole]
    assert get(server, tmp_path).read_bytes() == CONTENT
    assert [request["path"] for request in server.requests] == ["/file.hdf5", "/elsewhere"] * 2
    assert server.requests[-1]["range"] == "bytes=100000-"


def test_nothing_leads_back_from_https():
    request = fetch.urllib.request.Request("https://a.example/x")
    with pytest.raises(UserError, match="leads from https to http://b"):
        fetch._Redirect().redirect_request(request, io.BytesIO(), 302, "", {}, "http://b.example/x")


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://a/b", "data:,x", "/etc/passwd", "http://", "http://[x", ""]
)
def test_only_addresses_of_the_web(tmp_path, url):
    with pytest.raises(UserError, match="is no address"):
        fetch.fetch(url, tmp_path, "x.hdf5")


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "/etc/passwd", ".hidden", "", "..", "a\\b", "a\x00", "ü", "a b", "x\n"]
)
def test_names_stay_within_the_folder(tmp_path, name):
    with pytest.raises(UserError, match="cannot be the name of a file"):
        fetch.fetch("http://localhost/x", tmp_path / "cache", name)
    assert not list(tmp_path.iterdir())


def test_a_planted_link_is_not_written_through(server, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / ".file.hdf5.part").symlink_to(victim)
    get(server, tmp_path / "cache")
    assert victim.read_text() == "mine"


def test_offline_and_unreachable(server, tmp_path, monkeypatch):
    path = get(server, tmp_path)
    monkeypatch.setenv("JAXRL_SUITE_OFFLINE", "1")
    assert get(server, tmp_path) == path  # what is there may be used
    with pytest.raises(UserError, match="JAXRL_SUITE_OFFLINE forbids"):
        fetch.fetch(server.url, tmp_path, "other.hdf5")
    monkeypatch.setenv("JAXRL_SUITE_OFFLINE", "0")
    with pytest.raises(UserError, match=r"127.0.0.1:1/x: cannot be downloaded .*refused"):
        fetch.fetch("http://127.0.0.1:1/x", tmp_path, "other.hdf5", limits=QUICK)


def test_no_room_on_the_disk(server, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 299_999}))
    with pytest.raises(UserError, match="300,000 bytes do not fit, 299,999 are free"):
        get(server, tmp_path)
    (tmp_path / "taken").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        get(server, tmp_path / "taken")


def test_more_than_the_limit_is_not_stored(server, tmp_path):
    server.script = [chunked(ends=True)]
    with pytest.raises(UserError, match=r"more than 100,000 bytes come"):
        get(server, tmp_path, limits=QUICK._replace(largest=100_000))


def test_a_slow_drip_meets_the_deadline(server, tmp_path):
    def drip(handler, running):
        handler.head(200, Content_Length=1000, ETag='"one"')
        while not running.released.wait(0.05):
            handler.wfile.write(b"x")
            handler.wfile.flush()

    server.script = [drip]
    began = time.monotonic()
    with pytest.raises(UserError, match="it takes too long"):
        get(server, tmp_path, limits=QUICK._replace(deadline=0.5))
    assert time.monotonic() - began < 5


# --- Checksums ---
def test_the_first_download_is_trusted_and_no_other(server, tmp_path):
    path = get(server, tmp_path)
    server.content = CONTENT[::-1]
    with pytest.raises(UserError, match=r"the download has sha256 .*remove .*file.hdf5.sha256"):
        get(server, tmp_path, fresh=True)
    assert path.read_bytes() == CONTENT and names(tmp_path) == ["file.hdf5", "file.hdf5.sha256"]
    path.write_bytes(CONTENT[:-1])
    with pytest.raises(UserError, match="the file is damaged or not the expected one"):
        get(server, tmp_path)
    path.unlink()
    server.content = CONTENT
    assert get(server, tmp_path).read_bytes() == CONTENT


def test_an_expected_checksum(server, tmp_path):
    with pytest.raises(UserError, match="expected 0000"):
        get(server, tmp_path, sha256="0" * 64)
    assert names(tmp_path) == []  # corrupt bytes are not continued
    assert get(server, tmp_path, sha256=SHA256.upper()).read_bytes() == CONTENT
    with pytest.raises(UserError, match="not the expected one"):
        get(server, tmp_path, sha256="0" * 64)
    with pytest.raises(UserError, match="is no sha256"):
        get(server, tmp_path, sha256="abc")
    (tmp_path / "file.hdf5.sha256").write_text("garbage")
    with pytest.raises(UserError, match="holds no sha256"):
        get(server, tmp_path)


def test_two_at_once_download_once(server, tmp_path):
    """Threads stand for processes: a lock of flock belongs to the opened file, not to the process."""
    gate, found = threading.Barrier(2), []

    def one():
        gate.wait()
        found.append(get(server, tmp_path).read_bytes())

    workers = [threading.Thread(target=one) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(20)
    assert found == [CONTENT, CONTENT] and len(server.requests) == 1


def test_a_lock_that_is_never_released(server, tmp_path):
    with open(tmp_path / ".file.hdf5.lock", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is downloading"):
            get(server, tmp_path, limits=QUICK._replace(deadline=0.2))


# --- D4RL's names ---
@pytest.fixture
def mirror(server, tmp_path, monkeypatch):
    """A mirror that has a small hopper-medium-v2, and an empty cache."""
    arrays = make([(4, TERMINAL), (3, TIMEOUT), (2, CUT)])
    server.content = Path(raw(tmp_path / "source.hdf5", arrays)).read_bytes()
    monkeypatch.setenv("JAXRL_SUITE_D4RL_URL", server.url.removesuffix("/file.hdf5"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("JAXRL_SUITE_DATA", raising=False)
    return server


def test_the_names_are_those_of_d4rl():
    assert len(d4rl.REMOTES) == 24
    remote = d4rl.REMOTES["walker2d-medium-replay-v2"]
    assert remote.url.endswith(
        "rail.eecs.berkeley.edu/datasets/offline_rl/gym_mujoco_v2/walker2d_medium_replay-v2.hdf5"
    )
    assert (remote.env, remote.level) == ("Walker2d-v4", "medium-replay")


def test_every_name_leads_to_an_environment_with_reference_scores():
    """Every task at every level, so that a user with the file gets a score."""
    tasks, levels = ("hopper", "halfcheetah", "walker2d", "ant"), {"random", "medium", "expert"}
    levels |= {"medium-replay", "medium-expert", "full-replay"}
    assert set(d4rl.REMOTES) == {f"{task}-{level}-v2" for task in tasks for level in levels}
    for name, remote in d4rl.REMOTES.items():
        spec = envs.spec(remote.env)
        assert (spec.score_min, spec.score_max) == REFERENCES[name.partition("-")[0]]


def test_a_name_is_downloaded_once_and_then_read(mirror, capsys):
    dataset, info = data.load("hopper-medium-v2")
    assert (info.name, info.env, info.rows) == ("hopper-medium-v2", "Hopper-v4", 9)
    assert "downloading http" in capsys.readouterr().err and "D4RL" in info.source
    again = data.load("hopper-medium-v2")[0]
    np.testing.assert_array_equal(again.transitions.obs, dataset.transitions.obs)
    assert [request["path"] for request in mirror.requests] == ["/hopper_medium-v2.hdf5"]
    assert "hopper-medium-v2" in data.names() and "hopper-expert-v2" not in data.names()
    path = d4rl.cache_folder() / "hopper_medium-v2.hdf5"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="the file is damaged"):  # verified at every reading
        data.load("hopper-medium-v2")


def test_the_users_own_file_is_taken_first(mirror, tmp_path, monkeypatch):
    own = tmp_path / "own"
    own.mkdir()
    monkeypatch.setenv("JAXRL_SUITE_DATA", str(own))
    for name in ("hopper-medium-v2", "hopper_expert-v2"):
        raw(own / f"{name}.hdf5", make([(5, TERMINAL)]))
    assert data.load("hopper-medium-v2")[1].rows == data.load("hopper-expert-v2")[1].rows == 5
    assert data.load("hopper_expert-v2")[1].name == "hopper_expert-v2"
    (own / "SHA256SUMS").write_text("0" * 64 + "  hopper-medium-v2.hdf5\n")
    with pytest.raises(UserError, match="the file is damaged"):
        data.load("hopper-medium-v2")
    assert mirror.requests == []


def test_checksums_that_the_user_states(mirror):
    d4rl.cache_folder().mkdir(parents=True)
    sums = d4rl.cache_folder() / "SHA256SUMS"
    sums.write_text("0" * 64 + " *hopper_medium-v2.hdf5\n")
    with pytest.raises(UserError, match="expected 0000"):
        data.load("hopper-medium-v2")
    sums.write_text(hashlib.sha256(mirror.content).hexdigest() + "  hopper_medium-v2.hdf5\n")
    assert data.load("hopper-medium-v2")[1].rows == 9
    sums.write_bytes(b"\xff\xfe no text")
    with pytest.raises(UserError, match="SHA256SUMS: cannot be read as text"):
        data.load("hopper-medium-v2")


@pytest.mark.parametrize("version", [0, 1, 3])
def test_other_versions_name_version_two(mirror, version):
    with pytest.raises(UserError, match=rf"version {version} is not supported .*; use hopper-medium-expert-v2"):
        data.load(f"hopper-medium-expert-v{version}")
    with pytest.raises(UserError, match=r"did you mean .*hopper-medium-v2"):
        data.load("hopper-medium")
    assert mirror.requests == []


@pytest.mark.parametrize("content", [b"<html>log in</html>", b"", "truncated"])
def test_what_is_no_data_set_is_not_trusted(mirror, content):
    mirror.content = mirror.content[:3000] if content == "truncated" else content
    mirror.script = [ignores_range]
    with pytest.raises(UserError, match=r"not an HDF5 file|truncated or damaged"):
        data.load("hopper-medium-v2")
    assert names(d4rl.cache_folder()) == []


# --- The command ---
def run(monkeypatch, capsys, *words):
    monkeypatch.setattr("sys.argv", ["fetch", *words])
    with pytest.raises(SystemExit) as stop:
        command.main()
    output = capsys.readouterr()
    return stop.value.code, output.out, output.err


def test_the_command_downloads_and_lists(mirror, monkeypatch, capsys, tmp_path):
    code, output, _ = run(monkeypatch, capsys, "hopper-medium-v2", "hopper-expert-v2", f"--folder={tmp_path / 'here'}")
    assert code == 0 and (tmp_path / "here" / "hopper_expert-v2.hdf5").read_bytes() == mirror.content
    assert hashlib.sha256(mirror.content).hexdigest() in output
    code, output, _ = run(monkeypatch, capsys, "--list", f"--folder={tmp_path / 'here'}")
    assert code == 0 and "ant-full-replay-v2" in output
    assert run(monkeypatch, capsys, "--help")[0] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a data set"),
        (["hopper-medum-v2"], "did you mean hopper-medium-v2"),
        (["hopper-medium-v1"], "use hopper-medium-v2"),
        (["hopper-medium-v2", "hopper-expert-v2", "--sha256=" + "0" * 64], "fetch them one by one"),
        (["hopper-medium-v2", "--sha256=abc"], "is no sha256"),
        (["hopper-medium-v2", "--minutes=0"], "--minutes=0.0 must be above 0"),
        (["hopper-medium-v2", "--foldr=x"], "--folder"),
    ],
)
def test_the_command_refuses(mirror, monkeypatch, capsys, words, message):
    code, _, errors = run(monkeypatch, capsys, *words)
    assert code == 2 and message in errors and errors.count("\n") == 1 and mirror.requests == []


def test_the_command_stops_at_ctrl_c_and_keeps_the_part(mirror, monkeypatch, capsys):
    def stop(handler, server):
        send(handler, server, 1000)
        handler.wfile.flush()
        server.released.wait(0.3)  # until the client has written what came
        os.kill(os.getpid(), 2)
        server.released.wait(5)

    mirror.script = [stop]
    # A suite that was started in the background ignores the signal.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    code, _, errors = run(monkeypatch, capsys, "hopper-medium-v2")
    signal.signal(signal.SIGINT, before)
    assert code == 130 and errors == "interrupted\n"
    assert (d4rl.cache_folder() / ".hopper_medium-v2.hdf5.part").exists()
