"""10,000 hostile requests, by families; each with the statuses that are right for it."""

import gzip
import io
import json
import random
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

TOKEN = "a-token-of-the-tests"
CANARY = "what no stranger may read"
BEARER = {"Authorization": f"Bearer {TOKEN}"}
SCRIPT = "<script>alert(document.cookie)</script>"
ODD_TEXTS = [
    SCRIPT, "<img src=x onerror=alert(1)>", "\x00", "\ud800", "\udfff\ud800", "\u202e\u2066", "🚀" * 50, "\ufeff", "\uffff",
    "../../etc/passwd", "'; DROP TABLE jobs; --", "{title}", "{0.__class__}", "%s%n%x", "${jndi:ldap://x/y}",
    "\r\nSet-Cookie: a=b",
    "=cmd|' /C calc'!A0", "[UNK][CLS][SEP][MASK][PAD]", "a\u0301" * 40, "\u0300" * 20, "﷽" * 30, "ﬃ" * 30, "<" * 300, "&" * 300,
    "\x1b[2J", "\u2028\u2029", "NaN", "null", "\\", '"', "\t" * 100, "𝒳" * 40, "ΑΒΓ" * 30, "क्षि" * 30, "\x7f\x80\x9f",
]
TRICKS = [
    "..", ".", "...", "%2e%2e", "%2E%2e", "..%2f", "..%5c", "%252e%252e", "..%c0%af", "%c0%ae%c0%ae", "..;", "%00", "..%00",
    "\\..",
    "%5c%5c", "%2f", "%2fetc", "~", "~root", "C:", "%0d%0aX:y", "%ff%fe", "%ed%a0%80", "*", "?", "a" * 300, "a" * 5000, "con",
    "%20",
    ".hidden", "scifi%00", "scifi/..", "scifi%2f..", "active.json", "-", "_", "%", "%zz", "%u002e", "<script>", "%3cscript%3e",
    "'",
    "%27%20or%201=1--", "0123456789ABCDEF", "0" * 17, "g" * 16, "{name}", "$", "%24%7bx%7d",
]
TARGETS = ["etc/passwd", "canary.txt", "settings.py", "models/active.json", "data/jobs.sqlite", "%2e%2e/canary.txt", ""]


@dataclass
class Attack:
    family: str
    request: bytes
    statuses: set[int]
    by_server: bool = False  # malformed HTTP, which uvicorn refuses, or drops, before the service sees it


