"""The README.md of a trained model: what it is, how good, and how to use it."""

from wavmill.pipeline.model_json import BestValidation, PublishedModel, SplitFacts


def model_card(said: PublishedModel, address: str) -> str:
    """model.json -> Markdown."""
    best, made = said.best, said.vocabulary
    lines = [
        f"# {said.name}, version {said.version}",
        "",
        f"A token LM ({said.model['kind']}, {said.model['parameters']:,} parameters), trained by wavmill for "
        f"{said.steps:,} steps on {said.pack.rows:,} clips, {said.pack.tokens:,} tokens.",
        f"{made.vocabulary.sizes}, {len(made.labels):,} labels, layout `{said.layout}`.",
        "",
        *(f"- {line}" for line in figures(best)),
        *([f"- {split_line(said.split)}"] if said.split else []),
        "",
        "```",
        *how_to_use(said, address),
        "```",
        "",
        "`config.json` and `model.safetensors` are all that the net needs; `model.pt` is the same as TorchScript, with",
        "`prefill(ids, lengths)` and `step(ids, state)`, for torch alone or C++.",
        "",
        *(f"Trained on {parent.address}." for parent in said.parents),
        "",
    ]
    return "\n".join(lines)


def figures(best: BestValidation | None) -> list[str]:
    """A model's validation figures, as sentences."""
    if best is None:
        return ["not validated: no clip was held out"]
    lines = [
        f"validation loss {best.loss:.3f} nats a token, perplexity {best.perplexity:.1f}; step {best.step:,}",
        f"token accuracy {best.token_accuracy:.1%}",
    ]
    if best.label_accuracy is not None:
        share = f"{best.label_chance:.1%} of the scored clips have the commonest label"
        lines.append(f"label accuracy {best.label_accuracy:.1%}; {share}")
    return lines


def split_line(split: SplitFacts) -> str:
    """A line about the split: its column, and the number of clips on each side."""
    return f"split by {split.by}: {split.train:,} clips train, {split.valid:,} validate"


def how_to_use(said: PublishedModel, address: str) -> list[str]:
    """Commands that generate clips."""
    labels = said.vocabulary.labels
    asked = f" --label {labels[0]}" if labels and said.layout == "prompt" else ""
    return [f"wavmill generate {address}{asked} --count 4 -o out/"]
