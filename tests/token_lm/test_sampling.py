"""Samplers: what may be drawn is drawn, nothing else is, and who draws it changes nothing."""

from collections import Counter
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import tiny_whisper
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from inline import rows_of, run_inline

from wavmill.pipeline.errors import JobError
from wavmill.pipeline.exports.clips import Clips
from wavmill.pipeline.exports.draws import Contiguous, PoseSimilar, Single, similar_pose_other_mouth
from wavmill.pipeline.exports.images import Pictures, frames_of
from wavmill.pipeline.exports.samples import MuseTalkSamples, Wav2LipSamples, epoch_of, time_major
from wavmill.pipeline.job.dataset_job import resolve
from wavmill.pipeline.job.load import parse_job
from wavmill.pipeline.windows.gather import gather
from wavmill.pipeline.windows.wav2lip import start_of

quick = settings(deadline=None, max_examples=100)
LENGTHS = st.lists(st.integers(0, 80), min_size=1, max_size=6)


def fitting(mels: int, window: int) -> int:
    """How many windows end within a mel, at 25 fps."""
    return next(i for i in range(10_000) if start_of(i) + window > mels)


# ---- which frames ------------------------------------------------------------------------------------------------


@quick
@given(LENGTHS, st.integers(0, 9), st.integers(0, 9), st.integers(0, 999))
def test_single_draws_targets_away_from_the_edges_and_references_more_than_5_away(lengths, seed, epoch, number):
    frames = np.array(lengths)
    assume(max(lengths) > 11)
    drawn = Single(frames, seed)(epoch, number)
    count, [target], [reference] = lengths[drawn.clip], drawn.frames, drawn.references
    assert count > 11 and 2 <= target <= count - 3 and 0 <= reference < count and abs(target - reference) > 5


def test_single_draws_every_target_and_every_reference_there_is():
    sampler = Single(np.array([14]))
    seen = {(int(d.frames[0]), int(d.references[0])) for d in (sampler(0, number) for number in range(3000))}
    assert seen == {(t, r) for t in range(2, 12) for r in range(14) if abs(t - r) > 5}


@quick
@given(LENGTHS, st.integers(0, 9), st.integers(0, 999), st.sampled_from([1, 5, 16]), st.booleans())
def test_contiguous_draws_frames_in_a_row_whose_mels_are_all_there(lengths, seed, number, length, overlap):
    frames = np.array(lengths)
    mels = 1 + frames * 640 // 200
    window = -(-16 * length // 5)
    fit = np.minimum([fitting(int(m), window) for m in mels], frames)
    usable = [
        i for i, n in enumerate(lengths) if n > 3 * length and min(n - length, fit[i] - length + 1, fit[i] - 1) >= 1
    ]
    if not usable:
        with pytest.raises(ValueError, match="no clip"):
            Contiguous(frames, fit, length, seed)
        return
    sampler = Contiguous(frames, fit, length, seed, overlap=overlap)
    drawn = sampler(0, number)
    count, start, wrong = lengths[drawn.clip], int(drawn.frames[0]), int(drawn.references[0])
    assert sampler.usable.tolist() == usable and {*sampler.too_short} | {*usable} == {*range(len(lengths))}
    assert np.array_equal(drawn.frames, np.arange(start, start + length)) and 1 <= start <= count - length
    assert np.array_equal(drawn.references, np.arange(wrong, wrong + length)) and 0 <= wrong <= count - length
    assert wrong != start and (overlap or abs(wrong - start) >= length)
    starts = [start, *range(start - 1, start + length - 1)]
    assert all(start_of(i) + window <= mels[drawn.clip] for i in starts)


@pytest.mark.parametrize(("seconds", "last"), [(1, 17), (3, 67), (30, 742)])
def test_the_usable_starts_are_the_published_ones(seconds, last):
    frames, mels = 25 * seconds, 1 + 16_000 * seconds // 200
    sampler = Contiguous(np.array([frames]), np.array([fitting(mels, 16)]))
    assert sampler.targets(0).tolist() == list(range(1, last + 1))
    if seconds == 1:
        assert {int(sampler(0, n).frames[0]) for n in range(500)} == {*range(1, 18)}


def landmarks(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 68, 2))