def request(method: str, path: str, headers: dict | None = None, body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1"]
    for name, value in ({"Host": "localhost", "Content-Length": len(body)} | (headers or {})).items():
        lines += [f"{name}: {value}"]
    return "\r\n".join(lines).encode("latin-1", "replace") + b"\r\n\r\n" + body


def as_json(path: str, body: bytes, **headers: str) -> bytes:
    return request("POST", path, {"Content-Type": "application/json"} | headers, body)


def part(name: str, content: bytes, filename: str | bytes | None = None) -> bytes:
    head = b'Content-Disposition: form-data; name="' + name.encode() + b'"'
    if filename is not None:
        raw = filename if isinstance(filename, bytes) else filename.encode("utf8", "surrogatepass")
        head += b'; filename="' + raw.replace(b'"', b"%22").replace(b"\r", b"%0D").replace(b"\n", b"%0A") + b'"'
    return head + b"\r\n\r\n" + content


def form(path: str, parts: list[bytes], boundary: str = "XX", content_type: str | None = None, end: bytes = b"--XX--\r\n",
         **headers: str) -> bytes:
    body = b"".join(b"--XX\r\n" + content + b"\r\n" for content in parts) + end
    return request("POST", path, {"Content-Type": content_type or f"multipart/form-data; boundary={boundary}"} | headers, body)


def attacks(seed: int = 7) -> list[Attack]:
    chance = random.Random(seed)
    families = [numbers, keys, encodings, deep, texts, mutations, paths, file_names, files, forms, addresses, tokens, tasks,
                heads,
                broken_http]
    return [attack for family in families for attack in family(chance)]


# --- JSON --------------------------------------------------------------------------------------------------------


def numbers(chance: random.Random) -> Iterator[Attack]:
    fine = ["0", "-0", "50", "5e1", "3.0", "0.0", "1e0"]
    bad = ["-1", "51", "1e400", "-1e400", "NaN", "Infinity", "-Infinity", "1.5", '"3"', "true", "null", "[]", "{}", "1e-5",
           "9" * 400,
           str(2**63), str(2**64), "4294967297", '"\\u0033"', "0.1e1000"]
    broken = ["9" * 5000, "-" + "9" * 5000]  # Python reads no number of so many digits
    wrong = ["01", "+1", "0x1", ".5", "1.", "1e", "--1", "1_000", "٣", "nan", "inf", "1,", "0b1"]
    for values, status in ((fine, 200), (bad, 422), (broken, 400), (wrong, 422)):
        for value in values * 8:
            space = " " * chance.randint(0, 5)
            yield Attack("numbers", as_json("/v1/tags", f'{{"text": "a",{space}"top": {value}}}'.encode()), {status})


def keys(chance: random.Random) -> Iterator[Attack]:
    names = ["__proto__", "constructor", "__class__", "model_config", "self", "Text", "TEXT", "texts ", "", "\\u0000",
             "\\ud800", SCRIPT,
             "k" * 10_000, "file", "extra", "🚀", "\\u202e", "request", "Body", "$ref"]
    for name in names * 10:
        escaped = name if name.startswith("\\u") else json.dumps(name)[1:-1]
        value = chance.choice(["1", "null", '"a"', "[]", "{}"])
        yield Attack("keys", as_json("/v1/tags", f'{{"text": "a", "{escaped}": {value}}}'.encode()), {422})
        yield Attack("keys", as_json("/v1/tags", f'{{"text": {{"{escaped}": "a"}}}}'.encode()), {422})
        yield Attack("keys", as_json("/v1/jobs/tag", f'{{"url": "http://files.example/a.csv", "{escaped}": {value}}}'.encode()),
                     {422})
        yield Attack("keys", as_json("/v1/jobs/train", f'{{"task": "scifi", "{escaped}": {value}}}'.encode(), **BEARER), {422})
    for count in [33, 100, 1000, 5000] * 10:
        many = ", ".join(f'"k{number}": "a"' for number in range(count + chance.randint(0, 9)))
        for body in (f"{{{many}}}", f'{{"text": {{{many}}}}}', f'{{"texts": [{{{many}}}, "a"]}}'):
            yield Attack("keys", as_json("/v1/tags", body.encode()), {422})
    for count in [2, 3, 50, 1000] * 10:  # the last of a key's values counts
        doubled = '"text": 1, ' * count
        yield Attack("keys", as_json("/v1/tags", f'{{{doubled}"text": "a"}}'.encode()), {200})
        yield Attack("keys", as_json("/v1/tags", f'{{"text": "a", {doubled}"top": 1}}'.encode()), {422})


def encodings(chance: random.Random) -> Iterator[Attack]:
    for number in range(60):
        text = json.dumps({"text": f"Über {number} robots ☃ {chance.choice('éèöü')}"}, ensure_ascii=False)
        for name in ("utf8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"):  # JSON tells them apart by itself
            yield Attack("encodings", as_json("/v1/tags", text.encode(name)), {200})
        for name in ("latin-1", "cp1252", "koi8-r", "shift_jis", "gb18030"):
            yield Attack("encodings", as_json("/v1/tags", text.encode(name, "replace").replace(b"?", b"\xe9")), {400, 422})
        raw = text.encode()
        for bad in (b"\xc0\xaf", b"\xf8\x88\x80\x80\x80", b"\xff", b"\xc3", b"\xf4\x90\x80\x80", b"\x80"):
            yield Attack("encodings", as_json("/v1/tags", raw.replace(b"robots", bad)), {400})
        # Python reads half a character that is spelt as UTF-8 would; so does the service, as it does its escape.
        yield Attack("encodings", as_json("/v1/tags", raw.replace(b"robots", b"\xed\xa0\x80")), {200})
        for bad in (b"\x00", b"\x01", b"\n", b"\x1f"):
            yield Attack("encodings", as_json("/v1/tags", raw.replace(b"robots", bad)), {422})
        for packed in (gzip.compress(raw), zlib.compress(raw), raw[: chance.randint(1, 10)], raw + b"}", raw + raw,
                       b"\x00" * 50):
            encoding = chance.choice(["gzip", "deflate", "br", "zstd", "gzip, gzip", "identity"])
            yield Attack("encodings", as_json("/v1/tags", packed, **{"Content-Encoding": encoding}), {400, 422})


def deep(chance: random.Random) -> Iterator[Attack]:
    for depth in [100, 900, 1000, 5000, 20_000, 100_000] * 4:
        depth += chance.randint(0, 50)
        for opened, closed in (("[", "]"), ('{"a":', "}"), ('[{"text":', "}]")):
            whole = opened * depth + "1" + closed * depth
            for body in (whole, f'{{"text": {whole}}}', f'{{"texts": [{whole}]}}', opened * depth):
                yield Attack("deep", as_json("/v1/tags", body.encode()), {400, 422})
        for path in ("/v1/jobs/tag", "/v1/jobs/train"):
            yield Attack("deep", as_json(path, b"[" * min(depth, 90_000), **BEARER), {400})


def texts(chance: random.Random) -> Iterator[Attack]:
    for number in range(700):
        text = "".join(chance.choice(ODD_TEXTS) for _ in range(chance.randint(1, 3)))
        body = [{"text": text}, {"text": {"title": text, "body": text}}, {"texts": [text, {"title": text}], "top": 3},
                {"text": {}},
                {"text": {"title": ""}}][number % 5]
        yield Attack("texts", as_json("/v1/tags", json.dumps(body).encode()), {200})
    for number in range(20):
        yield Attack("texts", as_json("/v1/tags", json.dumps({"text": "x" * (20_001 + number)}).encode()), {413})
        yield Attack("texts", as_json("/v1/tags", json.dumps({"texts": ["a"] * (257 + number)}).encode()), {422})


def mutations(chance: random.Random) -> Iterator[Attack]:
    """A sound body, damaged at random; what is right depends on where, but it is told in words."""
    sound = json.dumps({"texts": ["robots", {"title": "ships", "body": "b"}], "top": 2}).encode()
    for _ in range(1200):
        body = bytearray(sound)
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(body))
            body[at : at + chance.randint(0, 3)] = chance.choice(
                [b"", b"\x00", b"\xff", b"[", b"}", b'"', b"\\", b"\\u", b"\\ud83d", b",", b":", b"1e999",
                 bytes([chance.randrange(256)])])
        yield Attack("mutations", as_json("/v1/tags", bytes(body)), {200, 400, 422})


