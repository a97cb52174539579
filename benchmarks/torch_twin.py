"""A PyTorch twin of the step of configs/cifar10.py:full_plain; versus_torch.py runs its variants.

    python benchmarks/torch_twin.py --batch_size=256 --dtype=bfloat16 --channels_last --compile

The same networks, layer for layer (the counts of parameters are compared), the same loss, masking,
clipping, AdamW (fused, two groups; decay on all parameters) and moving average. Pictures lie on the
device as floats: no loader and no augmentation is timed, where ours augments inside the step.
"""

import argparse
import math
import statistics
import time

import figures
import torch
import torch.nn.functional as F
from torch import nn

WIDTH, MULTIPLIERS, NUM_BLOCKS, ATTENTION_LEVELS = 128, (1, 2, 2, 2), 2, (1,)
Z_SIZE, HEAD_SIZE, DROPOUT, SIZE, ENCODER_WIDTH = 128, 64, 0.1, 32, 64
NUM_SECTIONS = len(MULTIPLIERS) * (NUM_BLOCKS + 1) + 1
DROP_RATE, CLIP_NORM, EMA_DECAY = 0.1, 1.0, 0.9999


def group_norm(channels: int, affine: bool = True) -> nn.GroupNorm:
    groups = next(g for g in range(min(32, channels // 4), 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, channels, affine=affine)


def conv(c_in: int, c_out: int, size: int = 3, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, size, stride, padding=size // 2, bias=bias)


class EncoderBlock(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int):
        super().__init__()
        self.norm0, self.norm1 = nn.BatchNorm2d(c_in), nn.BatchNorm2d(c_out)
        self.conv0 = conv(c_in, c_out, 3, stride, bias=False)
        self.conv1 = conv(c_out, c_out, 3, bias=False)
        changes = stride > 1 or c_in != c_out
        self.shortcut = conv(c_in, c_out, 1, stride, bias=False) if changes else None

    def forward(self, x):
        h = F.relu(self.norm0(x))
        x = x if self.shortcut is None else self.shortcut(h)
        return x + self.conv1(F.relu(self.norm1(self.conv0(h))))


class Encoder(nn.Module):
    """ResNet-18 v2 with a small stem, pooled, then linear."""

    def __init__(self):
        super().__init__()
        c, blocks = ENCODER_WIDTH, []
        self.stem = conv(3, c, bias=False)
        for stage in range(4):
            for index in range(2):
                new = ENCODER_WIDTH * 2**stage
                blocks.append(EncoderBlock(c, new, 2 if stage > 0 and index == 0 else 1))
                c = new
        self.blocks = nn.Sequential(*blocks)
        self.norm, self.head = nn.BatchNorm2d(c), nn.Linear(c, Z_SIZE)

    def forward(self, x):
        return self.head(F.relu(self.norm(self.blocks(self.stem(x)))).mean((2, 3)))


class ModulatedBlock(nn.Module):
    def __init__(self, c_in: int, c_out: int, section: int):
        super().__init__()
        self.norm0, self.norm1 = group_norm(c_in), group_norm(c_out, affine=False)
        self.conv0, self.conv1 = conv(c_in, c_out), conv(c_out, c_out)
        self.time = nn.Linear(4 * WIDTH, 2 * c_out)
        self.code = nn.Linear(section, 2 * c_out)
        self.shortcut = conv(c_in, c_out, 1) if c_in != c_out else None
        nn.init.zeros_(self.conv1.weight)

    def forward(self, x, time, z):
        h = self.norm1(self.conv0(F.silu(self.norm0(x))))
        for layer, condition in ((self.time, F.silu(time)), (self.code, z)):
            scale, shift = layer(condition)[:, :, None, None].chunk(2, dim=1)
            h = (1 + scale) * h + shift
        h = self.conv1(F.dropout(F.silu(h), DROPOUT, self.training))
        x = x if self.shortcut is None else self.shortcut(x)
        return (x + h) * 0.5**0.5


class Attention(nn.Module):
    def __init__(self, c: int):
        super().__init__()
        self.norm, self.qkv, self.out = group_norm(c), conv(c, 3 * c, 1), conv(c, c, 1)
        nn.init.zeros_(self.out.weight)

    def forward(self, x):
        b, c, height, width = x.shape
        heads = self.qkv(self.norm(x)).reshape(b, 3, c // HEAD_SIZE, HEAD_SIZE, height * width)
        # Fused kernels want the last axis dense.
        q, k, v = heads.transpose(-1, -2).contiguous().unbind(1)
        h = F.scaled_dot_product_attention(q, k, v)
        h = self.out(h.transpose(-1, -2).reshape(b, c, height, width))
        return (x + h) * 0.5**0.5


def time_encoding(t, size: int):
    half = size // 2
    k = torch.arange(half, device=t.device, dtype=torch.float32) / half
    angle = (2 * t[:, None] - 1) / (2 * math.pi * 1e-4 * 10_000.0**k)
    return torch.cat([torch.cos(angle), torch.sin(angle)], dim=-1)


class Denoiser(nn.Module):
    def __init__(self):
        super().__init__()
        small, larger = divmod(Z_SIZE, NUM_SECTIONS)
        self.sections = [small + 1] * larger + [small] * (NUM_SECTIONS - larger)
        self.time = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.SiLU(), nn.Linear(4 * WIDTH, 4 * WIDTH)
        )
        self.stem = conv(3, WIDTH)
        self.down, self.up, skips, c = nn.ModuleList(), nn.ModuleList(), [WIDTH], WIDTH
        last = len(MULTIPLIERS) - 1
        for level, multiplier in enumerate(MULTIPLIERS):
            attends = level in ATTENTION_LEVELS
            for _ in range(NUM_BLOCKS):
                new = WIDTH * multiplier
                self.down.append(self.block(c, new, len(skips), attends))
                skips.append(c := new)
            if level < last:
                self.down.append(conv(c, c, 3, 2))
                skips.append(c)
        self.mid = nn.ModuleList(
            [self.block(c, c, NUM_SECTIONS - 1, attends=True)]
            + [self.block(c, c, NUM_SECTIONS - 1, attends=False)]
        )
        for level in range(last, -1, -1):
            new = WIDTH * MULTIPLIERS[level]
            for _ in range(NUM_BLOCKS + 1):
                c_in = c + skips.pop()
                self.up.append(self.block(c_in, new, len(skips), level in ATTENTION_LEVELS))
                c = new
            if level > 0:
                self.up.append(conv(c, c))
        self.norm, self.out = group_norm(c), conv(c, 3)
        nn.init.zeros_(self.out.weight)

    def block(self, c_in: int, c_out: int, section: int, attends: bool) -> nn.ModuleDict:
        parts = {"block": ModulatedBlock(c_in, c_out, self.sections[section])}
        if attends:
            parts["attention"] = Attention(c_out)
        layer = nn.ModuleDict(parts)
        layer.section = section
        return layer

    def forward(self, x_t, t, z):
        time, z = self.time(time_encoding(t, WIDTH)), z.split(self.sections, dim=1)

        def run(layer, h):
            h = layer["block"](h, time, z[layer.section])
            return layer["attention"](h) if "attention" in layer else h

        h = self.stem(x_t)
        skips = [h]
        for layer in self.down:
            h = layer(h) if isinstance(layer, nn.Conv2d) else run(layer, h)
            skips.append(h)
        for layer in self.mid:
            h = run(layer, h)
        for layer in self.up:
            if isinstance(layer, nn.Conv2d):
                h = layer(F.interpolate(h, scale_factor=2.0, mode="nearest"))
            else:
                h = run(layer, torch.cat([h, skips.pop()], dim=1))
        return self.out(F.silu(self.norm(h)))


class Twin(nn.Module):
    """Encoder, masking, denoiser: (source, target) -> the loss."""

    def __init__(self):
        super().__init__()
        self.encoder, self.denoiser = Encoder(), Denoiser()
        sizes = torch.tensor(self.denoiser.sections)
        owner = torch.arange(NUM_SECTIONS).repeat_interleave(sizes)
        self.register_buffer("section_of", owner)

    def forward(self, source, target):
        b = target.shape[0]
        z = self.encoder(source).float()
        kept = torch.rand(b, NUM_SECTIONS, device=z.device) >= DROP_RATE
        kept &= torch.rand(b, 1, device=z.device) >= DROP_RATE
        z = z * kept[:, self.section_of]
        t = torch.rand(b, device=z.device) * 0.999 + 0.001
        # The inverted cosine schedule.
        alpha_bar = torch.acos(t.sqrt()) * (2 * 1.008 / math.pi) - 0.008
        alpha_bar = alpha_bar.clamp(min=1e-4)[:, None, None, None]
        epsilon = torch.randn_like(target)
        x_t = alpha_bar.sqrt() * target + (1 - alpha_bar).sqrt() * epsilon
        prediction = self.denoiser(x_t, t, z)
        return (prediction.float() - epsilon).square().mean()


def benchmark(arguments: argparse.Namespace) -> dict:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    layout = torch.channels_last if arguments.channels_last else torch.contiguous_format
    model = Twin().to(device, memory_format=layout)
    pictures = [
        (torch.rand(arguments.batch_size, 3, SIZE, SIZE, device=device) * 2 - 1).to(
            memory_format=layout
        )
        for _ in range(2)
    ]
    groups = [
        {"params": list(model.encoder.parameters()), "lr": 8e-4},
        {"params": list(model.denoiser.parameters()), "lr": 4e-4},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    params = list(model.parameters())
    average = [p.detach().clone() for p in params]
    loss_fn = torch.compile(model, mode=arguments.compile) if arguments.compile else model
    low = arguments.dtype == "bfloat16"

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=low):
            loss = loss_fn(*pictures)
        loss.backward()
        nn.utils.clip_grad_norm_(params, CLIP_NORM, foreach=True)
        optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(average, params, 1 - EMA_DECAY)
        return loss

    def run(count: int) -> float:
        begin = time.perf_counter()
        for _ in range(count):
            loss = step()
        loss.item()  # the wait
        return (time.perf_counter() - begin) / count

    began = time.perf_counter()
    run(3)
    warm = time.perf_counter() - began
    seconds = [run(arguments.num_steps) for _ in range(arguments.repeats)]
    median = statistics.median(seconds)
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
        "dtype": arguments.dtype,
        "channels_last": arguments.channels_last,
        "compile": arguments.compile,
        "batch_size": arguments.batch_size,
        "parameters": sum(p.numel() for p in params),
        "images_per_second": arguments.batch_size / median,
        "step_milliseconds": 1e3 * median,
        "fastest_and_slowest": [1e3 * min(seconds), 1e3 * max(seconds)],
        "first_three_steps_seconds": warm,
        "peak_mebibytes": torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else None,
    }


def main() -> None:
    parser = figures.parser(__doc__)
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--channels_last", action="store_true")
    parser.add_argument("--compile", nargs="?", const="default", help="a mode of torch.compile")
    parser.add_argument("--num_steps", type=int, default=10, help="steps between two waits")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    found = benchmark(arguments)
    figures.show(found)
    figures.write(found, arguments.json)


if __name__ == "__main__":
    main()
