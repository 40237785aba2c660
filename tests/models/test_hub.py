"""Caches laid out as torch hub, the HF hub and pytorchcv lay them, and downloads from a server on this machine."""

from __future__ import annotations

import hashlib
import json
import runpy
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants as hub_constants

from bagoftricks.cli import main
from bagoftricks.data import download as download_module
from bagoftricks.errors import RunError, UserError
from bagoftricks.models import hub, published
from bagoftricks.models.hub import cached, known_checksum, resolve, weights_file
from bagoftricks.models.published import PUBLISHED, identify
from tests.data.test_download import Site

TV, TIMM, CV = "torchvision:resnet50.IMAGENET1K_V2", "timm:resnet50d.ra2_in1k", "pytorchcv:resnet50"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
CONTENT = b"weights" * 1000
SWITCHES = (
    "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "TORCH_HOME",
    "XDG_CACHE_HOME", "HF_TOKEN", "TQDM_DISABLE",
)  # fmt: skip


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nobody's caches, and no way out: where a test starts no server, nothing answers."""
    for name in SWITCHES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(published, "TORCHVISION", "http://127.0.0.1:9/")
    monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(download_module, "BACKOFF_S", 0.0)
    return tmp_path


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Makes the published checksums those of a few bytes."""
    for item in (
        replace(PUBLISHED[TV], sha256=sha256(CONTENT)[:8]),
        replace(PUBLISHED[TIMM], sha256=sha256(CONTENT)[:8]),
        replace(PUBLISHED[CV], sha1=hashlib.sha1(CONTENT).hexdigest()),
    ):
        monkeypatch.setitem(PUBLISHED, item.name, item)
    return CONTENT


def in_torch_hub(name: str, content: bytes) -> Path:
    path = Path(torch.hub.get_dir()) / "checkpoints" / PUBLISHED[name].file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def in_hf_hub(home: Path, name: str, content: bytes, file: str = "model.safetensors") -> Path:
    """Writes what huggingface_hub writes: a blob, named by its checksum, and a link to it in the commit's folder."""
    repository = home / ".cache" / "huggingface" / "hub" / f"models--{PUBLISHED[name].hub_id.replace('/', '--')}"
    link = repository / "snapshots" / COMMIT / file
    for folder in (repository / "blobs", repository / "refs", link.parent):
        folder.mkdir(parents=True, exist_ok=True)
    (repository / "blobs" / sha256(content)).write_bytes(content)
    (repository / "refs" / "main").write_text(COMMIT)
    link.symlink_to(Path("..") / ".." / "blobs" / sha256(content))
    return link


