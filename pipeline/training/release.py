"""Publish a finished training: weights, TorchScript, codebook, report, and model.json last."""

from typing import cast

from wavmill.model.token_lm.generate import Sampling, TokenLM
from wavmill.pipeline.errors import Stopped
from wavmill.pipeline.features.vocoder import NoVoice
from wavmill.pipeline.generate import Wish, generate, voice_of
from wavmill.pipeline.model_json import MODEL, ModelFile, PackFacts, Parent, PublishedModel, VocabularyFacts
from wavmill.pipeline.protocol.published import find_model
from wavmill.pipeline.quantizers.codebooks import codebook_files, codebook_in
from wavmill.pipeline.report.model_page import Sound, model_page
from wavmill.pipeline.report.model_readme import model_card
from wavmill.pipeline.store.base import Store, join, sha256
from wavmill.pipeline.store.versions import claim_version, find_claim
from wavmill.pipeline.trained_model import Trained
from wavmill.pipeline.training.checkpoints import ReadCheckpoint, lines_in, read_latest
from wavmill.pipeline.training.finite import check_best, check_weights
from wavmill.pipeline.training.pack_build import PackDescription
from wavmill.pipeline.workspace import TrainWorkspace

EXAMPLE_LABELS, EXAMPLE_S = 12, 6.0  # examples in the report: the most labels, and their length


def release(work: TrainWorkspace, pack: PackDescription, last: ReadCheckpoint) -> PublishedModel:
    """Publish the best checkpoint of a training that has ended with ``last``; return model.json. Idempotent."""
    job, store, run, record, best = work.job, work.store, work.run, last.record, last.record.best
    check_best(job.address, best)
    step = best.step if best else record.step
    chosen = last if step == record.step else read_latest(store, run, step)
    if chosen is None:
        raise Stopped(f"{job.address}: the best checkpoint, of step {step:,}, is damaged or gone")
    vocabulary = pack.vocabulary
    net = job.model.net(work.parents, pack)
    tensors = chosen.tensors()
    check_weights(job.address, step, tensors)
    net.load_state_dict({name: tensors[f"net.{name}"] for name in net.state_dict()})
    net.eval()
    codebook = next((join(one.address, one.codebook.path) for one in work.parents if one.codebook), None)
    carried = codebook_files(codebook) if codebook else {}
    book = codebook_in(codebook, carried) if codebook else None
    trained = Trained(cast(TokenLM, net), vocabulary, job.pack.layout, job.pack.dedup, float(pack.rate_hz or 0), book)
    version = claim_version(store, job.name, run, 0).version
    top, address = f"{job.name}/v{version}", join(store.url, job.name, f"v{version}")
    files = job.model.files(net, pack, job.pack, bool(codebook))
    files |= {"metrics.jsonl": last.files["metrics.jsonl"], **carried}
    model = PublishedModel(
        name=job.name,
        version=version,
        fingerprint=run,
        created_at=record.at,
        does=work.does,
        parents=[
            Parent(address=parent.address, fingerprint=parent.fingerprint, weight=one.weight)
            for one, parent in zip(job.data, work.parents, strict=True)
        ],
        pack=PackFacts(
            fingerprint=pack.fingerprint,
            rows=pack.rows,
            tokens=pack.tokens,
            skipped=pack.skipped,
            by=pack.by,
            rate_hz=pack.rate_hz,
            codebook=pack.codebook,
        ),
        split=record.split,
        model={**job.model.recipe(), "parameters": sum(value.numel() for value in net.parameters())},
        vocabulary=VocabularyFacts.of(vocabulary.facts()),
        layout=job.pack.layout,
        train=job.train.described(),
        workers=record.world,
        steps=record.step,
        epochs=record.step / record.steps_per_epoch,
        stopped=record.stopped,
        seconds=record.seconds,
        best=best,
        files=[ModelFile(path=path, bytes=len(data), sha256=sha256(data)) for path, data in files.items()],
    )
    sounds, why_none = example_sounds(trained)
    files["report.html"] = model_page(model, address, lines_in(files["metrics.jsonl"]), sounds, why_none).encode()
    files["README.md"] = model_card(model, address).encode()
    for path, data in files.items():
        store.put(f"{top}/{path}", data)
    store.put(f"{top}/{MODEL}", model.written())
    return find_model(address)


def example_sounds(model: Trained) -> tuple[list[Sound], str]:
    """Generate a clip as sound for each of a few labels; or none, and the reason."""
    try:
        speak = voice_of(model)
    except NoVoice as error:
        return [], str(error)
    named = model.layout == "prompt" and model.vocabulary.labels
    wishes = [Wish(label) for label in model.vocabulary.labels[:EXAMPLE_LABELS]] if named else [Wish()] * 4
    clips = generate(model, wishes, Sampling(top_p=0.9, max_tokens=int(EXAMPLE_S * speak.frames_hz)))
    return [
        Sound(
            wish.label or f"clip {i + 1}",
            f"{len(codes)} tokens" + (f", cut at {EXAMPLE_S:g} s" if cut else ""),
            speak(codes),
            speak.rate_hz,
            codes,
            speak.frames(codes),
        )
        for i, (wish, (codes, cut)) in enumerate(zip(wishes, clips, strict=True))
    ], ""


def published_by(store: Store, name: str, run: str) -> PublishedModel | None:
    """model.json of a training that was published under a name, or None."""
    choice = find_claim(store, name, run, 0)
    if choice is None or store.stat(f"{name}/v{choice.version}/{MODEL}") is None:
        return None
    return find_model(join(store.url, name, f"v{choice.version}"))