# --- paths -------------------------------------------------------------------------------------------------------


def paths(chance: random.Random) -> Iterator[Attack]:
    # 400: a path that is no path of a URL, for uvicorn, or one that is the address of none
    for trick, target in product(TRICKS, TARGETS):
        path = "/".join([trick] * chance.randint(1, 8) + [target])
        yield Attack("paths", request("GET", f"/static/{path}"), {404, 400, 405}, by_server=True)
    for trick in TRICKS * 3:
        name = trick + chance.choice(["", "", "x", ".."])
        for method, template, statuses in (
                ("GET", "/v1/models/{}", {404}), ("POST", "/v1/models/{}/activate", {401, 404, 405}),
            ("GET", "/v1/jobs/{}", {404}),
                ("GET", "/v1/jobs/{}/result", {404}), ("DELETE", "/v1/jobs/{}", {401, 404, 405}), ("GET", "/{}", {404}),
                ("GET", "/v1/{}/jobs", {404})):
            # what a trick makes of the path can be a sound one: `?` ends it, `.` is kept
            yield Attack("paths", request(method, template.format(name)), statuses | {400, 200, 405}, by_server=True)
        yield Attack("paths", request("DELETE", f"/v1/jobs/{name}", BEARER), {404, 400, 405}, by_server=True)
        yield Attack("paths", request("POST", f"/v1/models/{name}/activate", BEARER), {404, 400, 405}, by_server=True)


# --- uploads -----------------------------------------------------------------------------------------------------


