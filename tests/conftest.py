"""What the tests share: a local Ray, made sounds, two S3 servers."""

import io
import os
import signal

from s3_server import bucket_on

# What a shell starts in the background ignores Ctrl-C, and so would every process that these tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Threads that wait do so asleep: with more tests than cores, spinning took several times the time of the work itself.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fault_proxy import faulty
from s3_server import S3Server, moto_server, swift_server
from xdist.scheduler import LoadFileScheduling

# Files that start Ray, over and over: a few lanes of them, begun before all others, which run beside and after them.
LANES = (
    ("test_train", "test_watchdog", "test_sampling", "test_outside", "test_pack"),
    ("test_kill", "test_run", "test_secrets", "test_ends"),
    ("test_two_nodes", "test_head", "test_private_ray", "test_goes_on", "test_codecs_outside", "test_through_ray"),
)
LANE_OF = {name: f"lane {number}" for number, lane in enumerate(LANES) for name in lane}


class Lanes(LoadFileScheduling):
    """What one process runs after another: a file, or the files of a lane. (--dist loadgroup needs pytest < 9.2.)"""

    def _split_scope(self, nodeid: str) -> str:
        file = super()._split_scope(nodeid)
        return LANE_OF.get(Path(file).stem, file)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Lanes | None:
    if config.getvalue("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False  # which would begin with the files of the most tests
    return Lanes(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in LANE_OF)


@pytest.fixture(scope="module")
def ray_local() -> Iterator[Callable[[], Any]]:
    """A private Ray of two CPUs for a file of tests, as a ``connect``."""
    from wavmill.cluster.connect import connect

    yield lambda: connect("local")
    import ray

    ray.shutdown()


@pytest.fixture(scope="module")
def on_ray(ray_local: Callable[[], Any]) -> Callable[..., Any]:
    """The engine that run() and fit() take, which has that Ray do all work."""
    from wavmill.pipeline.execution.ray_executor import RayExecutor

    return lambda job, seconds: RayExecutor(ray_local)


@pytest.fixture(scope="session")
def tone() -> Callable[..., np.ndarray]:
    """A made sound: a glide with a little seeded noise, (N,) float32."""

    def make(seconds: float = 1.0, rate_hz: int = 16_000, hz: float = 220.0, seed: int = 0) -> np.ndarray:
        t = np.arange(round(seconds * rate_hz)) / rate_hz
        noise = np.random.default_rng(seed).normal(0, 0.02, len(t))
        return (0.4 * np.sin(2 * np.pi * (hz * t + 30 * t * t)) + noise).astype(np.float32)

    return make


@pytest.fixture(scope="session")
def wav() -> Callable[..., bytes]:
    """Samples -> the bytes of a sound file."""

    def encode(samples: np.ndarray, rate_hz: int = 16_000, format: str = "WAV", subtype: str | None = None) -> bytes:
        sink = io.BytesIO()
        soundfile.write(sink, samples, rate_hz, format=format, subtype=subtype)
        return sink.getvalue()

    return encode


@pytest.fixture(autouse=True)
def asked_again_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that says an object is gone is asked again after a pause; here a short one."""
    from wavmill.pipeline.store import s3_corpus

    monkeypatch.setattr(s3_corpus, "PAUSE_S", 0.01)


@pytest.fixture
def corpus(tmp_path: Path, tone: Any, wav: Any) -> Path:
    """24 clips in 3 folders, one of them 5 s long, and three broken files."""
    root = tmp_path / "corpus"
    for number in range(24):
        folder = root / f"word{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        samples = tone(5.0 if number == 7 else 0.3 + 0.05 * number, hz=150 + 20 * number, seed=number)
        (folder / f"take{number:02d}.flac").write_bytes(wav(samples, format="FLAC"))
    (root / "word0" / "empty.wav").write_bytes(b"")
    (root / "word1" / "text.wav").write_text("not a sound")
    broken = tone(1.0)
    broken[100] = np.nan
    (root / "word2" / "nan.wav").write_bytes(wav(broken, subtype="FLOAT"))
    return root


@pytest.fixture
def few(tmp_path: Path, tone: Any, wav: Any) -> Path:
    """Two sounds and something that is none: three shards."""
    root = tmp_path / "few"
    root.mkdir()
    for number in range(2):
        (root / f"{number}.wav").write_bytes(wav(tone(0.3, seed=number)))
    (root / "text.wav").write_text("not a sound")
    return root


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    with moto_server() as server:
        yield server


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with swift_server(tmp_path_factory.mktemp("swift")) as server:
        yield server


@pytest.fixture(params=["folder", "moto", "swift"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty store of each kind; on S3 a bucket of its own."""
    if request.param == "folder":
        return str(tmp_path / "store")
    server: S3Server = request.getfixturevalue(request.param)
    return bucket_on(server, monkeypatch)


@pytest.fixture(scope="module")
def proxied(moto: S3Server) -> Iterator[Any]:
    """moto behind a proxy that keeps a log of all requests, and may spoil them; and the proxy."""
    with faulty(moto) as pair:
        yield pair


@pytest.fixture
def bucket(proxied: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """An address on the server behind the proxy, through which all requests of this process go."""
    return bucket_on(proxied[0], monkeypatch)
