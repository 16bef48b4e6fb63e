"""Tokens of GPT-SoVITS' checkpoints: the codes are those of its formula, whatever version of the file holds them."""

import io
import json
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import tiny_hubert
from hypothesis import given, settings
from hypothesis import strategies as st
from inline import rows_of, run_inline

from wavmill.model.quantization.projected_codebook import ProjectedCodebook
from wavmill.pipeline.errors import JobError, Reject
from wavmill.pipeline.job.dataset_job import resolve
from wavmill.pipeline.job.load import parse_job
from wavmill.pipeline.quantizers.gpt_sovits import GptSovitsTokens
from wavmill.pipeline.quantizers.gpt_sovits_checkpoint import CODEBOOK, INITED, NAMES, read_checkpoint

DIM, CODES = 48, 64
FEATURE = {"kind": "hubert", "input": "gpt_sovits", "normalize": False, "pad": "none", "dim": DIM, "layer": 3}


def tensors(stride: int = 2, dim: int = DIM, codes: int = CODES, seed: int = 0) -> dict[str, torch.Tensor]:
    """What is needed of a checkpoint, and some of what else is in one."""
    draw = torch.Generator().manual_seed(seed)
    return {
        NAMES["weight"]: torch.randn(dim, dim, stride, generator=draw) / (dim * stride) ** 0.5,
        NAMES["bias"]: torch.randn(dim, generator=draw),
        NAMES["embed"]: torch.randn(codes, dim, generator=draw),
        INITED: torch.ones(1),
        f"{CODEBOOK}.cluster_size": torch.ones(codes),
        "enc_p.ssl_proj.weight": torch.randn(4, dim, 1, generator=draw),  # another convolution, of almost that name
        "dec.conv_pre.weight": torch.randn(8, 4, 7, generator=draw),
    }


class HParams:
    """As upstream's utils.HParams pickles itself: an object with attributes."""

    def __init__(self, **given: object) -> None:
        self.__dict__.update(given)


def save(path: Path, weights: dict[str, torch.Tensor], config: object = None, head: bytes = b"PK") -> str:
    sink = io.BytesIO()
    torch.save({"weight": weights, "config": config or {}, "info": "10epoch"}, sink)
    assert zipfile.is_zipfile(sink)
    path.write_bytes(head + sink.getvalue()[2:])
    return str(path)


@pytest.fixture
def pickled_class(monkeypatch):
    """utils.HParams, while a checkpoint is written that holds one; reading must do without."""
    module = types.ModuleType("utils")
    monkeypatch.setitem(sys.modules, "utils", module)
    HParams.__module__, module.HParams = "utils", HParams
    yield HParams
    HParams.__module__ = __name__


def upstreams(frames: np.ndarray, weights: dict[str, torch.Tensor], dtype: torch.dtype = torch.float32) -> np.ndarray:
    """extract_latent, restated: a Conv1d, then the argmax over distances of core_vq.py."""
    weight, bias, embed = (weights[NAMES[name]].to(dtype) for name in ("weight", "bias", "embed"))
    ssl = torch.from_numpy(frames).to(dtype).T[None]  # (1, D, T)
    x = torch.nn.functional.conv1d(ssl, weight, bias, stride=weight.shape[2])[0].T
    distances = -(x.pow(2).sum(1, keepdim=True) - 2 * x @ embed.t() + embed.t().pow(2).sum(0, keepdim=True))
    return distances.max(dim=-1).indices.numpy()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("half", [False, True])
def test_the_codes_are_upstreams(tmp_path, stride, half):
    weights = tensors(stride)
    if half:  # as checkpoints are exported
        weights = {name: value.half() for name, value in weights.items()}
    quantizer, _ = read_checkpoint(save(tmp_path / "s2G.pth", weights))
    frames = np.random.default_rng(1).standard_normal((3001, DIM), np.float32)
    assert (quantizer.codes(frames) == upstreams(frames, {k: v.float() for k, v in weights.items()})).all()