def test_like_pose_and_another_mouth_are_the_two_sets_upstream_cuts():
    points = landmarks(60)
    for frame in (0, 7, 59):

        def apart(some: slice, frame: int = frame) -> list[float]:
            return [np.mean([np.hypot(*(a - b)) for a, b in zip(points[i, some], points[frame, some], strict=True)])
                    for i in range(60)]  # fmt: skip

        k = int(0.51 * 60)
        near = np.argsort(apart(slice(0, 16)))[1 : k + 1]
        far = np.argsort(apart(slice(60, 67)))[::-1][:k]
        assert {*similar_pose_other_mouth(points, frame)} == {*near} & {*far}


@quick
@given(st.integers(0, 9), st.integers(0, 999), st.sampled_from([1, 5, 16]))
def test_a_reference_of_v1_5_is_never_the_frame_itself_nor_near(seed, number, length):
    counts = np.array([10 * length, 10 * length - 1, 12 * length])
    points = [landmarks(int(count), i) for i, count in enumerate(counts)]
    sampler = PoseSimilar(counts, points, length, seed)
    assert sampler.too_short.tolist() == [1]
    drawn = sampler(3, number)
    assert len(drawn.frames) == length and (np.diff(drawn.frames) == 1).all()
    assert (drawn.references >= 0).all() and (drawn.references < counts[drawn.clip]).all()
    assert (np.abs(drawn.references - drawn.frames) >= 5).all()
    with pytest.raises(ValueError, match="landmarks"):
        PoseSimilar(counts, [points[0][:, :5]] * 3, length)


@quick
@given(st.lists(st.booleans(), min_size=12, max_size=90), st.integers(0, 99), st.sampled_from([1, 3, 5]))
def test_frames_without_a_picture_are_never_drawn_and_all_others_can_be(mask, seed, length):
    """Every strategy against all that there is to choose from, tried out one by one."""
    there, n = [np.array(mask)], len(mask)
    present = [i for i in range(n) if mask[i]]
    rows = [i for i in range(n - length + 1) if all(mask[i : i + length])]
    frames, points = np.array([n]), [landmarks(n)]
    singles = [t for t in present if 2 <= t < n - 2 and any(abs(r - t) > 5 for r in present)]
    starts = [f for f in rows if n > 3 * length and f >= 1 and any(abs(w - f) >= length for w in rows)]
    alone = [t for t in present if not any(abs(r - t) >= 5 for r in present)]
    posed = [f for f in rows if n >= 10 * length and not {*alone} & {*range(f, f + length)}]
    made = {
        "single": (lambda: Single(frames, seed, there=there), singles),
        "contiguous": (lambda: Contiguous(frames, np.array([1000]), length, seed, there=there), starts),
        "posed": (lambda: PoseSimilar(frames, points, length, seed, there=there), posed),
    }
    for name, (make, right) in made.items():
        if not right:
            with pytest.raises(ValueError, match="no clip has"):
                make()
            continue
        sampler = make()
        assert sampler.targets(0).tolist() == right, name
        for number in range(5):
            drawn = sampler(0, number)
            assert all(mask[i] for i in [*drawn.frames, *drawn.references])


def test_frames_without_a_window_are_no_targets(tmp_path, tone, wav):
    """edge: reject at 50 fps leaves out more than two frames at each end."""
    body = STATES.format(model=tiny_whisper(1)).replace("fps: 25", "fps: 50, edge: reject")
    job, _ = published(tmp_path, tone, wav, body)
    clips = Clips(job.address, tmp_path / "cache")
    assert clips.edges[3].tolist() == [4, 5]
    samples = MuseTalkSamples(clips, Single(clips.frames, per_epoch=200, edges=clips.edges))
    assert all(np.abs(samples[number]["audio"]).max() > 0 for number in range(200))
    careless = MuseTalkSamples(clips, Single(clips.frames, per_epoch=400))
    with pytest.raises(ValueError, match=r"edges=clips\.edges"):
        _ = [careless[number] for number in range(400)]


