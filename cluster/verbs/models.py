"""The verbs of models: train and generate."""

import math
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from wavmill.cluster import printing as words
from wavmill.cluster.app import JobFile, On, Set, Verbose, connecting, out
from wavmill.cluster.terminal import escape
from wavmill.cluster.verbs.clip_files import check_free, stems_of
from wavmill.pipeline.errors import JobError


def train(job: JobFile, set: Set = [], on: On = None, verbose: Verbose = False) -> None:
    """Train the model that a job describes. Run the same command again to resume, also in the middle of an epoch."""
    from wavmill.cluster.load import load_training
    from wavmill.cluster.training_progress import TrainWatch
    from wavmill.pipeline.training.release import published_by
    from wavmill.pipeline.training.resume_point import begin
    from wavmill.pipeline.training.tensorboard import TensorBoard

    work = begin(load_training(job, set), write=True)
    for note in work.notes:
        out.print(escape(note))
    model = published_by(work.store, work.job.name, work.run)
    if model is not None:
        out.print("done already")
    else:
        from wavmill.pipeline.training.train import train as train_model

        with TensorBoard(work.store, work.job.name, work.run) as board, TrainWatch(out, board) as watch:
            model = train_model(work, connecting(on, verbose), watch)
        out.print(f"curves    tensorboard --logdir {escape(board.address)}")
    words.print_model(out, model)


def generate(
    model: Annotated[
        str, Argument(metavar="MODEL", help="a trained model's address, its newest version or one (.../v1)")
    ],
    label: Annotated[list[str], Option("--label", help="clips of this label; repeatable")] = [],
    after: Annotated[
        list[Path], Option("--continue", metavar="SOUND", help="continue this sound file; repeatable")
    ] = [],
    count: Annotated[int, Option(min=1, help="how many clips of each")] = 1,
    to: Annotated[Path, Option("-o", "--to", help="the folder for the clips")] = Path("generated"),
    temperature: Annotated[float, Option(help="sampling temperature; 0 always takes the likeliest token")] = 1.0,
    top_k: Annotated[int, Option(help="sample only among the k likeliest tokens; 0: all")] = 0,
    top_p: Annotated[
        float, Option(help="sample only among the likeliest tokens that together have this probability")
    ] = 0.9,
    repetition_penalty: Annotated[float, Option(help="values above 1 penalise recently used tokens")] = 1.0,
    max_s: Annotated[float, Option(min=0.1, help="the longest clip, in seconds")] = 10.0,
    seed: Annotated[int, Option(min=0, help="of the random numbers")] = 0,
    script: Annotated[bool, Option("--script", help="use model.pt, the TorchScript, instead of the weights")] = False,
    replace: Annotated[bool, Option("--replace", help="write over clips that are in the folder already")] = False,
) -> None:
    """Generate clips from a label, from a sound to continue, or unconditionally. Writes WAVs for mel codebooks, tokens
    otherwise."""
    import json

    from wavmill.model.token_lm.generate import Sampling
    from wavmill.pipeline.features.vocoder import NoVoice, wav_bytes
    from wavmill.pipeline.generate import Wish, codes_of, voice_of
    from wavmill.pipeline.generate import generate as generated
    from wavmill.pipeline.trained_model import open_model

    if not math.isfinite(max_s):
        raise JobError(f"--max-s is {max_s}; it should be a number of seconds")
    opened = open_model(model, script)
    named = [(one, Wish(one)) for one in label]
    named += [(path.stem, Wish(label[0] if len(label) == 1 else "", codes_of(opened, path))) for path in after]
    if after and len(label) == 1:
        named = named[1:]  # the one label is that of the sounds to go on from
    named = named or [("clip", Wish())]
    try:
        sampling = Sampling(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            repetition_penalty=repetition_penalty,
            max_tokens=max(1, round(max_s * opened.tokens_hz)),
            seed=seed,
        )
    except ValueError as error:
        raise JobError(str(error)) from error
    asked = [(f"{name}-{i + 1:0{len(str(count))}d}", wish) for name, wish in named for i in range(count)]
    stems = stems_of([name for name, _ in asked])
    if not replace:
        check_free(to, stems)
    clips = generated(opened, [wish for _, wish in asked], sampling)
    try:
        speak, made = voice_of(opened), "WAVs and tokens"
    except NoVoice as error:
        speak, made = None, f"tokens only: {error}"
    to.mkdir(parents=True, exist_ok=True)
    for stem, (_, wish), (codes, cut) in zip(stems, asked, clips, strict=True):
        (to / f"{stem}.json").write_text(json.dumps({"label": wish.label, "tokens": codes.tolist(), "cut": cut}))
        (to / f"{stem}.wav").unlink(missing_ok=True)  # the sound of other tokens
        if speak is not None:
            (to / f"{stem}.wav").write_bytes(wav_bytes(speak(codes), speak.rate_hz))
    lengths = ", ".join(f"{codes.size / opened.tokens_hz:.2f} s" for codes, _ in clips[:8])
    out.print(
        f"{len(clips)} clips in {escape(str(to))}/ ({escape(made)}): {lengths}{', ...' if len(clips) > 8 else ''}"
    )
    if number := sum(cut for _, cut in clips):
        out.print(f"{number} of {len(clips)} clips had not ended at --max-s {max_s:g}, and were cut there")