def file_names(chance: random.Random) -> Iterator[Attack]:
    rows = b"title,body\nrobots,ships\n"
    names = ["../../canary", "..\\..\\canary", "/etc/cron.d/x", "C:\\windows\\x", "\x00canary", "a\x00b", SCRIPT, "a" * 1000,
             "..", ".",
             "%2e%2e%2fcanary", "\u202egpj", "💥", "con", "a;b", "a b", "~/x", "$(id)", "`id`", "|id", "-rf", "a%00.toml",
             "\ud800"]
    for name in names * 5:
        ending = chance.choice([".csv", ".CSV", ".tsv", ".jsonl", ".txt", ".parquet"])
        yield Attack("file names", form("/v1/jobs/tag", [part("file", rows, name + ending)]), {202})
    for name in names * 9:
        ending = chance.choice(["", ".zip", ".gz", ".csv.gz", ".exe", ".toml", ".csv\x00.exe", ".html", ".svg", ".csv ",
                                ".csv."])
        yield Attack("file names", form("/v1/jobs/tag", [part("file", rows, name + ending)]), {422})
        yield Attack("file names",
                     form("/v1/jobs/train", [part("task", b"x", name), part("data", rows, "a" + (ending or "x"))], **BEARER),
                     {422})


def files(chance: random.Random) -> Iterator[Attack]:
    """The API stores a file as it is; what it holds is the worker's matter."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../canary.csv", b"0" * 1_000_000)
    contents = [gzip.compress(b"0" * 1_000_000), packed.getvalue(), b"PAR1" + b"\x00" * 100 + b"PAR1",
                b"\xff\xfe" + "a,b".encode("utf-16"),
                b"[" * 100_000, b'"' * 10_000, SCRIPT.encode(), b"\x00" * 10_000]
    for content, ending in product(contents, ("csv", "parquet", "jsonl", "txt")):
        yield Attack("files", form("/v1/jobs/tag", [part("file", content, f"a.{ending}")]), {202})
    for number in range(40):
        yield Attack("files", form("/v1/jobs/tag", [part("file", b"", f"{number}.csv")]), {422})
        yield Attack("files", form("/v1/jobs/tag", [part("file", b"a\n1\n", "a.csv"), part("text", b"c" * (201 + number))]),
                     {422})
    for _ in range(8):
        yield Attack("files", form("/v1/jobs/tag", [part("file", b"x" * chance.randint(300_001, 900_000), "a.csv")]), {413})


def forms(chance: random.Random) -> Iterator[Attack]:
    file = part("file", b"title\nrobots\n", "a.csv")
    text = part("text", b"title")
    charsets = ["utf-7", "utf-16", "utf-32", "latin-1", "idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape",
                "hex",
                "rot13", "base64", "zlib", "x" * 3000, "\xff", "utf-8;utf-7", "mbcs", "cp037", "utf_8_sig"]
    for charset in charsets * 8:
        kind = f'multipart/form-data; boundary=XX; charset="{charset}"'
        odd = part("file", b"title\nrobots\n", b"+2AA-\\ud800.csv")
        yield Attack("forms", form("/v1/jobs/tag", [odd], content_type=kind), {415})
        yield Attack("forms", form("/v1/jobs/tag", [file, part("text", b"+2AA-\\ud800")], content_type=kind), {415})
    kinds = ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=" + "y" * 300,
             "multipart/form-data; boundary=YY", 'multipart/form-data; boundary="XX', "multipart/form-data; Boundary*0=X",
             "multipart/form-data; boundary=X X", "multipart/form-data; boundary=XX\\"]
    for kind in kinds * 8:
        yield Attack("forms", form("/v1/jobs/tag", [file], content_type=kind), {400, 422, 202})
    others = ["", "text/html", "text/plain", "application/x-www-form-urlencoded", "multipart/mixed; boundary=XX",
              "application/xml",
              "application/json5", "multipart", ";", "\xff", "application/octet-stream", "application/jsonx", "a" * 2000, "*/*"]
    for kind in others * 8:
        for path in ("/v1/jobs/tag", "/v1/jobs/train"):
            yield Attack("forms", form(path, [file], content_type=kind or " ", **BEARER), {415})
    doubles = [[file, file], [text, text, file], [file, part("more", b"1")], [part("text", b"a", "a.csv")], [text], [],
               [part("file", b"a.csv")], [file, part("text", b"x", "a.csv")], [part("File", b"a\n1\n", "a.csv")], [text] * 3000,
               [file] * 500, [part("", b"a", "a.csv")], [part("file[]", b"a", "a.csv")], [file, part("text", b"y" * 20_000)]]
    for parts in doubles * 8:
        yield Attack("forms", form("/v1/jobs/tag", parts), {400, 422})
    heads_of_parts = [b"", b"X: y", b"Content-Disposition", b"Content-Disposition: form-data", b"X\xff: y",
                      b'Content-Disposition: form-data; filename="a.csv"', b"Content-Disposition: attachment",
                      b"Content-Disposition: form-data; name=file; filename*=UTF-8''..%2fa.csv", b"A: " + b"b" * 20_000,
                      b"\r\n".join(b"H%d: x" % number for number in range(2000)), b"\x00: \x00", b": x", b" : x"]
    for head in heads_of_parts * 8:
        yield Attack("forms", form("/v1/jobs/tag", [head + b"\r\n\r\ntitle\n"]), {400, 422})
    for end in [b"", b"--XX", b"--XX-", b"--XX-\r\n", b"--YY--\r\n", b"--XX\r\n", b"\x00" * 100] * 8:
        yield Attack("forms", form("/v1/jobs/tag", [file], end=end), {202, 400, 422})
    sound = b"--XX\r\n" + file + b"\r\n--XX\r\n" + text + b"\r\n--XX--\r\n"
    for _ in range(500):
        body = bytearray(sound)
        for _ in range(chance.randint(1, 5)):
            at = chance.randrange(len(body))
            body[at : at + chance.randint(0, 3)] = chance.choice([b"", b"\r", b"\n", b"--", b"--XX", b'"', b";", b"\x00",
                                                                  b"\xff", b"="])
        yield Attack("forms",
                     request("POST", "/v1/jobs/tag", {"Content-Type": "multipart/form-data; boundary=XX"}, bytes(body)),
                     {202, 400, 422})


# --- addresses ---------------------------------------------------------------------------------------------------


def addresses(chance: random.Random) -> Iterator[Attack]:
    """`localhost` and 127.0.0.1 are on the tested service's own list, and refused all the same; nothing is connected to."""
    hosts = ["localhost", "127.0.0.1", "LOCALHOST", "localhost.", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1",
             "017700000001",
             "0177.0.0.1", "0", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]",
             "[2002:7f00:1::]",
             "[fe80::1%25eth0]", "169.254.169.254", "[fd00:ec2::254]", "metadata.google.internal", "10.0.0.1", "172.16.0.1",
             "192.168.1.1",
             "100.64.0.1", "localhost:{port}", "127.0.0.1:{port}", "files.example@localhost:{port}",
             "localhost:{port}@files.example",
             "user:password@files.example", "@files.example", ":@localhost", "files.example#@localhost",
             "files.example%23@localhost",
             "files.example\\@localhost", "localhost\\files.example", "files.example.localhost", "localhost%00.files.example",
             "①②⑦.⓪.⓪.①", "ⓛocalhost", "files.example%2f@localhost", "files.example:99999", "files.example:-1",
             "files.example:x",
             "files.example:", "files.example ", "[", "]", "[::1", "", "a" * 1500, "a." * 600, "-", "..", "files..example",
             "\u202elocalhost"]
    schemes = ["http://", "https://", "HTTP://", "http:", "http:/", "http:///", "//", "file://", "ftp://", "gopher://",
               "dict://", "data:",
               "javascript://", "jar:http://", "unix://", " http://", "http\t://", "\nhttp://", "http+unix://", ""]
    ends = ["/a.csv", "/../a.csv", "/a.csv?x=/etc/passwd", "/a.csv#b", "/\r\nHost: localhost\r\n\r\n/a.csv", "/%0d%0aa.csv",
            "/a.csv\x00",
            "/\ud800.csv", "/latest/meta-data.csv", "/a.exe", "", "/" + "b" * 2000 + ".csv", "?a.csv", "#a.csv", ";a.csv",
            "\\a.csv"]
    for host, scheme in product(hosts, schemes):
        url = scheme + host + chance.choice(ends if chance.random() < 0.5 else ends[:1])
        yield Attack("addresses", as_json("/v1/jobs/tag", json.dumps({"url": url}).encode()), {403, 422})
    for host, end in product(hosts[:30], ends):
        yield Attack("addresses", as_json("/v1/jobs/tag", json.dumps({"url": "http://" + host + end, "text": "a"}).encode()),
                     {403, 422})
    for value in ["null", "1", "[]", "{}", '[["http://localhost/a.csv"]]', "true", '""'] * 4:
        yield Attack("addresses", as_json("/v1/jobs/tag", f'{{"url": {value}}}'.encode()), {422})