def test_at_any_rate_the_mels_of_a_sample_end_within_the_clip(tmp_path, tone, wav):
    job, _ = published(tmp_path, tone, wav, MELS.replace("fps: 25", "fps: 30"))
    clips = Clips(job.address, tmp_path / "cache")
    samples = Wav2LipSamples.of(clips, 5, per_epoch=300)
    last = {}
    for number in range(300):
        drawn = samples.strategy(0, number)
        last[drawn.clip] = max(last.get(drawn.clip, 0), int(drawn.frames[0]))
        windows = clips[drawn.clip].window[drawn.frames - 1]
        assert all(window[0] == (frame - 1) * 80 // 30 for window, frame in zip(windows, drawn.frames, strict=True))
    assert last[3] >= 60  # of 78 frames in 2.6 s; as at 25 fps it would be 58 at the most


@pytest.mark.parametrize(
    ("names", "frames"),
    [(["0.png", "1.png", "3.png"], [0, 1, 3]), (["1.jpg", "2.jpg"], [1, 2]), (["f_01.png", "f_03.png"], [0, 2]),
     (["000.png", "001.png"], [0, 1]), (["audio.wav", "a/0.png", "x.npy"], []), (["7.PNG"], [7])],
)  # fmt: skip
def test_a_picture_s_frame_is_what_its_name_ends_with(names, frames):
    assert list(frames_of(names)) == frames


def test_clips_are_drawn_alike_or_by_their_length_and_what_is_too_short_is_listed():
    frames = np.array([20, 5, 200])
    alike, by_length = (Single(frames, weights=weights) for weights in ("uniform", "length"))
    assert alike.too_short.tolist() == [1] and alike.per_epoch == 2
    for sampler, share in ((alike, 0.5), (by_length, 20 / 220)):
        drawn = Counter(sampler(0, n).clip for n in range(2000))
        assert drawn[1] == 0 and abs(drawn[0] / 2000 - share) < 0.05
    with pytest.raises(ValueError, match="no clip has 12 frames; the longest has 11"):
        Single(np.array([11, 3]))


def test_another_seed_epoch_or_number_is_another_draw_and_the_same_is_the_same():
    def draws(seed: int, epoch: int) -> list[tuple]:
        sampler = Single(np.array([500, 400]), seed)
        return [(d.clip, *d.frames, *d.references) for d in (sampler(epoch, n) for n in range(20))]

    assert draws(1, 2) == draws(1, 2) and draws(1, 2) != draws(1, 3) and draws(1, 2) != draws(2, 2)
    assert len({*draws(1, 2)}) > 15


# ---- over a dataset ----------------------------------------------------------------------------------------------

STATES = "feature: {{kind: whisper, model: {model}, states: musetalk-v1}}\nwindow: {{kind: musetalk, fps: 25}}\n"
MELS = "feature: {kind: mel, flavour: wav2lip}\nwindow: {kind: wav2lip, fps: 25}\n"


def published(root: Path, tone, wav, body: str):
    (root / "in").mkdir()
    for number in range(4):
        (root / "in" / f"{number}.wav").write_bytes(wav(tone(0.2 + 0.8 * number, seed=number)))
    job = resolve(parse_job(f"name: talking\nsource: {{kind: files, path: {root}/in}}\n{body}store: {root}/out\n"))
    return job, run_inline(job)


@pytest.fixture(scope="module")
def states(tmp_path_factory, tone, wav):
    root = tmp_path_factory.mktemp("states")
    job, dataset = published(root, tone, wav, STATES.format(model=tiny_whisper()))
    return Clips(job.address, root / "cache"), rows_of(job, dataset).to_pylist()


@pytest.fixture(scope="module")
def mels(tmp_path_factory, tone, wav):
    root = tmp_path_factory.mktemp("mels")
    job, dataset = published(root, tone, wav, MELS)
    return Clips(job.address, root / "cache"), rows_of(job, dataset).to_pylist()


def test_mapped_clips_are_the_published_rows(states):
    clips, rows = states
    assert len(clips) == 4 and clips.names == [row["clip"] for row in rows]
    assert clips.frames.tolist() == [len(row["window"]) for row in rows]
    assert clips.steps.tolist() == [len(row["feature"]) for row in rows]
    for i in (3, 0, 2):
        clip = clips[i]
        assert clip.name == rows[i]["clip"] and clip.feature.shape == (len(rows[i]["feature"]), 5, 48)
        assert np.array_equal(clip.feature.reshape(-1, 240), np.array(rows[i]["feature"], np.float32))
        assert np.array_equal(clip.window, rows[i]["window"]) and not clip.feature.flags.writeable
    with pytest.raises(IndexError):
        clips[4]


def test_an_item_of_musetalk_is_the_window_of_its_target(states):
    clips, rows = states
    samples = MuseTalkSamples(clips, Single(clips.frames, per_epoch=50))
    assert len(samples) == 50 and samples.strategy.too_short.tolist() == [0]
    for number in range(50):
        item = samples[number]
        row = next(row for row in rows if row["clip"] == item["clip"])
        feature = np.array(row["feature"], np.float32).reshape(-1, 5, 48)
        [target] = item["frames"]
        wanted = feature[2 * target - 4 : 2 * target + 6]
        assert item["audio"].shape == (1, 50, 48) and np.array_equal(item["audio"][0], wanted.reshape(50, 48))
    with pytest.raises(IndexError):
        samples[50]


def test_an_item_of_wav2lip_has_the_mel_of_its_frames_and_of_each_frame_one_early(mels):
    clips, rows = mels
    samples = Wav2LipSamples.of(clips, 5, per_epoch=50)
    for number in range(50):
        item = samples[number]
        row = next(row for row in rows if row["clip"] == item["clip"])
        mel, start = np.array(row["feature"], np.float32).T, int(item["frames"][0])
        assert item["mel"].shape == (1, 80, 16) and item["indiv_mels"].shape == (5, 1, 80, 16)
        assert np.array_equal(item["mel"][0], mel[:, start_of(start) : start_of(start) + 16])
        for j, found in enumerate(item["indiv_mels"]):
            at = start_of(start + j - 1)
            assert np.array_equal(found[0], mel[:, at : at + 16])
    with pytest.raises(JobError, match="16 mel frames; 16 frames of video take 52"):
        Wav2LipSamples.of(clips, 16)


def test_a_batch_of_4_clips_of_5_frames_is_20_pictures_time_by_time(mels):
    clips, _ = mels
    samples = Wav2LipSamples.of(clips, 5, images=lambda clip, frame: np.full((3, 8, 8), frame), per_epoch=4)
    items = [samples[number] for number in range(4)]
    batch = time_major(items)
    assert batch["images_frames"].shape == (20, 3, 8, 8) and batch["indiv_mels"].shape == (20, 1, 80, 16)
    assert batch["mel"].shape == (4, 1, 80, 16) and batch["number"] == [0, 1, 2, 3]
    for t in range(5):
        for b in range(4):
            assert (batch["images_frames"][4 * t + b] == items[b]["frames"][t]).all()
            assert np.array_equal(batch["indiv_mels"][4 * t + b], items[b]["indiv_mels"][t])


def test_pictures_are_read_when_they_are_asked_for_and_not_before(states, tmp_path):
    import av

    clips, _ = states
    for clip in ("1", "2", "3"):
        (tmp_path / clip).mkdir()
        for frame in range(80):
            picture = av.VideoFrame.from_ndarray(np.full((4, 6, 3), frame, np.uint8), format="rgb24")
            encoder = av.CodecContext.create("png", "w")
            encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 6, 4, "rgb24", Fraction(1, 25)
            data = b"".join(bytes(packet) for packet in [*encoder.encode(picture), *encoder.encode()])
            (tmp_path / clip / f"{frame}.png").write_bytes(data)
    item = MuseTalkSamples(clips, Single(clips.frames), Pictures(tmp_path))[0]
    assert item["images_frames"].shape == item["images_references"].shape == (1, 4, 6, 3)
    assert (item["images_frames"][0] == item["frames"][0]).all()
    assert (item["images_references"][0] == item["references"][0]).all()
    with pytest.raises(FileNotFoundError, match="no picture of frame 80"):
        Pictures(tmp_path)("1.wav", 80)
    assert Pictures(tmp_path).there("1.wav", 90).tolist() == [True] * 80 + [False] * 10
    (tmp_path / "1").rename(tmp_path / "clip1")
    assert Pictures(tmp_path)("clip1/audio.wav", 7).max() == 7


@pytest.mark.parametrize("kind", ["musetalk", "wav2lip"])
def test_a_torch_loader_with_two_workers_gives_every_number_once_and_the_same_samples(kind, states, mels):
    samples = (
        MuseTalkSamples(states[0], Single(states[0].frames, per_epoch=23))
        if kind == "musetalk"
        else Wav2LipSamples.of(mels[0], 5, per_epoch=23)
    )
    what = "audio" if kind == "musetalk" else "indiv_mels"
    samples.epoch = 4
    loader = torch.utils.data.DataLoader(samples, batch_size=4, num_workers=2)
    batches = list(loader)
    numbers = torch.cat([batch["number"] for batch in batches]).tolist()
    assert numbers == list(range(23))
    found = torch.cat([batch[what] for batch in batches])
    assert all(np.array_equal(found[n].numpy(), samples[n][what]) for n in numbers)


@pytest.mark.parametrize("world", [1, 2, 3])
def test_of_all_workers_together_an_epoch_has_every_number_once(world, states):
    samples = MuseTalkSamples(states[0], Single(states[0].frames, per_epoch=23))
    seen = {
        item["number"]: item
        for rank in range(world)
        for batch in epoch_of(samples, 1, 4, rank, world)
        for item in batch
    }
    assert sorted(seen) == list(range(23))
    again = {item["number"]: item for batch in epoch_of(samples, 1, 5) for item in batch}
    assert all(np.array_equal(seen[n]["audio"], again[n]["audio"]) for n in range(23))
    other = {item["number"]: item for batch in epoch_of(samples, 2, 5) for item in batch}
    assert any(not np.array_equal(other[n]["frames"], again[n]["frames"]) for n in range(23))


def test_ray_train_with_two_workers_makes_every_sample_of_an_epoch_once(states, mels, tmp_path, ray_local):
    """Each worker writes down what it made; together it is what one process makes."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    def work(given: dict) -> None:
        import ray.train

        from wavmill.pipeline.exports.samples import ray_epoch_of

        rank = ray.train.get_context().get_world_rank()
        for name, samples in given["samples"].items():
            items = [item for batch in ray_epoch_of(samples, 1, 4) for item in batch]
            what = {str(item["number"]): item["audio" if name == "musetalk" else "indiv_mels"] for item in items}
            np.savez(f"{given['to']}/{name}-{rank}.npz", **what)

    samples = {
        "musetalk": MuseTalkSamples(states[0], Single(states[0].frames, per_epoch=23)),
        "wav2lip": Wav2LipSamples.of(mels[0], 5, per_epoch=21),
    }
    ray_local()
    TorchTrainer(
        work,
        train_loop_config={"samples": samples, "to": str(tmp_path)},
        scaling_config=ScalingConfig(num_workers=2, resources_per_worker={"CPU": 0.5}),
        run_config=RunConfig(storage_path=str(tmp_path)),
    ).fit()
    for name, right in samples.items():
        made = [np.load(tmp_path / f"{name}-{rank}.npz") for rank in (0, 1)]
        numbers = [int(number) for one in made for number in one]
        assert sorted(numbers) == list(range(len(right))) and min(len(one.files) for one in made) >= 10
        what = "audio" if name == "musetalk" else "indiv_mels"
        right.epoch = 1
        assert all(np.array_equal(one[number], right[int(number)][what]) for one in made for number in one)


def test_gathered_windows_share_the_mapped_file(states):
    clip = states[0][3]
    assert np.shares_memory(gather(clip.feature, clip.window[20]), clip.feature)


def test_a_dataset_without_windows_says_what_to_keep(tmp_path, tone, wav):
    job, _ = published(tmp_path, tone, wav, "feature: {kind: mel}\n")
    with pytest.raises(JobError, match=r"no column window; make both by one job, with keep: \[feature, window\]"):
        Clips(job.address, tmp_path / "cache")
