"""The training loop of one worker: optimiser, learning rate, checkpoints, early stopping. Independent of Ray."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from wavmill.pipeline.job.training_job import Train, TrainJob
from wavmill.pipeline.model_json import BestValidation, MetricsLine
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
from wavmill.pipeline.training.initial_weights import load_initial_weights
from wavmill.pipeline.training.task import Worker

if TYPE_CHECKING:
    import torch
    from torch import Tensor

AUTO_VALIDATE_STEPS = 500
WARM_UP = 0.05  # warm-up: the default share of all steps
LR_FLOOR = 0.1  # the end of the cosine, as a share of the highest rate
Tell = Callable[[MetricsLine], None]


def length_of(plan: Train, steps_per_epoch: int) -> int:
    """How many steps a training has at most."""
    return plan.epochs * steps_per_epoch if plan.steps == "auto" else plan.steps


@dataclass
class Progress:
    """The state of a training that is not in tensors; saved with every checkpoint."""

    step: int = 0
    best: BestValidation | None = None  # the validation line with the lowest loss
    worse: int = 0  # validations since
    stopped: str = ""  # "steps" or "early" once it has ended
    seconds: float = 0.0
    lines: list[MetricsLine] = field(default_factory=list)


class Learner:
    """Rank ``rank`` of ``world`` workers. All ranks decide the same, from sums over all ranks."""

    def __init__(self, job: TrainJob, pack: str, run: str, rank: int = 0, world: int = 1, tell: Tell = lambda _: None):
        import torch

        self.job, self.run, self.rank, self.world, self.tell = job, run, rank, world, tell
        self.store: Store = open_store(job.store)  # of its own: a worker is another process, but for workers: 0
        plan, worker = job.train, Worker(rank, world)
        self.task = job.model.on_worker(self.store, pack, job.pack, job.data, plan.batch, plan.seed, worker)
        epoch = self.task.steps_per_epoch
        self.steps = length_of(plan, epoch)
        self.validate_every = min(epoch, AUTO_VALIDATE_STEPS) if plan.validate_every == "auto" else plan.validate_every
        every = plan.checkpoint_every
        self.checkpoint_every = self.validate_every if every == "auto" else every
        self.warm_up = math.ceil(WARM_UP * self.steps) if plan.warmup_steps == "auto" else plan.warmup_steps
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(plan.seed)
        self.net = self.task.net()
        load_initial_weights(job, self.net)
        self.net.to(self.device)
        self.loss = self.task.loss(self.net)
        if world > 1:
            # Without find_unused_parameters DDP sorts its buckets anew after the first step, and with it the order of
            # its sums: a run that is resumed would end with other weights than one that is not.
            self.loss = torch.nn.parallel.DistributedDataParallel(self.loss, find_unused_parameters=True)
        self.adam = torch.optim.Adam(self.net.parameters(), plan.lr, fused=True)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.adam, self._rate)
        self.watch = Watch(self.device)
        self.progress = Progress()

    def learn(self) -> None:
        """Train from the last checkpoint until the final one is saved; rank 0 saves and reports.

        Diverged, on all ranks at the same step, when a loss, a gradient or a weight is not finite; nothing of it is
        saved. It is checked when a line of metrics is due, so that no step waits for the device.
        """
        self._resume()
        if self.rank == 0:
            split = self.task.split
            sides: MetricsLine = {"by": split.by, "train": split.train, "valid": split.valid}
            self.tell({"kind": "split", "step": self.progress.step, "steps": self.steps, **sides})
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
            if (validates or last) and self.task.split.valid:
                self._validate()
            early = 0 < self.job.train.patience <= self.progress.worse
            self.progress.stopped = "early" if early else "steps" if last else ""
            if validates or saves or self.progress.stopped:
                self._save(self._state())
            window = _Window()

    # ---- one step -------------------------------------------------------------------------------------------------

    def _step(self, window: "_Window") -> None:
        import torch

        step, plan = self.progress.step, self.job.train
        torch.manual_seed(int(np.random.SeedSequence([plan.seed, step, self.rank]).generate_state(1)[0]))
        batch, terms = self.task.batch(step, self.device)
        self.adam.zero_grad()
        with self._precision():
            loss, outputs = self.loss(batch)
        # DDP averages over workers; the loss is a mean over all terms of the global batch, on whichever worker
        (loss * (self.world / terms)).backward()
        norm = torch.nn.utils.clip_grad_norm_(self.net.parameters(), plan.clip_norm)
        self.adam.step()
        self.schedule.step()
        self.watch.see(step + 1, loss.detach(), norm.detach())
        window.add(norm, self.task.sums(batch, loss.detach(), outputs))

    def _rate(self, step: int) -> float:
        """The learning rate at a step as a share of the highest: linear warm-up, then half a cosine."""
        if step < self.warm_up:
            return (step + 1) / self.warm_up
        done = (step - self.warm_up) / max(1, self.steps - self.warm_up)
        return LR_FLOOR + (1 - LR_FLOOR) * (1 + math.cos(math.pi * done)) / 2

    def _precision(self) -> "torch.autocast":
        import torch

        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.job.train.dtype == "bfloat16")

    # ---- what is told ---------------------------------------------------------------------------------------------

    def _log(self, window: "_Window") -> None:
        step = self.progress.step
        line: MetricsLine = {
            "kind": "train",
            "step": step,
            "epoch": step / self.task.steps_per_epoch,
            **self.task.metrics(self._summed(window.sums), window.seconds()),
            "grad_norm": float(window.norm) / window.steps,
            "lr": self.job.train.lr * self._rate(step - 1),
            "seconds": self.progress.seconds,
        }
        if name := not_finite_field(line):  # the sum of finite steps may not be finite
            raise self._diverged(f"the {name} up to step {step:,}")
        self._tell(line)

    def _validate(self) -> None:
        """Validate; keep the result if its loss is the best so far."""
        with self._precision():
            sums = self.task.validation_sums(self.net)
        line: MetricsLine = {
            "kind": "valid",
            "step": self.progress.step,
            **self.task.validation_metrics(self._summed(sums)),
        }
        if not_finite_field(line):
            raise self._diverged(f"the validation loss at step {self.progress.step:,}")
        best = self.progress.best
        if best is None or line["loss"] < best.loss:
            self.progress.best, self.progress.worse = BestValidation.of(line), 0
        else:
            self.progress.worse += 1
        self._tell(line)

    def _summed(self, values: "Sequence[Tensor | float]") -> list[float]:
        """Each value summed over all workers."""
        import torch

        sums = torch.stack([torch.as_tensor(value, dtype=torch.float64, device=self.device) for value in values])
        if self.world > 1:
            torch.distributed.all_reduce(sums)
        return sums.tolist()

    def _tell(self, line: MetricsLine) -> None:
        self.progress.lines.append(line)
        if self.rank == 0:
            self.tell({**line, "steps": self.steps})

    # ---- checkpoints ----------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, "Tensor"]:
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

    def _save(self, tensors: dict[str, "Tensor"]) -> None:
        if self.rank:
            return
        tensors = {name: value.cpu() for name, value in tensors.items()}
        state = TrainingState(
            best=self.progress.best,
            worse=self.progress.worse,
            stopped=self.progress.stopped,
            seconds=self.progress.seconds,
            world=self.world,
            steps_per_epoch=self.task.steps_per_epoch,
            split=self.task.split,
        )
        save(self.store, self.run, self.progress.step, tensors, state, self.progress.lines)

    def _resume(self) -> None:
        """Load the latest intact checkpoint; rank 0 chooses it for all.

        Diverged when it has numbers that are not finite.
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
    """Sums between two lines of metrics, kept on the device until then."""

    def __init__(self) -> None:
        self.norm: Tensor | float = 0.0
        self.sums: list[Tensor | float] = []
        self.steps = 0
        self.started = time.monotonic()

    def add(self, norm: "Tensor", sums: "Sequence[Tensor | float]") -> None:
        self.norm = self.norm + norm
        self.sums = [one + more for one, more in zip(self.sums or [0.0] * len(sums), sums, strict=True)]
        self.steps += 1

    def seconds(self) -> float:
        return max(time.monotonic() - self.started, 1e-9)