# --- privileges and tasks ----------------------------------------------------------------------------------------


def tokens(chance: random.Random) -> Iterator[Attack]:
    wrong = ["", "Bearer", "Bearer ", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}",
             f"Bearer {TOKEN.upper()}",
             f"Bearer\xa0{TOKEN}", "Bearer \xff", f"Bearer {TOKEN},{TOKEN}", "Bearer null", "Bearer " + "a" * 5000,
             f"Token {TOKEN}",
             f"Bearer {TOKEN} {TOKEN}", "Bearer *", "Bearer \u00e9", f"'{TOKEN}'"]
    for value in wrong * 8:
        for method, path in (("POST", "/v1/models/scifi/activate"), ("DELETE", "/v1/jobs/0123456789abcdef"),
                             ("POST", "/v1/jobs/train")):
            host = chance.choice(["localhost", "127.0.0.1", "[::1]", "evil.example", "[::1", "a b"])
            yield Attack("tokens",
                         request(method, path, {"Authorization": value, "Host": host, "X-Forwarded-For": "127.0.0.1"}), {401})
    for origin in ["null", "http://[", "http://evil.example", "http://localhost.evil.example", "//", "x", "file://",
                   "http://localhost:1",
                   "http://localhost@evil.example", "\xff"] * 8:
        yield Attack("tokens", request("POST", "/v1/models/scifi/activate", BEARER | {"Origin": origin}), {403})


