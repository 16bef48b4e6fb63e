"""report.html: one page of its own, true to dataset.json and model.json, whatever the corpus and its names."""

import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import numpy as np
import pytest
from inline import run_inline, words

from wavmill.model.quantization.codebook import Codebook
from wavmill.pipeline.dataset_json import PublishedDataset
from wavmill.pipeline.features.mel import Mel
from wavmill.pipeline.features.mfcc import Mfcc
from wavmill.pipeline.job.dataset_job import described, resolve
from wavmill.pipeline.job.load import parse_job
from wavmill.pipeline.model_json import PublishedModel
from wavmill.pipeline.protocol import commit as committing
from wavmill.pipeline.protocol import publish as publishing
from wavmill.pipeline.quantizers.codebooks import save_codebook
from wavmill.pipeline.report import excerpts as look
from wavmill.pipeline.report.cards import PLAYED_S, Card
from wavmill.pipeline.report.charts import histogram, spectrogram
from wavmill.pipeline.report.model_page import Sound, model_page
from wavmill.pipeline.report.page import page
from wavmill.pipeline.sources.files import Files
from wavmill.pipeline.workspace import Workspace

VOID = {"meta", "br", "img", "link", "input"}


class Parsed(HTMLParser):
    """What a browser would make of a page: its elements, its texts, and whether they close in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def named(self, tag):
        return [given for name, given in self.tags if name == tag]


def tokens(corpus, tmp_path, *sets, extractor=None, codes=8):
    """A resolved job of words with tokens, by a codebook of made frames."""
    extractor = extractor or Mel()
    frames = np.random.default_rng(0).normal(-5, 2, (codes, extractor.type.value_type.list_size)).astype(np.float32)
    recipe = {"channel": "mean", "feature": described(extractor)}
    save_codebook(f"{tmp_path}/codebook", Codebook(frames, recipe, {}))
    token = f"token={{kind: kmeans, codebook: {tmp_path}/codebook}}"
    return words(corpus, tmp_path / "store", token, f"feature={{kind: {extractor.kind}}}", "keep=[token]", *sets)


def page_of(job, dataset) -> str:
    return Path(job.store, job.name, f"v{dataset.version}", "report.html").read_text()


@pytest.fixture(scope="module")
def made(tmp_path_factory, tone, wav):
    """A corpus in which one clip is twice as long as is played, its job with tokens, dataset.json and the page."""
    root = tmp_path_factory.mktemp("report")
    for number in range(6):
        folder = root / "corpus" / f"word{number % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        seconds = 2 * PLAYED_S if number == 2 else 0.5
        (folder / f"take{number}.wav").write_bytes(wav(tone(seconds, seed=number)))
    (root / "corpus" / "word0" / "broken.wav").write_text("not a sound")
    job = tokens(root / "corpus", root, "clip.max_s=30")
    dataset = run_inline(job)
    return job, dataset, page_of(job, dataset)


def said(page: str) -> str:
    return re.sub(r"\s+", " ", Parsed(page).text)


def fetches(page: str) -> list[str]:
    """Every address that the page would have a browser fetch."""
    parsed = Parsed(page)
    names = ("src", "href", "xlink:href", "data", "action", "poster", "srcset")
    given = [str(given[name]) for _, given in parsed.tags for name in names if name in given]
    return [one for one in (*given, *re.findall(r"url\(([^)]*)\)|@import", page)) if not one.startswith(("data:", "#"))]


def test_a_page_needs_nothing_but_itself(made):
    assert not fetches(made[2])
    assert not {name for name, _ in Parsed(made[2]).tags} & {"script", "iframe", "link", "object", "embed"}
    assert not [name for _, given in Parsed(made[2]).tags for name in given if name.startswith("on")]


def test_the_counts_are_those_of_dataset_json(made):
    _, dataset, page = made
    text = said(page)
    assert (dataset.counts.done, dataset.counts.rejected) == (6, 1)
    assert "clips6of 7 found" in text and "rejected1" in text and "not_audio1decode" in text
    assert "word0/broken.wav" in text and dataset.fingerprint in text


def test_every_clip_is_heard_twice_and_no_longer_than_allowed(made):
    sounds = [given["src"] for given in Parsed(made[2]).named("audio")]
    assert len(sounds) == 2 * look.CLIPS
    most = 4 / 3 * (PLAYED_S * 16_000 * 2 + 100)
    assert most * 0.9 < max(map(len, sounds)) <= most
    assert f"the first {PLAYED_S:g} s" in said(made[2]) and len(made[2]) < 3_000_000


def test_every_picture_says_in_words_what_it_shows(made):
    parsed = Parsed(made[2])
    assert len(parsed.named("svg")) >= 3 + look.CLIPS
    assert all(given["aria-label"] and given["role"] == "img" for given in parsed.named("svg"))
    assert all(given["aria-label"] for given in parsed.named("audio"))


def test_no_two_elements_share_an_id(made):
    ids = [given["id"] for _, given in Parsed(made[2]).tags if "id" in given]
    assert len(ids) == len(set(ids))


def test_charts_have_no_colours_and_fonts_of_their_own(made):
    charts = re.sub(r"data:[^\"]*", "", "".join(re.findall(r"<svg.*?</svg>", made[2], re.DOTALL)))
    assert set(re.findall(r"#[0-9a-f]{6}\b", charts)) <= {"#000000"}  # clip paths
    assert "var(--soft)" in charts and "<style" not in charts
    assert not re.search(r"DejaVu|Arial|\bnan\b", charts)


def test_the_same_dataset_gives_the_same_page(made, tmp_path):
    job, dataset, page = made
    from wavmill.pipeline.protocol.plan import plans_of
    from wavmill.pipeline.quantizers.codebooks import load_codebook
    from wavmill.pipeline.report.dataset_page import dataset_page

    work, codebook = Workspace(job), load_codebook(f"{dataset.address}/codebook")
    assert dataset_page(work, plans_of(work), dataset, codebook) == page


NASTY = "<script>alert(1)<&\"'$x_1$ ünï"


def test_hostile_names_stay_text(tmp_path, tone, wav):
    folder = tmp_path / "corpus" / NASTY
    folder.mkdir(parents=True)
    (folder / f"{NASTY}.wav").write_bytes(wav(tone(0.4)))
    (folder / f"bad{NASTY}.wav").write_text("not a sound")
    job = tokens(tmp_path / "corpus", tmp_path)
    parsed = Parsed(page_of(job, run_inline(job)))
    assert not parsed.named("script")
    assert f"{NASTY}/{NASTY}.wav" in parsed.text and f"bad{NASTY}.wav" in parsed.text


MARKUP = "</style></title><script>alert(1)</script>\"'><img src=x onerror=alert(2)>&amp;{{ 7*7 }}{% x %}"
HOSTILE = MARKUP + "\x1b[31m\u202e\udcff"


def everywhere(text, value):
    """The value with ``text`` in place of every text in it, keys apart."""
    if isinstance(value, dict):
        return {key: everywhere(text, one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [everywhere(text, one) for one in value]
    return text if isinstance(value, str) else value


def at_rest(text: str) -> str:
    """Files are UTF-8, so that half of a surrogate pair is in none of them."""
    return text.replace("\udcff", "")


def dataset_with(text: str) -> str:
    said = at_rest(text)
    counts = {"done": 1, "rejected": 1, "clips": 2, "objects": 2, "reasons": {said: 1}, "superseded": 0}
    made = PublishedDataset.of({
        "format": PublishedDataset.FORMAT, "name": said, "version": 1, "fingerprint": said, "created_at": said,
        "job": {"fingerprint": said, "does": {}}, "recipe": {}, "listed_at": [said], "counts": counts, "seconds": 1.0,
        "time": {"wall_s": 1.0, "spent_s": {}, "bin_s": 1.0, "finished_s": []}, "carry": [],
        "notices": {said: {"clips": 1, "example": said}}, "columns": {said: {"type": said, "unit": said}},
        "parts": [], "rejects": {"path": said, "rows": 1, "sha256": said},
    })  # fmt: skip
    card = Card(text, [text], spectrogram(text, np.zeros((4, 8)), 1.0, [1, 2]), [(text, "")], [1, 2])
    return page(
        "dataset",
        kind=text,
        made=made,
        headlines=[(text, text, text)],
        steps=[(text, text)],
        heard={"mute": text, "missing": [(text, text)], "cards": [card]},
        charts=[(text, histogram(text, np.ones(2), "x", "y"), text)],
        time=[(text, 1.0)],
        spent_s=1.0,
        rejects={said: [{"clip": text, "stage": text, "message": text}]},
        notice_means={said: text},
        column_means={said: text},
        how_to_read=text,
    )


def model_with(text: str) -> str:
    said = everywhere(at_rest(text), MODEL) | {"stopped": "early", "layout": "prompt", "format": MODEL["format"]}
    sound = Sound(text, text, np.ones(800, np.float32), 16_000, [1, 2])
    return model_page(published(said), text, METRICS, [sound], text)


@pytest.mark.parametrize("made_with", [dataset_with, model_with])
def test_no_text_from_outside_becomes_a_tag_an_attribute_or_an_instruction(made_with):
    """The page has the elements and attributes that it has with harmless texts, whatever the texts."""
    hostile, harmless = Parsed(made_with(HOSTILE)), Parsed(made_with("harmless"))
    shape = [[(name, sorted(given)) for name, given in parsed.tags] for parsed in (hostile, harmless)]
    assert shape[0] == shape[1]
    assert MARKUP in hostile.text and "\\x1b[31m\\u202e\\udcff" in hostile.text
    made_with(HOSTILE).encode()  # half of a surrogate pair would be an error
    assert not {"\x1b", "\u202e"} & {*made_with(HOSTILE)}


def test_a_value_that_a_page_lacks_is_an_error_and_not_a_gap():
    with pytest.raises(jinja2.UndefinedError, match="model"):
        page("model", **{"made": {"name": "a", "version": 1}, "kind": "model", "headlines": []})


def test_the_look_at_a_large_dataset_is_bounded_and_says_so(corpus, tmp_path, monkeypatch):
    for module in (committing, publishing):
        monkeypatch.setattr(module, "GROUP_ROWS", 2)
    monkeypatch.setattr(publishing, "PART_BYTES", 20_000)
    monkeypatch.setattr(look, "GROUPS", 4)
    job = words(corpus, tmp_path / "store")
    dataset = run_inline(job)
    assert len(dataset.parts) > 4 and sum(part.row_groups for part in dataset.parts) >= 13
    [sampled] = re.findall(r"The lengths of (\d+) sampled clips", said(page_of(job, dataset)))
    assert 4 <= int(sampled) <= 8


def test_features_and_windows_alone_have_a_page(corpus, tmp_path):
    job = words(corpus, tmp_path / "store")
    page = page_of(job, run_inline(job))
    assert not fetches(page) and "Codes in use" not in page
    assert len(Parsed(page).named("audio")) == look.CLIPS
    assert "No padding: these features are made clip by clip." in said(page)


def test_tokens_without_a_voice_say_why(corpus, tmp_path):
    job = tokens(corpus, tmp_path, "window=null", extractor=Mfcc())
    page = page_of(job, run_inline(job))
    assert "cannot be heard: mfcc features need a vocoder to become sound, and wavmill has none" in said(page)
    assert len(Parsed(page).named("audio")) == look.CLIPS


def test_a_dataset_of_a_dataset_speaks_with_its_parent_s_codebook(corpus, tmp_path):
    run_inline(tokens(corpus, tmp_path))
    shutil.rmtree(tmp_path / "codebook")
    text = f"""