# --------------------------------------------------------------------------------------------- where the tools look


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"XDG_CACHE_HOME": "/xdg"},
        {"TORCH_HOME": "~/t", "HF_HOME": "~/h"},
        {"TORCH_HOME": "/t", "HF_HOME": "$HOME/h", "XDG_CACHE_HOME": "/xdg"},
        {"HUGGINGFACE_HUB_CACHE": "/old", "HF_HOME": "/h"},
        {"HF_HUB_CACHE": "~/new", "HUGGINGFACE_HUB_CACHE": "/old", "HF_HOME": "/h"},
        {"XDG_CACHE_HOME": "~nobody-of-this-name/c"},
    ],
)
def test_the_caches_are_those_of_torch_and_huggingface(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert hub.torch_folder() == Path(torch.hub.get_dir()) / "checkpoints"
    theirs = runpy.run_path(hub_constants.__file__)
    assert hub.hf_folder() == Path(theirs["HF_HUB_CACHE"])


@pytest.mark.parametrize("value", ["1", "true", "Yes", "ON", "0", "", "no", "2", "off"])
@pytest.mark.parametrize("other", [None, "1", "0"])
def test_offline_is_what_huggingface_takes_for_it(
    value: str, other: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    if other is not None:
        monkeypatch.setenv("TRANSFORMERS_OFFLINE", other)
    assert hub.offline() is runpy.run_path(hub_constants.__file__)["HF_HUB_OFFLINE"]


# ---------------------------------------------------------------------------------------------------- found in caches


def test_found_in_torch_hubs_cache(tiny: bytes) -> None:
    path = in_torch_hub(TV, tiny)
    assert resolve("torchvision:IMAGENET1K_V2") == resolve(TV) == path
    assert cached(PUBLISHED[TV]) == ("torch hub", path)


def test_a_damaged_file_of_torch_hub_is_refused(tiny: bytes) -> None:
    path = in_torch_hub(TV, tiny[:-1])
    with pytest.raises(RunError, match=f"{path.name}: is not {TV}, or is damaged .*begins with .*; remove it and run"):
        resolve(TV)
    assert path.exists()  # it is not ours to remove
    path.write_bytes(tiny + b"")
    assert resolve(TV) == path


def test_found_in_the_hf_hubs_cache(home: Path) -> None:
    link = in_hf_hub(home, TIMM, CONTENT)
    theirs = huggingface_hub.try_to_load_from_cache(
        "timm/resnet50d.ra2_in1k", "model.safetensors", cache_dir=hub.hf_folder()
    )
    assert resolve(TIMM) == link == Path(str(theirs))
    assert cached(PUBLISHED[TIMM]) == ("HF hub", link)
    assert identify(link, sha256(CONTENT)) == PUBLISHED[TIMM]


def test_an_older_cache_holds_a_pickle(home: Path, tiny: bytes) -> None:
    link = in_hf_hub(home, TIMM, tiny, "pytorch_model.bin")
    assert resolve(TIMM) == link
    better = in_hf_hub(home, TIMM, b"better", "model.safetensors")
    assert resolve(TIMM) == better


def test_timms_own_download_without_the_hub_is_found(home: Path, tiny: bytes) -> None:
    path = in_torch_hub(TIMM, tiny)
    assert path.name == "resnet50d_ra2-464e36ba.pth"
    assert resolve(TIMM) == path


def test_a_blob_shared_by_repositories(home: Path) -> None:
    """Later versions of huggingface_hub link the blob itself to a store of the whole cache, whose names are others."""
    link = in_hf_hub(home, TIMM, CONTENT)
    blob = link.resolve()
    shared = home / ".cache" / "huggingface" / "hub" / "blobs" / "ab" / ("ab" + "0" * 62)
    shared.parent.mkdir(parents=True)
    blob.rename(shared)
    blob.symlink_to(shared)
    assert resolve(TIMM) == link
    assert identify(link, sha256(CONTENT)) == PUBLISHED[TIMM]
    shared.write_bytes(CONTENT[1:])
    with pytest.raises(RunError, match=f"is damaged .*remove {shared}"):
        resolve(TIMM)


def test_a_damaged_blob_is_refused(home: Path, tiny: bytes) -> None:
    link = in_hf_hub(home, TIMM, tiny)
    link.resolve().write_bytes(tiny[:-1])
    with pytest.raises(
        RunError, match=f"is not {TIMM}, or is damaged .*remove {link.resolve()} and run again"
    ) as caught:
        resolve(TIMM)
    assert "\n" not in str(caught.value)


def test_a_published_checksum_counts_more_than_the_caches_own(
    home: Path, tiny: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = in_hf_hub(home, TIMM, tiny)
    monkeypatch.setitem(PUBLISHED, TIMM, replace(PUBLISHED[TIMM], hub_sha256=sha256(tiny)))
    assert resolve(TIMM) == link
    monkeypatch.setitem(PUBLISHED, TIMM, replace(PUBLISHED[TIMM], hub_sha256=sha256(b"as published")))
    with pytest.raises(RunError, match="is damaged"):
        resolve(TIMM)


def test_a_cache_without_links(home: Path, tiny: bytes) -> None:
    """As on Windows: what the hub said of the file is not known any more."""
    link = in_hf_hub(home, TIMM, tiny)
    link.unlink()
    link.write_bytes(tiny)
    assert resolve(TIMM) == link
    item = PUBLISHED[TIMM]
    assert (weights_file(TIMM).item, known_checksum(item, link)) == (item, ("sha256", ""))


@pytest.mark.parametrize("commit", ["", "../../../../etc", "f" * 40])
def test_a_cache_that_leads_nowhere(home: Path, tiny: bytes, commit: str) -> None:
    link = in_hf_hub(home, TIMM, tiny)
    (link.parents[2] / "refs" / "main").write_text(commit)
    assert cached(PUBLISHED[TIMM]) is None


def test_each_version_of_a_file_is_read_once(tiny: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = in_torch_hub(TV, tiny), []
    digest = hub.file_digest
    monkeypatch.setattr(hub, "file_digest", lambda path: read.append(path) or digest(path))
    for _ in range(3):
        resolve(TV)
        assert hub.sha256_of(path) == sha256(tiny)
    assert read == [path]
    path.write_bytes(tiny + b"more")
    with pytest.raises(RunError, match="is damaged"):
        resolve(TV)
    assert read == [path, path]


def test_pytorchcvs_file(home: Path, tiny: bytes) -> None:
    with pytest.raises(UserError, match=r"not in .*/\.torch/models; pytorchcv fetches it: pip install pytorchcv && "):
        resolve(CV)
    path = home / ".torch" / "models" / PUBLISHED[CV].file
    path.parent.mkdir(parents=True)
    path.write_bytes(tiny)
    assert resolve(CV) == path
    assert cached(PUBLISHED[CV]) == ("pytorchcv", path)
    path.write_bytes(b"other")
    with pytest.raises(RunError, match="its sha1 begins with"):
        resolve(CV)


def test_a_local_file(home: Path) -> None:
    path = home / "w.pth"
    path.write_bytes(b"mine")
    assert resolve(str(path)) == resolve("~/w.pth") == path
    with pytest.raises(UserError, match="initial weights none.pth: no such file; pass a .safetensors or .pth"):
        resolve("none.pth")
    with pytest.raises(UserError, match="no such file.*a name that tricks weights lists"):
        resolve("timm/resnet50d.ra2_in1k")
    with pytest.raises(UserError, match="did you mean 'timm:resnet50d.ra2_in1k'"):
        resolve("timm:resnet50d.ra2")


@pytest.mark.parametrize("switch", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
@pytest.mark.parametrize("name", [TV, TIMM])
def test_offline(name: str, switch: str, home: Path, tiny: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(switch, "1")
    with pytest.raises(
        UserError, match="torch/hub/checkpoints, and HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE forbids"
    ) as e:
        resolve(name)
    assert ("huggingface/hub" in str(e.value)) == (name == TIMM)
    in_torch_hub(name, tiny)
    resolve(name)


# --------------------------------------------------------------------------------------------- torchvision's downloads


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tiny: bytes) -> Iterator[Site]:
    with Site(content=tiny) as running:
        monkeypatch.setattr(published, "TORCHVISION", running.url.removesuffix("file"))
        yield running


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_torchvisions_are_downloaded_into_torch_hubs_cache(site: Site) -> None:
    told: list[tuple[int, int | None]] = []
    path = resolve(TV, progress=lambda *now: told.append(now))
    assert path == hub.torch_folder() / "resnet50-11ad3fa6.pth"
    assert path.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert names_in(path.parent) == [path.name]
    assert resolve(TV) == path
    assert [request[""] for request in site.seen] == ["GET /resnet50-11ad3fa6.pth"]


def test_torchvision_itself_finds_it_there(site: Site, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"a": torch.ones(2)}, home / "w.pth")
    site.content = (home / "w.pth").read_bytes()
    digits = sha256(site.content)[:8]
    item = replace(PUBLISHED[TV], sha256=digits, file=f"resnet50-{digits}.pth")
    monkeypatch.setitem(PUBLISHED, TV, item)
    resolve(TV)
    state = torch.hub.load_state_dict_from_url(item.url, check_hash=True, progress=False)
    assert torch.equal(state["a"], torch.ones(2))
    assert len(site.seen) == 1


def test_a_broken_download_goes_on(site: Site) -> None:
    site.breaks = [3000, 0, 0, 0, 0]
    with pytest.raises(RunError, match=r"3,000 bytes.*put it at .*/resnet50-11ad3fa6.pth$"):
        resolve(TV)
    resolve(TV)
    assert site.sent == len(CONTENT)


def test_a_download_that_is_something_else_is_not_kept(site: Site) -> None:
    site.content = b"<html>"
    with pytest.raises(RunError, match=f"is not {TV}, or the connection alters it .*nothing was kept") as caught:
        resolve(TV)
    assert "\n" not in str(caught.value)
    assert names_in(hub.torch_folder()) == []


def test_a_download_without_end_is_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "LARGEST", 1000)
    with pytest.raises(RunError, match="more than 1,000"):
        resolve(TV)


def test_torchvision_not_found(site: Site) -> None:
    site.statuses = [(404, {})]
    with pytest.raises(RunError, match="404 Not Found.*download it by hand and put it at .*11ad3fa6.pth$"):
        resolve(TV)


# -------------------------------------------------------------------------------------------- the HF hub's downloads


@dataclass
class HubSite:
    """A hub of one file, with the headers that huggingface_hub needs."""

    content: bytes
    status: int = 200
    etag: str = ""
    seen: list[str] = field(default_factory=list)

    def __enter__(self) -> HubSite:
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                site.seen.append(f"{self.command} {self.path}")
                self.send_response(site.status)
                self.send_header("X-Repo-Commit", COMMIT)
                self.send_header("ETag", f'"{site.etag or sha256(site.content)}"')
                self.send_header("Content-Length", str(len(site.content) if site.status == 200 else 0))
                self.end_headers()

            def do_GET(self) -> None:
                self.do_HEAD()
                if site.status == 200:
                    self.wfile.write(site.content)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def hub_site(monkeypatch: pytest.MonkeyPatch, tiny: bytes) -> Iterator[HubSite]:
    with HubSite(tiny) as running:
        monkeypatch.setenv("HF_ENDPOINT", f"{running.url}/")
        yield running


FILE = "/timm/resnet50d.ra2_in1k/resolve/main/model.safetensors"


def test_timms_are_downloaded_into_the_hf_hubs_cache(
    hub_site: HubSite, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    told: list[tuple[int, int | None]] = []
    path = resolve(TIMM, progress=lambda *now: told.append(now))
    repository = home / ".cache" / "huggingface" / "hub" / "models--timm--resnet50d.ra2_in1k"
    assert path == repository / "snapshots" / COMMIT / "model.safetensors"
    assert path.read_bytes() == CONTENT
    assert (repository / "blobs" / sha256(CONTENT)).is_file()
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert resolve(TIMM) == path
    assert hub_site.seen == [f"HEAD {FILE}", f"GET {FILE}"]
    assert cached(PUBLISHED[TIMM]) == ("HF hub", path)
    assert capfd.readouterr().out == ""


def test_a_library_that_takes_no_progress_downloads_all_the_same(
    hub_site: HubSite, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """huggingface_hub before its version 1, which the extra allows."""
    plain = huggingface_hub.hf_hub_download

    def earlier(repo_id: str, filename: str, *, cache_dir: Path, endpoint: str) -> str:
        return plain(repo_id, filename, cache_dir=cache_dir, endpoint=endpoint)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", earlier)
    assert resolve(TIMM).read_bytes() == CONTENT


def test_the_hub_holds_something_else(hub_site: HubSite, monkeypatch: pytest.MonkeyPatch) -> None:
    hub_site.etag = sha256(b"as it should be")
    with pytest.raises(RunError, match=f"is not {TIMM}, or is damaged"):
        resolve(TIMM)


@pytest.mark.parametrize("status", [401, 404])
def test_the_hub_refuses(hub_site: HubSite, status: int) -> None:
    hub_site.status = status
    with pytest.raises(RunError, match=f"{FILE}: cannot be downloaded .*check the connection and run again") as caught:
        resolve(TIMM)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("endpoint", ["http://mirror.example", "file:///etc", "https://user:secret@mirror.example"])
def test_an_endpoint_that_nothing_is_downloaded_from(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(UserError, match="HF_ENDPOINT ") as caught:
        resolve(TIMM)
    assert "secret" not in str(caught.value)


def test_without_huggingface_hub(hub_site: HubSite, monkeypatch: pytest.MonkeyPatch, home: Path, tiny: bytes) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"pip install .*\[hub\]', or download http.*/model.safetensors"):
        resolve(TIMM)
    assert hub_site.seen == []
    link = in_hf_hub(home, TIMM, tiny)
    assert resolve(TIMM) == link  # what the cache holds needs no library


# --------------------------------------------------------------------------------------------------------- the command


def test_the_command_lists(home: Path, tiny: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    path = in_torch_hub(TV, tiny)
    assert main(["weights"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if TV in line]
    assert all(text in line for text in ("ResNet-50-B", "80.9 at 224", "bsd-3-clause", "torch hub"))
    assert sum(any(name in line for name in PUBLISHED) for line in lines) == len(PUBLISHED)
    assert main(["weights", "--json"]) == 0
    rows: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == list(PUBLISHED)
    here = {row["name"]: (row["cache"], row["path"]) for row in rows if row["cache"]}
    assert here == dict.fromkeys((TV, "timm:resnet50.tv2_in1k"), ("torch hub", str(path)))  # two names of one file
    assert set(rows[0]) >= {"architecture", "tweaks", "depth", "source", "licence", "top1", "size"}


def test_the_command_shows_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", TIMM]) == 0
    out = capsys.readouterr().out
    assert "ResNet-50-BCD" in out
    assert "Licence: apache-2.0" in out
    assert "81.35 %, images of 288 pixels" in out
    assert "Not here" in out


def test_the_command_fetches(hub_site: HubSite, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["weights", TIMM, "--download", "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["name"], row["cache"]) == (TIMM, "HF hub")
    assert Path(row["path"]).read_bytes() == CONTENT
    assert main(["weights", TIMM, "--download"]) == 0
    assert "In the cache of HF hub: " in capsys.readouterr().out
    assert len(hub_site.seen) == 2


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["timm:resnet50d.ra2"], 2, "did you mean 'timm:resnet50d.ra2_in1k'"),
        (["--download"], 2, "--download needs a name"),
        ([TV, "--download"], 1, "cannot be downloaded"),
        ([CV, "--download"], 2, "pytorchcv fetches it"),
    ],
)
def test_the_commands_exit_statuses(
    arguments: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["weights", *arguments]) == status
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err


def test_every_entry_can_be_resolved_offline_or_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name, item in PUBLISHED.items():
        with pytest.raises(UserError, match=name) as caught:
            resolve(name)
        assert "\n" not in str(caught.value)
        assert ("huggingface" in str(caught.value)) == bool(item.hub_id)