SOUND = 'name = "mine"\ntitle = "Mine"\n'


def tasks(chance: random.Random) -> Iterator[Attack]:
    paths_of_rows = ["/etc/passwd", "../../canary.txt", "~/canary.txt", "~root/x", "a/../../../canary.txt",
                     "/proc/self/environ", "/dev/zero",
                     "..", "//etc/passwd", "/", "http://169.254.169.254/rows.csv", "https://evil.example/rows.csv",
                     "s3://bucket/rows.csv", "file:///etc/passwd"]
    hostile = [f"{SOUND}[source]\npath = {json.dumps(path)}\n" for path in paths_of_rows]
    hostile += [f'{SOUND}[split]\nby = "file"\n[source]\npath = "a.csv"\ntest_path = {json.dumps(path)}\n'
                for path in [*paths_of_rows, "b.csv", "data/sample/scifi.jsonl"]]
    sound = SOUND + '[source]\npath = "a.csv"\n'
    hostile += [f"{sound}{key} = {value}\n" for key, value in [
        ("member", '"a.csv"'), ("member", '"../a.csv"'), ("test_member", '"b.csv"'), ("url", '"http://169.254.169.254/x"'),
        ("url", '"s3://bucket/x"'), ("data", '"sample"')]]
    hostile += [f'{SOUND}[split]\nby = "file"\n[source]\npath = "a.csv"\ntest_member = "b.csv"\n',
                f'data = "/etc/passwd"\n{sound}', f'data = "sample"\n{sound}']
    hostile += [f'{sound}[sample]\npath = {json.dumps(path)}\nattribution = "a"\nlicence = "b"\n'
                for path in [*paths_of_rows, "data/sample/scifi.jsonl"]]
    hostile += [f"{sound}[model]\nencoder = {json.dumps(name)}\n" for name in [
        "http://localhost/x", "https://evil.example/model", "/etc", "../../models/scifi", "~/x", "evil/model",
        "file:///etc/passwd",
        "s3://bucket/x", "a" * 5000, "models/scifi", ".", "", SCRIPT, "hf://x/y", "distilroberta-base/../../x"]]
    hostile += [f'models = ["/etc/passwd"]\n{sound}']
    hostile += [f"name = {json.dumps(name)}\n" + sound.split("\n", 1)[1] for name in [
        "../x", "/x", "a/b", "A", "", ".", "a" * 56, "a" * 15_000, "a\nb", SCRIPT, "a b", "..", "\u00e9"]]
    hostile += [f"{sound}[{table}]\n{key} = {value}\n" for (table, key), value in product(
        [("training", "epochs"), ("training", "batch_size"), ("training", "encoder_lr"), ("training", "seed"),
         ("split", "seed"),
         ("model", "max_length"), ("training", "soup"), ("split", "test"), ("labels", "min_share"), ("training", "patience")],
        ["-1", "inf", "nan", "-inf", "1e400", "9" * 5000, str(2**70), "[]", "1979-05-27"])
        if (key, value) not in {("encoder_lr", str(2**70))}]
    hostile += [f"{sound}[input]\nfields = {json.dumps(fields)}\ntemplate = {json.dumps(template)}\n" for fields, template in [
        (["a", "a.__class__"], "{a}{a.__class__}"), (["a[0]"], "{a[0]}"), (["a"] * 500, "{a}" * 500), (["a"], "{a!r}"),
        (["a"], "{a:>9999999}"),
        (["a"], "{a"), (["a"], "{}"), (["0"], "{0.__init__}"), ([], "{b}")]]
    broken = ["a = " + "[" * 15_000, "a = " + "{b=" * 5000, ".".join(["a"] * 4000) + " = 1", "[" * 5000, "a = 1\na = 2", "\x00",
              "\ufffe",
              "".join(f"k{number} = 1\n" for number in range(1500)), "".join(f"[t{number}]\n" for number in range(2000)),
              "[[a]]\n" * 3000,
              'a = """' + "x" * 10_000, "file = 1", sound + "file = '/etc/passwd'\n", "self = 1", "__class__ = 1", "[source]",
              SCRIPT, "=",
              "[[source]]\npath = 1", "source = 1", f'{sound}[demo]\nexamples = [1, {{}}, {{x = "y"}}]', '"" = 1',
              "a = 1979-13-99"]
    for text in [*hostile, *broken] * 2:
        parts = [part("task", text.encode(), "t.toml"), part("data", b"title,tags\na,b\n", "rows.csv")]
        chance.shuffle(parts)
        yield Attack("tasks", form("/v1/jobs/train", parts, **BEARER), {422})
        yield Attack("tasks", form("/v1/jobs/train", parts), {401})
    for _ in range(6):
        parts = [part("task", b"#" * chance.randint(20_001, 40_000), "t.toml"), part("data", b"a\n", "rows.csv")]
        yield Attack("tasks", form("/v1/jobs/train", parts, **BEARER), {413})
    for encoding in ("utf-16", "utf-32", "latin-1", "utf-8-sig"):
        parts = [part("task", (sound + "# é\n").encode(encoding), "t.toml"), part("data", b"a\n", "rows.csv")]
        yield Attack("tasks", form("/v1/jobs/train", parts, **BEARER), {422})
    settings = ["[]", "null", "1", '"x"', '{"epochs": 0}', '{"epochs": 51}', '{"epochs": 1e400}', '{"seed": -1}', '{"x": 1}',
                '{"epochs": "2"}',
                '{"\\ud800": 1}', '{"epochs": true}', '{"epochs": NaN}', '{"epochs": 2.5}', f'{{"seed": {2**31}}}']
    for text in settings * 3:
        parts = [part("task", sound.encode(), "t.toml"), part("data", b"a\n", "rows.csv"), part("settings", text.encode())]
        yield Attack("tasks", form("/v1/jobs/train", parts, **BEARER), {422})
        yield Attack("tasks", as_json("/v1/jobs/train", f'{{"task": "scifi", "settings": {text}}}'.encode(), **BEARER), {422})
    for text in ["{", "[" * 9000, f'{{"seed": {"9" * 5000}}}', "\xff", "nope"] * 3:
        parts = [part("task", sound.encode(), "t.toml"), part("data", b"a\n", "rows.csv"),
                 part("settings", text.encode("latin-1"))]
        yield Attack("tasks", form("/v1/jobs/train", parts, **BEARER), {400})
    for name in ["../scifi", "/etc/passwd", "scifi.toml", "../../canary.toml", "a" * 65, "", "SCIFI", "a/b", "nothing",
                 "\u0000", "*", "~"] * 5:
        yield Attack("tasks", as_json("/v1/jobs/train", json.dumps({"task": name}).encode(), **BEARER), {422})