name: later
source: {{kind: dataset, from: {tmp_path}/store/words, column: token}}
window: {{kind: fixed, length_frames: 10, stride_frames: 5}}
store: {tmp_path}/later
"""
    job = resolve(parse_job(text))
    dataset = run_inline(job)
    assert dataset.codebook and "Clips without their original" in said(page_of(job, dataset))


def test_a_corpus_without_one_good_clip_has_a_page(tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.wav").write_text("not a sound")
    job = words(tmp_path / "corpus", tmp_path / "store")
    text = said(page_of(job, run_inline(job)))
    assert "clips0of 1 found" in text and "not_audio" in text


@pytest.mark.parametrize("gone", ["one file", "the corpus"])
def test_a_missing_original_is_left_out_and_named(corpus, tmp_path, gone, monkeypatch):
    from inline import mill

    from wavmill.pipeline.protocol.plan import make_plans
    from wavmill.pipeline.protocol.publish import publish

    for path in corpus.rglob("*.flac"):
        if path.name not in ("take00.flac", "take01.flac"):
            path.unlink()
    job = tokens(corpus, tmp_path)
    plans = make_plans(Workspace(job))
    mill(job, plans)
    shutil.rmtree(corpus) if gone == "the corpus" else (corpus / "word0" / "take00.flac").unlink()
    page = page_of(job, publish(Workspace(job), plans))
    assert "word0/take00.flac: its sound cannot be read any more: missing" in said(page)
    assert len(Parsed(page).named("audio")) == (2 if gone == "the corpus" else 3)


def test_a_bug_is_not_taken_for_a_missing_original(corpus, tmp_path, monkeypatch):
    job = words(corpus, tmp_path / "store")
    read = Files.read

    def broken(self, objects, clip, rate_hz):
        return read(self, objects, clip, rate_hz if objects.num_rows > 1 else 1 // 0)

    from inline import mill

    from wavmill.pipeline.protocol.plan import make_plans
    from wavmill.pipeline.protocol.publish import publish

    plans = make_plans(Workspace(job))
    mill(job, plans)
    monkeypatch.setattr(Files, "read", broken)
    with pytest.raises(ZeroDivisionError):
        publish(Workspace(job), plans)


def test_a_clip_of_a_large_object_is_not_decoded_again(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(look, "LONG_BYTES", 100)
    job = words(corpus, tmp_path / "store")
    assert "its object is larger than" in said(page_of(job, run_inline(job)))


def test_a_part_of_a_longer_sound_is_heard_from_where_it_starts(tmp_path, tone, wav):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "long.wav").write_bytes(wav(tone(5.0)))
    job = words(tmp_path / "corpus", tmp_path / "store")  # clips of 2 s
    from wavmill.pipeline.protocol.plan import plans_of

    run_inline(job)
    [sound] = look.originals(
        Workspace(job), plans_of(Workspace(job)), [{"clip": "long.wav#2000", "source": "long.wav"}]
    )
    assert np.abs(sound - tone(5.0)[32_000:64_000]).max() < 1e-4


# ---- a trained model --------------------------------------------------------------------------------------------

MODEL = {
    "format": "wavmill-model-1", "name": "lm", "version": 2, "fingerprint": "f" * 64,
    "created_at": "2026-01-02T03:04:05+00:00",
    "parents": [{"address": "s3://b/words/v1", "fingerprint": "e" * 64, "weight": 1.0}],
    "pack": {"rows": 90, "tokens": 12_345, "skipped": {"empty": 3, "too_long": 1200}, "by": "source",
             "fingerprint": "d" * 64, "rate_hz": "50"}, "does": {},
    "split": {"by": "source", "train": 80, "valid": 10},
    "model": {"kind": "samout", "d": 64, "heads": 2, "layers": 2, "mixer": "max_state_super", "parameters": 123_456},
    "vocabulary": {"labels": ["yes", NASTY], "codes": 100}, "layout": "prompt", "train": {"batch": 8, "lr": 0.001},
    "workers": 2, "steps": 400, "epochs": 4.0, "stopped": "early", "seconds": 61.0, "files": [],
    "best": {"step": 300, "loss": 1.25, "perplexity": 3.49, "token_accuracy": 0.61, "label_accuracy": 0.875,
             "label_chance": 0.5},
}  # fmt: skip
TRAIN = {"kind": "train", "epoch": 1, "perplexity": 3.0, "token_accuracy": 0.5, "grad_norm": 1.0, "lr": 1e-3}
TRAIN |= {"tokens_per_s": 5000.0, "padding": 0.02, "seconds": 1.0}
VALID = {"kind": "valid", "perplexity": 3.0, "token_accuracy": 0.5, "label_chance": 0.5}
METRICS = [{**TRAIN, "step": step, "loss": 3.0 - step / 200} for step in range(10, 400, 10)] + [
    {**VALID, "step": step, "loss": 3.0 - step / 300, "label_accuracy": None if step == 100 else 0.5}
    for step in (100, 200, 300, 400)
]
ADDRESS = "s3://b/lm/v2"


def published(said) -> PublishedModel:
    return PublishedModel.of(said)


def sounds(tone, many=2, seconds=0.5):
    return [Sound(f"{NASTY} {i}", "", tone(seconds), 16_000, np.arange(25) % 7, None) for i in range(many)]


def test_a_model_s_page_has_its_headline_numbers_and_needs_nothing_but_itself(tone):
    page = model_page(published(MODEL), ADDRESS, METRICS, sounds(tone))
    text = said(page)
    assert all(
        one in text
        for one in ("1.250", "61.0%", "87.5%the largest label's share: 50.0%", "5,000", "2.0%", "s3://b/words/v1")
    )
    assert not fetches(page) and not Parsed(page).named("script")
    assert (len(Parsed(page).named("audio")), len(Parsed(page).named("svg"))) == (2, 4 + 2)
    assert f"{NASTY} 0" in Parsed(page).text and f"wavmill generate {ADDRESS}" in Parsed(page).text


def test_a_model_s_page_says_in_words_what_was_left_out_and_how_the_clips_were_split():
    text = said(model_page(published(MODEL), ADDRESS, METRICS, []))
    assert "3 empty, 1,200 too long" in text and "{" not in text.partition("What it is")[2]
    assert "split by source: 80 clips train, 10 validate" in text
    went_on = {**MODEL, "does": {"goes_on_from": {"run": "ab" * 32, "step": 1500}}}
    assert "step 1,500 of the training abababab" in said(model_page(published(went_on), ADDRESS, METRICS, []))
    before = {name: value for name, value in MODEL.items() if name != "split"}  # made by an earlier version
    assert "split by source" in said(model_page(published(before), ADDRESS, METRICS, []))


def test_a_model_without_labels_validation_or_voice_has_a_page():
    plain = {**MODEL, "vocabulary": {"labels": [], "codes": 9}, "best": None, "stopped": "steps"}
    lines = [{**line, "label_accuracy": None, "label_chance": None} for line in METRICS]
    text = said(model_page(published(plain), ADDRESS, lines, [], "its features are mfcc"))
    assert "Its tokens cannot be heard: its features are mfcc." in text and "label accuracy" not in text.lower()
    assert "Loss" in said(model_page(published(plain), ADDRESS, [], []))


def test_however_many_sounds_a_page_stays_below_5_mb(tone):
    page = model_page(published(MODEL), ADDRESS, METRICS * 1000, sounds(tone, many=40, seconds=8.0))
    assert len(page) < 5_000_000
    assert "more were made and would not fit" in said(page)