@settings(deadline=None, max_examples=60)
@given(frames=st.integers(0, 700), stride=st.sampled_from([1, 2]), start=st.integers(0, 300), seed=st.integers(0, 9))
def test_a_token_is_the_same_in_any_company_and_every_stride_has_one(frames, stride, start, seed):
    weights = tensors(stride, dim=16, codes=20, seed=seed)
    quantizer = ProjectedCodebook(*(weights[name].numpy() for name in NAMES.values()))
    clip = np.random.default_rng(seed).standard_normal((frames, 16), np.float32)
    codes = quantizer.codes(clip)
    assert len(codes) == frames // stride
    at = start // stride * stride
    assert (quantizer.codes(clip[at:]) == codes[at // stride :]).all()
    latents = quantizer.latents(clip)
    assert (quantizer.latents(clip[at:]) == latents[at // stride :]).all()  # to the bit


@pytest.mark.parametrize("head", [b"PK", b"03", b"04", b"05", b"06"])
def test_every_version_of_the_file_is_read(tmp_path, head, pickled_class):
    weights = tensors()
    plain = save(tmp_path / "s2G488k.pth", weights)
    tuned = save(tmp_path / "tuned_e8_s200.pth", weights, pickled_class(model=pickled_class(version="v2Pro")), head)
    sys.modules.pop("utils")
    found, digest = read_checkpoint(tuned)
    assert digest == read_checkpoint(plain)[1]
    assert found.stride == 2 and found.embed.shape == (CODES, DIM)


def test_a_file_that_pickles_what_could_run_is_refused(tmp_path):
    class Runs:
        def __reduce__(self):
            return Path(tmp_path, "ran").write_text, ("by a pickle",)

    path = save(tmp_path / "s2G.pth", tensors(), Runs())
    with pytest.raises(JobError, match=r"is no checkpoint of GPT-SoVITS"):
        read_checkpoint(path)
    assert not (tmp_path / "ran").exists()


def without(*names):
    return {name: value for name, value in tensors().items() if name not in names}


@pytest.mark.parametrize(
    ("weights", "why"),
    [
        (without(NAMES["embed"]), r"has no quantizer\.vq\.layers\.0\._codebook\.embed"),
        (without(*NAMES.values()), r"has no ssl_proj\.weight, ssl_proj\.bias, quantizer"),
        (tensors() | {NAMES["embed"]: torch.randn(CODES, DIM + 1)}, "shapes do not fit each other"),
        (tensors() | {NAMES["bias"]: torch.full((DIM,), torch.nan)}, r"ssl_proj\.bias is not finite"),
        (tensors(stride=3), "3 frames wide; it should be 1"),
        (tensors() | {INITED: torch.zeros(1)}, "was never trained"),
    ],
    ids=["no codebook", "none of it", "widths", "nan", "stride", "untrained"],
)
def test_a_checkpoint_that_cannot_be_used_is_one_clear_error(tmp_path, weights, why):
    with pytest.raises(JobError, match=why):
        read_checkpoint(save(tmp_path / "s2G.pth", weights))


@pytest.mark.parametrize("data", [b"", b"PK", b"no checkpoint at all", b"03" + b"\0" * 100])
def test_any_other_file_is_said_to_be_none(tmp_path, data):
    (tmp_path / "s2G.pth").write_bytes(data)
    with pytest.raises(JobError, match=r"s2G\.pth is no checkpoint of GPT-SoVITS"):
        read_checkpoint(str(tmp_path / "s2G.pth"))
    with pytest.raises(JobError, match="there is no file"):
        read_checkpoint(str(tmp_path / "s2Gx.pth"))


def test_features_of_another_kind_are_refused_with_all_that_is_wrong(tmp_path):
    step = GptSovitsTokens(model=save(tmp_path / "s2G.pth", tensors()))
    assert step.fitted(lambda: {"feature": FEATURE}).stride == 2
    with pytest.raises(JobError, match=r"feature\.input is plain, and it should be gpt_sovits; feature\.dim is 768"):
        step.fitted(lambda: {"feature": {**FEATURE, "input": "plain", "dim": 768}})
    with pytest.raises(JobError, match=r"feature\.kind is None"):
        step.fitted(lambda: {"feature": None})
    base = GptSovitsTokens(model=save(tmp_path / "base.pth", tensors(dim=768)))
    with pytest.raises(JobError, match=r"feature\.layer is 9, and it should be 12"):
        base.fitted(lambda: {"feature": {**FEATURE, "dim": 768, "layer": 9}})
    with pytest.raises(JobError, match=r"token\.stride is 1; that of .* is 2"):
        GptSovitsTokens(model=step.model, stride=1).fitted(lambda: {"feature": FEATURE})


def test_a_clip_too_short_for_a_token_is_a_reject(tmp_path):
    step = GptSovitsTokens(model=save(tmp_path / "s2G.pth", tensors())).fitted(lambda: {"feature": FEATURE})
    short, enough = step.open()([np.zeros((1, 1, DIM), np.float32), np.zeros((2, 1, DIM), np.float32)])
    assert isinstance(short, Reject) and short.reason == "too_short" and len(enough) == 1


def test_a_checkpoint_that_changed_since_the_plan_is_refused(tmp_path):
    step = GptSovitsTokens(model=save(tmp_path / "s2G.pth", tensors())).fitted(lambda: {"feature": FEATURE})
    read_checkpoint.cache_clear()
    save(tmp_path / "s2G.pth", tensors(seed=1))
    with pytest.raises(JobError, match="the job was planned with"):
        step.check_here()


def test_what_a_dataset_carries_is_enough_to_make_its_tokens_again(tmp_path):
    step = GptSovitsTokens(model=save(tmp_path / "s2G.pth", tensors())).fitted(lambda: {"feature": FEATURE})
    for name, data in step.files().items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    described = json.loads((tmp_path / "quantizer/gpt_sovits.json").read_text())
    again = GptSovitsTokens(model=str(tmp_path / "quantizer/gpt_sovits.safetensors")).fitted(
        lambda: {"feature": FEATURE}
    )
    assert again.identity() == step.identity() == described["sha256"]
    frames = np.random.default_rng(2).standard_normal((99, 1, DIM), np.float32)
    assert (again.open()([frames])[0] == step.open()([frames])[0]).all()


def test_a_job_publishes_25_tokens_a_second_and_what_made_them(tmp_path, tone, wav):
    (tmp_path / "corpus").mkdir()
    for number in range(3):
        sound = wav(tone(1.0 + 0.31 * number, rate_hz=32_000, seed=number), rate_hz=32_000)
        (tmp_path / "corpus" / f"{number}.wav").write_bytes(sound)
    (tmp_path / "corpus" / "short.wav").write_bytes(wav(tone(0.03, rate_hz=32_000), rate_hz=32_000))  # one frame
    job = resolve(parse_job(f"""
name: semantic
source: {{kind: files, path: {tmp_path}/corpus}}
feature: {{kind: hubert, model: {tiny_hubert()}, layer: last, input: gpt_sovits}}
token: {{kind: gpt_sovits, model: {save(tmp_path / "s2G.pth", tensors())}}}
keep: [feature, token]
store: {tmp_path}/store
"""))  # fmt: skip
    dataset = run_inline(job)
    token = dataset.columns["token"]
    assert (token.rate_hz, token.codes, token.codebook) == ("25", str(CODES), job.token.sha256)
    assert dataset.counts.rejected == 1 and dataset.counts.done == 3
    for row in rows_of(job, dataset).to_pylist():
        feature = np.array(row["feature"], np.float32)
        assert row["token"] == upstreams(feature.reshape(len(feature), DIM), tensors()).tolist()
    carried = tmp_path / "store/semantic/v1/quantizer/gpt_sovits.safetensors"
    assert read_checkpoint(str(carried))[1] == token.codebook