# --- HTTP itself -------------------------------------------------------------------------------------------------


def heads(chance: random.Random) -> Iterator[Attack]:
    for method in ["HEAD", "OPTIONS", "PUT", "PATCH", "TRACE", "CONNECT", "PROPFIND", "MKCOL", "DELETE", "REPORT", "PURGE"] * 6:
        for path in ("/v1/tags", "/v1/models", "/healthz", "/v1/jobs/tag", "/metrics"):
            # DELETE /v1/jobs/tag asks for the removal of a job, and so for the token
            yield Attack("heads", request(method, path), {401 if (method, path) == ("DELETE", "/v1/jobs/tag") else 405})
    for host in ["", "[::1", "[", "a b", "\xff", "x" * 9000, "localhost:99999", "localhost:x", "evil.example", "..",
                 "http://x/", "@", "#"] * 6:
        yield Attack("heads", request("GET", "/nothing", {"Host": host}), {404})
        yield Attack("heads", request("GET", "/healthz", {"Host": host}), {200})
    for number in range(60):
        many = {f"X-{index}": "y" for index in range(number * 10)}
        yield Attack("heads", request("GET", "/healthz", many), {200})
        yield Attack("heads", request("GET", "/healthz", {"X": "y" * number * 500, "Cookie": "a=b; " * number * 50}), {200})
    odd = {"Range": "bytes=0-99999999999,-1", "If-None-Match": "*", "If-Modified-Since": "never", "Accept": "text/html",
           "Expect": "nothing",
           "X-HTTP-Method-Override": "DELETE", "X-Forwarded-Host": "evil.example", "X-Original-URL": "/v1/jobs",
           "Forwarded": "for=127.0.0.1",
           "Accept-Encoding": "gzip;q=1e400", "Content-Type": "application/json; charset=\xff",
           "Transfer-Encoding-X": "chunked"}
    for name, value in list(odd.items()) * 6:
        yield Attack("heads", request("GET", "/v1/models", {name: value}), {200})
        yield Attack("heads", request("GET", "/nothing", {name: value}), {404})
    for size in ["9" * 18, "99999999999", str(8_000_001)] * 10:
        yield Attack("heads", request("POST", "/v1/tags", {"Content-Type": "application/json", "Content-Length": size}), {413},
                     by_server=True)
    for chunks in [b"5\r\n{\"tex\r\n5\r\nt\":\"a\r\n2\r\n\"}\r\n0\r\n\r\n"] * 10:
        head = b"POST /v1/tags HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        yield Attack("heads", head + chunks, {200})


