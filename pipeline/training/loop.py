"""learn(): what one worker of a training does. Knows torch.distributed, not Ray; alone it is the whole training."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from wavmill.pipeline.job.training_job import Train, TrainJob
from wavmill.pipeline.model_json import BestValidation, SplitFacts
from wavmill.pipeline.store import open_store
from wavmill.pipeline.store.base import Store
from wavmill.pipeline.training.checkpoints import TrainingState, read_files, read_latest, recorded, save, step_of
from wavmill.pipeline.training.finite import (
    Diverged,
    Watch,
    check_best,
    check_weights,
    diverged,
    not_finite_field,
    not_finite_in,
)
from wavmill.pipeline.training.initial_weights import put_start
from wavmill.pipeline.training.pack_read import Pack, open_pack
from wavmill.pipeline.training.validation import Validation

AUTO_VALIDATE_STEPS = 500
WARM_UP = 0.05  # of all steps, unless the job says
LR_FLOOR = 0.1  # of the highest rate, where the cosine ends
Tell = Callable[[dict[str, Any]], None]


def length_of(plan: Train, steps_per_epoch: int) -> int:
    """How many steps a training has at most."""
    return plan.epochs * steps_per_epoch if plan.steps == "auto" else plan.steps


@dataclass
class Progress:
    """All of a training that is not in tensors. Saved with every checkpoint."""

    step: int = 0
    best: BestValidation | None = None  # the validation line with the lowest loss
    worse: int = 0  # validations since
    stopped: str = ""  # "steps" or "early" once it has ended
    seconds: float = 0.0
    lines: list[dict[str, Any]] = field(default_factory=list)


class Learner:
    """Rank ``rank`` of ``world`` workers. All ranks take the same decisions, from sums over all of them."""

    def __init__(self, job: TrainJob, pack: str, run: str, rank: int = 0, world: int = 1, tell: Tell = lambda _: None):
        import torch

        from wavmill.model.token_lm.batches import Sampler
        from wavmill.model.token_lm.loss import Loss

        self.job, self.run, self.rank, self.world, self.tell = job, run, rank, world, tell
        self.store: Store = open_store(job.store)  # of its own: a worker is another process, but for workers: 0
        self.pack: Pack = open_pack(self.store, pack)
        self.vocabulary = self.pack.vocabulary
        self.train_rows, valid_rows = self.pack.split(job.pack.split)
        weights = np.array([one.weight for one in job.data])[self.pack.dataset_of[self.train_rows]]
        self.sampler = Sampler(self.pack.lengths[self.train_rows], weights, job.train.batch, job.train.seed)
        plan, epoch = job.train, self.sampler.steps_per_epoch
        among = job.pack.layout, plan.batch, plan.seed, rank, world
        self.validation = Validation(self.pack, valid_rows, self.vocabulary, *among)
        self.split = SplitFacts(by=job.pack.split.by, train=len(self.train_rows), valid=len(valid_rows))
        self.steps = length_of(plan, epoch)
        self.validate_every = min(epoch, AUTO_VALIDATE_STEPS) if plan.validate_every == "auto" else plan.validate_every
        every = plan.checkpoint_every
        self.checkpoint_every = self.validate_every if every == "auto" else every
        self.warm_up = math.ceil(WARM_UP * self.steps) if plan.warmup_steps == "auto" else plan.warmup_steps
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(plan.seed)
        self.net = job.model.open(self.vocabulary.size)
        put_start(job, self.net)
        self.net.to(self.device)
        self.loss: Any = Loss(self.net)
        if world > 1:
            # Without find_unused_parameters DDP sorts its buckets anew after the first step, and with it the order of
            # its sums: a run that is resumed would end with other weights than one that is not.
            self.loss = torch.nn.parallel.DistributedDataParallel(self.loss, find_unused_parameters=True)
        self.adam = torch.optim.Adam(self.net.parameters(), plan.lr, fused=True)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.adam, self._rate)
        self.watch = Watch(self.device)
        self.progress = Progress()

    def learn(self) -> None:
        """Train from the last checkpoint to the end; rank 0 saves and tells. Returns when a final one is saved.

        Diverged, on all ranks at the same step, when a loss, a gradient or a weight is not finite: nothing of it is
        saved. It is looked for where a line of metrics is due, so no step waits for the device because of it.
        """
        self._resume()
        if self.rank == 0:
            self.tell({"kind": "split", "step": self.progress.step, "steps": self.steps, **self.split.as_json()})
        started = time.monotonic() - self.progress.seconds
        window = _Window()
        while not self.progress.stopped:
            self._step(window)
            self.progress.step += 1
            step, last = self.progress.step, self.progress.step == self.steps
            validates, saves = step % self.validate_every == 0, step % self.checkpoint_every == 0
            if not (last or validates or saves or step % self.job.train.log_every == 0):
                continue
            self.progress.seconds = time.monotonic() - started
            self._stop_if_not_finite()
            self._log(window)
            if (validates or last) and len(self.validation.rows):
                self._validate()
            early = 0 < self.job.train.patience <= self.progress.worse
            self.progress.stopped = "early" if early else "steps" if last else ""
            if validates or saves or self.progress.stopped:
                self._save(self._state())
            window = _Window()

    # ---- one step -------------------------------------------------------------------------------------------------

    def _step(self, window: "_Window") -> None:
        import torch

        from wavmill.model.token_lm.batches import part
        from wavmill.model.token_lm.loss import collate

        step, plan = self.progress.step, self.job.train
        rows = self.train_rows[self.sampler.rows(step)]
        torch.manual_seed(int(np.random.SeedSequence([plan.seed, step, self.rank]).generate_state(1)[0]))
        mine = part(rows, self.rank, self.world)
        batch = collate([self.validation.sequence(row) for row in mine]).to(self.device)
        self.adam.zero_grad()
        with self._precision():
            loss, right = self.loss(batch)
        # DDP averages over workers; the loss is a mean over all tokens of the global batch, whoever has them
        (loss * (self.world / self._targets(rows))).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), plan.clip_norm)
        self.adam.step()
        self.schedule.step()
        self.watch.see(step + 1, loss.detach(), norm.detach())
        window.add(loss.detach(), right, norm, batch)

    def _targets(self, rows: np.ndarray) -> int:
        """How many ids are foretold in these rows: all of a sequence but its first."""
        extra = 1 if self.job.pack.layout == "suffix" else 2
        return int(self.pack.lengths[rows].sum() + extra * len(rows) + (self.pack.label_of[rows] >= 0).sum())

    def _rate(self, step: int) -> float:
        """The share of the highest learning rate at a step: up in a line, down in half a cosine."""
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        done = (step - self.warm_up) / max(1, self.steps - self.warm_up)
        return LR_FLOOR + (1 - LR_FLOOR) * (1 + math.cos(math.pi * done)) / 2

    def _precision(self) -> Any:
        import torch

        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.job.train.dtype == "bfloat16")

    # ---- what is told ---------------------------------------------------------------------------------------------

    def _log(self, window: "_Window") -> None:
        loss, right, targets, places = self._summed([window.loss, window.right, window.targets, window.places])
        step = self.progress.step
        line = {
            "kind": "train",
            "step": step,
            "epoch": step / self.sampler.steps_per_epoch,
            "loss": loss / targets,
            "perplexity": math.exp(min(loss / targets, 50)),
            "token_accuracy": right / targets,
            "grad_norm": float(window.norm) / window.steps,
            "lr": self.job.train.lr * self._rate(step - 1),
            "padding": 1 - targets / places,
            "tokens_per_s": targets / window.spent_s(),
            "seconds": self.progress.seconds,
        }
        if name := not_finite_field(line):  # each step was finite, and yet their sum may not be
            raise self._diverged(f"the {name} up to step {step:,}")
        self._tell(line)

    def _validate(self) -> None:
        """A better loss on the validation rows than all before is the best."""
        with self._precision():
            sums = self.validation.sums(self.net)
        said = {"kind": "valid", "step": self.progress.step, **self.validation.line(self._summed(sums))}
        if not_finite_field(said):
            raise self._diverged(f"the validation loss at step {self.progress.step:,}")
        best = self.progress.best
        if best is None or said["loss"] < best.loss:
            self.progress.best, self.progress.worse = BestValidation.of(said), 0
        else:
            self.progress.worse += 1
        self._tell(said)

    def _summed(self, values: list[Any]) -> list[float]:
        """Each value summed over all workers."""
        import torch

        sums = torch.stack([torch.as_tensor(value, dtype=torch.float64, device=self.device) for value in values])
        if self.world > 1:
            torch.distributed.all_reduce(sums)
        return sums.tolist()

    def _tell(self, line: dict[str, Any]) -> None:
        self.progress.lines.append(line)
        if self.rank == 0:
            self.tell({**line, "steps": self.steps})

    # ---- checkpoints ----------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Any]:
        """The weights and Adam's moments, on the device. Diverged on all ranks when one of them is not finite.

        ``get_optimizer_state_dict`` of torch.distributed.checkpoint names them otherwise, adds param_groups, which the
        job has, and steps an Adam that has not stepped yet: checkpoints at rest would change for nothing.
        """
        tensors = {f"net.{name}": value for name, value in self.net.state_dict().items()}
        for (name, _), state in zip(self.net.named_parameters(), self.adam.state_dict()["state"].values(), strict=True):
            tensors |= {f"adam.{what}.{name}": value for what, value in state.items()}
        [bad] = self._summed([float(bool(not_finite_in(tensors)))])
        if bad:
            raise self._diverged(f"a weight after step {self.progress.step:,}")
        return tensors

    def _stop_if_not_finite(self) -> None:
        """Diverged on all ranks when the loss or the gradient of a step since the last look was not finite."""
        first = self.watch.first(self.world)
        if first is not None:
            raise self._diverged(f"the loss or the gradient of step {first:,}")

    def _diverged(self, what: str) -> Diverged:
        """Checkpoints are saved only of what is finite, so the last one there is good."""
        saved = recorded(self.store, self.run)
        plan = self.job.train
        return diverged(self.job.address, what, step_of(saved[0]) if saved else 0, plan.lr, plan.clip_norm)

    def _save(self, tensors: dict[str, Any]) -> None:
        if self.rank:
            return
        tensors = {name: value.cpu() for name, value in tensors.items()}
        state = TrainingState(
            best=self.progress.best,
            worse=self.progress.worse,
            stopped=self.progress.stopped,
            seconds=self.progress.seconds,
            world=self.world,
            steps_per_epoch=self.sampler.steps_per_epoch,
            split=self.split,
        )
        save(self.store, self.run, self.progress.step, tensors, state, self.progress.lines)

    def _resume(self) -> None:
        """Go on from the latest whole checkpoint. Rank 0 chooses it, so that all have the same.

        Diverged when what it holds is not finite.
        """
        import torch

        found = read_latest(self.store, self.run) if self.rank == 0 else None
        chosen = [found.record if found is not None else None]
        if self.world > 1:
            torch.distributed.broadcast_object_list(chosen, device=self.device)
        [record] = chosen
        if record is None:
            return
        check_best(self.job.address, record.best)
        found = found or read_files(self.store, record)
        tensors = found.tensors()
        check_weights(self.job.address, record.step, tensors)
        self.net.load_state_dict({name: tensors[f"net.{name}"] for name in self.net.state_dict()})
        moments = ("step", "exp_avg", "exp_avg_sq")
        state = [{what: tensors[f"adam.{what}.{name}"] for what in moments} for name, _ in self.net.named_parameters()]
        self.adam.load_state_dict({**self.adam.state_dict(), "state": dict(enumerate(state))})
        self.progress = Progress(record.step, record.best, record.worse, record.stopped, record.seconds, found.lines())
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.adam, self._rate, self.progress.step - 1)


class _Window:
    """Sums between two lines of metrics, kept on the device: nothing waits for them before."""

    def __init__(self) -> None:
        self.loss, self.right, self.norm = 0.0, 0.0, 0.0
        self.targets = self.places = self.steps = 0
        self.started = time.monotonic()

    def add(self, loss: Any, right: Any, norm: Any, batch: Any) -> None:
        self.loss, self.right, self.norm = self.loss + loss, self.right + right, self.norm + norm
        self.targets += len(batch.targets)
        self.places += len(batch.ids) * (batch.ids.shape[1] - 1)
        self.steps += 1

    def spent_s(self) -> float:
        return max(time.monotonic() - self.started, 1e-9)
