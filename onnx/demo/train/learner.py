"""The training loop: one step after another on averaged weights, within a time, to be stopped and gone on with."""

import contextlib
import math
import time

import torch

import model

KEEP_EVERY = 30.0  # seconds between the states that a stopped run goes on from
REPORT_EVERY = 5.0  # seconds between two looks at the loss and the clock
FIRST_REPORT = 10  # steps after which the pace is known
AFTERWARDS = 2.0  # seconds of a phase's time for what follows its steps


def compute_type(device):
    return torch.bfloat16 if device.type == "cuda" else torch.float32


class Clock:
    """The time that a run has: all it needs, or `seconds`, shared out to its phases by what they are expected to take."""

    def __init__(self, seconds, phases):
        self.end = math.inf if seconds is None else time.time() + seconds
        self.expected = {name: phase.steps * phase.pace for name, phase in phases.items()}

    def share(self, name):
        """When phase `name`, which begins now, has to end."""
        expected = self.expected.pop(name)
        now = time.time()
        return now + (self.end - now) * expected / (expected + sum(self.expected.values()))


class Learner:
    """Trains modules in bfloat16 with float32 master weights, as one recorded CUDA graph a step where there is a GPU."""

    def __init__(self, name, modules, args, loss):
        self.name, self.modules, self.phase, self.loss, self.unfinished = name, modules, args.phases[name], loss, args.out
        self.end, self.steps = args.clock.share(name), self.phase.steps
        self.parameters = [p for m in modules for p in m.parameters() if p.requires_grad]
        self.masters = [p.detach().float().clone() for p in self.parameters]
        self.average = [p.clone() for p in self.masters]
        self.device = self.masters[0].device
        self.cuda = self.device.type == "cuda"
        if self.cuda:
            for m in modules:
                m.bfloat16()
        self.gradients = [torch.zeros_like(p) for p in self.masters]
        for master, gradient in zip(self.masters, self.gradients):
            master.grad = gradient
        self.rate = torch.zeros((), device=self.device) if self.cuda else 0.0
        self.optimizer = torch.optim.AdamW(
            self.masters, lr=self.rate, betas=(0.9, 0.99), weight_decay=1e-3, fused=self.cuda, capturable=self.cuda
        )
        self.total = torch.zeros((), device=self.device)
        self.step = 0
        self.graph = None
        self.use_graph = args.graph and self.cuda

    def update(self):
        for p in self.parameters:
            p.grad = None
        loss = self.loss()
        loss.backward()
        torch._foreach_copy_(self.gradients, [p.grad for p in self.parameters])
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(self.gradients)))
        torch._foreach_mul_(self.gradients, (1.0 / (norm + 1e-6)).clamp(max=1.0))
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_copy_(self.parameters, self.masters)
        self.total += loss.detach().float()

    def set_rate(self, step):
        warm = min(1.0, (step + 1) / min(200, self.steps / 10))
        rate = self.phase.rate * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / self.steps)))
        if self.cuda:
            self.rate.fill_(rate)
        else:
            self.optimizer.param_groups[0]["lr"] = rate

    def state(self):
        return {"step": self.step, "masters": self.masters, "average": self.average,
                "optimizer": self.optimizer.state_dict()}

    @torch.no_grad()
    def resume(self):
        """Goes on from where this phase was stopped, if it was."""
        path = self.unfinished / f"{self.name}.unfinished"
        if path.exists():
            state = torch.load(path, map_location=self.device, weights_only=True)
            self.step = state["step"]
            torch._foreach_copy_(self.masters, state["masters"])
            torch._foreach_copy_(self.average, state["average"])
            torch._foreach_copy_(self.parameters, self.masters)
            self.optimizer.load_state_dict(state["optimizer"])
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate
            print(f"{self.name} goes on at step {self.step}", flush=True)

    def keep(self):
        self.unfinished.mkdir(parents=True, exist_ok=True)
        beside = self.unfinished / f"{self.name}.part"
        torch.save(self.state(), beside)
        beside.rename(self.unfinished / f"{self.name}.unfinished")

    def record(self):
        """Warms up on a side stream, then records one update."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.set_rate(self.step)
                self.update()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.update()

    def run(self):
        self.resume()
        if self.use_graph:
            self.record()
        self.total.zero_()
        began = kept = time.time()
        first, since, report = self.step, 0, self.step + FIRST_REPORT
        while self.step < self.steps:
            self.set_rate(self.step)
            if self.graph is not None:
                self.graph.replay()
            else:
                self.update()
            self.step += 1
            since += 1
            if self.step % 4 == 0:
                decay = min(self.phase.ema, self.step / (9 + self.step)) ** 4
                torch._foreach_lerp_(self.average, self.masters, 1 - decay)
            if self.step in (report, self.steps):
                loss = self.total.item() / since
                self.total.zero_()
                since = 0
                pace = (time.time() - began) / (self.step - first)
                report = self.step + max(1, int(REPORT_EVERY / pace))
                if self.end < math.inf:
                    in_time = self.step + int((self.end - AFTERWARDS - time.time()) / pace)
                    self.steps = max(self.step, min(self.phase.steps, in_time))
                print(f"{self.name} {self.step}/{self.steps} loss {loss:.4f} {pace * 1e3:.1f} ms a step", flush=True)
                if not math.isfinite(loss):
                    raise SystemExit(f"{self.name}: the loss is {loss}")
                if time.time() - kept > KEEP_EVERY:
                    self.keep()
                    kept = time.time()

    def finish(self):
        """Puts the averaged weights into the modules, in float32."""
        for m in self.modules:
            m.float()
        with torch.no_grad():
            for p, value in zip(self.parameters, self.average):
                p.copy_(value)
        for path in self.unfinished.glob("*.unfinished"):
            path.unlink()


class UnetPart:
    """The UNet's parameters without its motion modules, as far as `Learner` looks at a module."""

    def __init__(self, unet):
        self.unet = unet

    def parameters(self):
        return [p for name, p in self.unet.named_parameters() if "motion_modules" not in name]

    def bfloat16(self):
        self.unet.bfloat16()

    def float(self):
        self.unet.float()


@contextlib.contextmanager
def compiled(blocks):
    """Lets PyTorch's compiler fuse the temporal attention and, inside, these kinds of block."""
    torch._dynamo.config.recompile_limit = 256
    before = [block.forward for block in blocks]
    model.temporal_attend = torch.compile(model.temporal_sums, dynamic=False)
    model.temporal_maps = torch.compile(model.open_sums, dynamic=False)
    for block in blocks:
        block.forward = torch.compile(block.forward, dynamic=False)
    yield
    for block, forward in zip(blocks, before):
        block.forward = forward
    model.temporal_attend, model.temporal_maps = model.attend, model.attend_openly