def broken_http(chance: random.Random) -> Iterator[Attack]:
    """What is no HTTP; uvicorn answers 400, or nothing, and closes the connection."""
    get = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
    broken = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"GET /healthz\r\n\r\n",
        b"get /healthz HTTP/1.1\r\n\r\n",
        b"GET /healthz HTTP/9.9\r\n\r\n", b"GET /\xff HTTP/1.1\r\n\r\n", b"FOO /healthz HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        get + b"Content-Length: -1\r\n\r\n", get + b"Content-Length: 1e3\r\n\r\n",
        get + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n",
        get + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        get + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        get + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc",
        get + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 20 + b"\r\nabc",
        get + b"X y: z\r\n\r\n", get + b"X\x00: z\r\n\r\n", get + b": z\r\n\r\n", get + b"X: a\r\n b\r\n\r\n",
        get + b"X: a\rb\r\n\r\n", get + b"\x00\r\n\r\n", b"GET  /healthz  HTTP/1.1\r\n\r\n", b"GET /healthz HTTP/1.1\nX\n\n",
        b"\r\n" * 50 + b"x",
        b"GET /healthz?" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", get + b"Transfer-Encoding: identity, chunked, x\r\n\r\n",
        get + b"Upgrade: h2c\r\nConnection: Upgrade\r\n\r\n", get + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        b"POST /v1/tags HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc",
    ]
    for raw in broken * 10:
        yield Attack("broken HTTP", raw, {200, 400, 403, 404, 422, 426}, by_server=True)
    for _ in range(400):
        raw = bytearray(get + b"Content-Length: 0\r\n\r\n")
        for _ in range(chance.randint(1, 3)):
            raw[chance.randrange(len(raw))] = chance.randrange(256)
        yield Attack("broken HTTP", bytes(raw), {200, 400, 404, 405}, by_server=True)
